//! The socket in the data folder: the same API for whoever may open the folder, as an operator.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;

const SOCKET_FILE: &str = "control.sock";

/// Where the socket of a data folder is.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join(SOCKET_FILE)
}

/// Serves the API on the socket. This process holds the folder's lock, so a socket that is there is a dead one.
pub(crate) async fn serve(folder: PathBuf, router: Router) {
    let path = path(&folder);
    remove(&folder);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: the command line needs a key");
            return;
        }
    };
    if let Err(error) = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), %error, "no control socket: its permissions cannot be set");
        remove(&folder);
        return;
    }
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new());
            // How a connection ends is the client's business.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Takes the socket away.
pub(crate) fn remove(folder: &Path) {
    // It may not be there.
    let _ = std::fs::remove_file(path(folder));
}
