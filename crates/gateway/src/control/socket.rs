//! The socket in the data folder: the same API for whoever may open the folder, as an operator.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};

const SOCKET_FILE: &str = "control.sock";

/// The system's limit on the name of a socket is 108 bytes.
const NAME_BYTES_MAX: usize = 100;

/// A name for the socket of a data folder that the system takes, and what keeps the name good.
fn name(folder: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = folder.join(SOCKET_FILE);
    if path.as_os_str().len() <= NAME_BYTES_MAX {
        return Ok((path, None));
    }
    let folder = File::open(folder)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_FILE}", folder.as_raw_fd())), Some(folder)))
}

/// Connects to the server that has `folder` open.
pub(crate) async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let (name, _folder) = name(folder)?;
    UnixStream::connect(name).await
}

/// Binds the socket. This process holds the folder's lock, so a socket that is there is a dead one.
pub(crate) fn bind(folder: &Path) -> Option<UnixListener> {
    remove(folder);
    let bound = name(folder).and_then(|(name, _folder)| {
        let listener = UnixListener::bind(&name)?;
        std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    if let Err(error) = &bound {
        tracing::warn!(folder = %folder.display(), %error, "no control socket: the command line needs a key");
        remove(folder);
    }
    bound.ok()
}

/// Serves the API on the socket.
pub(crate) async fn serve(listener: UnixListener, router: Router) {
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
    let _ = std::fs::remove_file(folder.join(SOCKET_FILE));
}
