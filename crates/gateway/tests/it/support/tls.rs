//! HTTPS beside clear text: a certificate that only who is told trusts.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// What a server needs for HTTPS, and who trusts it.
pub(crate) struct Tls {
    pub(crate) port: u16,
    pub(crate) cert: PathBuf,
    key: PathBuf,
    trusted: CertificateDer<'static>,
    _folder: TempDir,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { port, cert, key, trusted: made.cert.der().clone(), _folder: folder }
    }

    /// The settings of a server.
    pub(crate) fn settings(&self) -> String {
        let (port, cert, key) = (self.port, self.cert.display(), self.key.display());
        format!("[tls]\nlisten = \"127.0.0.1:{port}\"\ncert_file = \"{cert}\"\nkey_file = \"{key}\"\n")
    }

    /// A connection of a client.
    pub(crate) fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).unwrap();
        socket.set_read_timeout(Some(super::http::READ_TIMEOUT)).unwrap();
        StreamOwned::new(client, socket)
    }
}
