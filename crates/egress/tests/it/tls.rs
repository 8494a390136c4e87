//! Secure connections: whom they trust, by which name, and whom not.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tidings_egress::{Door, Line, Lines, Policy, Resolver, Response, Target, Trust};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;

use crate::peer::{OK, PATIENCE};

/// An authority that only a test's door trusts.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, names: &[&str], expired: bool) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), private(&key))
    }
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// An endpoint that tells which connection each request came over; the number of the port.
async fn endpoint(
    (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
    versions: &[&'static SupportedProtocolVersion],
) -> (u16, UnboundedReceiver<usize>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, requests) = unbounded_channel();
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that refuses ends here.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut text = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                text.push(byte);
                if text.ends_with(b"\r\n\r\n{}") {
                    assert!(String::from_utf8_lossy(&text).contains(&format!("host: localhost:{port}\r\n")));
                    text.clear();
                    told.send(connection).unwrap();
                    stream.write_all(OK.as_bytes()).await.unwrap();
                }
            }
        }
    });
    (port, requests)
}

fn line(port: u16, trusted: Option<&Authority>) -> Line {
    let pem = trusted.map(|authority| authority.certificate.pem());
    let trust = Trust::new(pem.as_deref().map(str::as_bytes)).unwrap();
    let door = Door::new(Policy::dev(), Resolver::system().unwrap(), trust);
    let target = Target::parse(&format!("https://localhost:{port}/"), &Policy::dev()).unwrap();
    Line::new(Arc::new(door), target, &Lines::default())
}

async fn post(line: &Line) -> Result<Response, &'static str> {
    line.post(Lines::default(), b"{}", PATIENCE).await.map_err(|error| error.word())
}

#[tokio::test]
async fn a_good_chain_is_taken_and_its_connection_kept() {
    let authority = Authority::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (port, mut requests) = endpoint(authority.leaf(&["localhost"], false), &[version]).await;
        let line = line(port, Some(&authority));
        for _ in 0..3 {
            assert_eq!(post(&line).await.unwrap().body_start, b"hi");
            assert_eq!(requests.recv().await, Some(0));
        }
    }
}

#[tokio::test]
async fn a_certificate_of_another_name_an_old_one_and_one_of_an_unknown_authority_are_refused() {
    let authority = Authority::new();
    for (names, expired) in [(&["example.com"][..], false), (&["127.0.0.1"], false), (&["localhost"], true)] {
        let (port, _requests) = endpoint(authority.leaf(names, expired), rustls::ALL_VERSIONS).await;
        assert_eq!(post(&line(port, Some(&authority))).await, Err("tls"), "{names:?} {expired}");
    }
    let (port, _requests) = endpoint(authority.leaf(&["localhost"], false), rustls::ALL_VERSIONS).await;
    assert_eq!(post(&line(port, None)).await, Err("tls"));
    assert_eq!(post(&line(port, Some(&Authority::new()))).await, Err("tls"));
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_refused() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (port, _requests) = endpoint((certificate.der().clone(), private(&key)), rustls::ALL_VERSIONS).await;
    assert_eq!(post(&line(port, None)).await, Err("tls"));
}

/// What a server says that speaks TLS 1.1 at the most: a `ServerHello` of that version, or the alert that no version fits.
#[tokio::test]
async fn tls_1_1_is_refused() {
    let hello = [&[0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2][..], &[7; 32], &[0, 0xc0, 0x13, 0]].concat();
    let alert = vec![0x15, 3, 2, 0, 2, 2, 70];
    for said in [hello, alert] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut record = [0; 5];
            stream.read_exact(&mut record).await.unwrap();
            stream.write_all(&said).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        });
        assert_eq!(post(&line(port, None)).await, Err("tls"));
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_speaks_clear_text_or_closes_is_tls() {
    for said in [OK, ""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
        });
        assert_eq!(post(&line(port, None)).await, Err("tls"), "{said:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_stands_still_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let begun = tokio::time::Instant::now();
    assert_eq!(post(&line(port, None)).await, Err("tls"));
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    drop(listener);
}

#[test]
fn what_is_no_authority_is_refused() {
    let leaf = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(Trust::new(Some(leaf.as_bytes())).is_err());
    assert!(Trust::new(Some(b"-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n")).is_err());
}
