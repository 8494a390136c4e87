//! Whom an https connection trusts: this machine's certificate authorities, and perhaps one more. Always verified.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Made once for each gateway.
#[derive(Clone)]
pub(super) struct Trust(TlsConnector);

impl Trust {
    /// Trusts what this machine trusts, and the certificates in `pem`.
    pub(super) fn new(pem: Option<&[u8]>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in pem.into_iter().flat_map(CertificateDer::pem_slice_iter) {
            let certificate = certificate.map_err(|error| format!("not a PEM file of certificates: {error}"))?;
            roots.add(certificate).map_err(|error| format!("not a certificate authority: {error}"))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self(Arc::new(config).into()))
    }

    /// Secures a connection to `host`.
    pub(super) async fn secure(&self, host: &str, socket: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        self.0.connect(name, socket).await.map_err(|error| error.to_string())
    }
}
