//! How a database is reached: its URL, and whom TLS trusts.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{ANSWER, CONNECT};

/// The certificates that this machine trusts; reading them takes milliseconds, so once.
static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
});

/// A database, and how to reach it.
#[derive(Clone)]
pub struct Config {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: MakeRustlsConnect,
}

/// A database from its URL; the error says what is wrong. `authorities`: a PEM text of those that `sslmode=verify-full`
/// trusts in place of this machine's.
///
/// `sslmode` as libpq has it: `disable`; `prefer`, the default: TLS if the server has it; `require`: TLS, whoever the
/// server is; `verify-full`: TLS with the server of that name.
pub fn config(url: &str, password: Option<&str>, authorities: Option<&[u8]>) -> Result<Config, String> {
    let verified = url.contains("sslmode=verify-full");
    if url.contains("sslmode=verify-ca") {
        return Err("sslmode=verify-ca: take verify-full, which also looks at the server's name".to_owned());
    }
    if authorities.is_some() && !verified {
        return Err("a file of authorities needs sslmode=verify-full: otherwise nobody looks at it".to_owned());
    }
    let url = url.replace("sslmode=verify-full", "sslmode=require");
    let mut config: tokio_postgres::Config =
        url.parse().map_err(|error| format!("a URL as in postgres://user@host/database: {error}"))?;
    if let Some(password) = password {
        config.password(password);
    }
    config.connect_timeout(CONNECT).application_name("tidings").keepalives_idle(ANSWER).tcp_user_timeout(ANSWER);
    if verified && config.get_ssl_mode() != SslMode::Require {
        return Err("sslmode stands twice in the URL".to_owned());
    }
    Ok(Config { config, tls: MakeRustlsConnect::new(tls(verified, authorities)?) })
}

fn tls(verified: bool, authorities: Option<&[u8]>) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = if verified {
        builder.with_root_certificates(roots(authorities)?).with_no_client_auth()
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
    };
    // As PostgreSQL 17 and later ask for.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(config)
}

fn roots(authorities: Option<&[u8]>) -> Result<RootCertStore, String> {
    let Some(pem) = authorities else { return Ok(SYSTEM.clone()) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("not a PEM file of certificates: {error}"))?;
        roots.add(certificate).map_err(|error| format!("not a certificate authority: {error}"))?;
    }
    if roots.is_empty() {
        return Err("no certificate in the file of authorities".to_owned());
    }
    Ok(roots)
}

/// Takes any server for the right one, as `prefer` and `require` do: that keeps listeners out, and nobody who is in between.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
