//! Whom a secure connection trusts.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::DoorError;
use crate::target::Host;

/// The certificates that this machine trusts; reading them takes milliseconds, so once.
static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
});

/// Whom TLS 1.2 and 1.3 connections trust: this machine's certificate authorities, and perhaps one more. Always
/// verified: there is no switch.
#[derive(Clone)]
pub struct Trust {
    connector: TlsConnector,
}

impl Trust {
    /// Trusts what this machine trusts, and the certificates in `pem`.
    pub fn new(pem: Option<&[u8]>) -> Result<Self, String> {
        let mut roots = SYSTEM.clone();
        for certificate in pem.into_iter().flat_map(CertificateDer::pem_slice_iter) {
            let certificate = certificate.map_err(|error| format!("not a PEM file of certificates: {error}"))?;
            roots.add(certificate).map_err(|error| format!("not a certificate authority: {error}"))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: Arc::new(config).into() })
    }

    /// Secures a connection to `host`, by its own name.
    pub(crate) async fn secure(&self, host: &Host, stream: TcpStream) -> Result<TlsStream<TcpStream>, DoorError> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|error| error.to_string()),
            Host::Address(address) => Ok(ServerName::from(IpAddr::to_canonical(address))),
        };
        let name = name.map_err(DoorError::Tls)?;
        self.connector.connect(name, stream).await.map_err(|error| DoorError::Tls(error.to_string()))
    }
}
