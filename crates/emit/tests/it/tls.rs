//! Publishing by https: only to whom this machine, or the application, trusts, and only by the right name.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tidings_emit::{Event, Gateway, PublishError, Publisher, PublisherLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const BODY: &str = r#"{"results":[{"eventId":"e1","offset":1,"sequenceNumber":null,"duplicate":false}]}"#;

/// A gateway with a certificate for a name, that takes one event each time; its port, and the authority's certificate.
async fn gateway(name: &str) -> (u16, String) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![leaf.der().clone()], private).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut request = [0; 4096];
            while socket.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                let answer = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (port, authority.pem())
}

fn publisher(gateway: Gateway) -> Publisher {
    // One try, so that a failure is told at once.
    Publisher::with(gateway, PublisherLimits { give_up_after: Duration::ZERO, ..PublisherLimits::default() })
}

#[tokio::test]
async fn a_gateway_that_is_trusted_gets_the_event() {
    let (port, pem) = gateway("localhost").await;
    let trusted = Gateway::new(&format!("https://localhost:{port}")).unwrap().trust(pem.as_bytes()).unwrap();
    let publisher = publisher(trusted);
    assert_eq!(publisher.publish(Event::new("order.created", &1)).await.unwrap().offset, 1);
    // And again over the same connection.
    assert_eq!(publisher.publish(Event::new("order.created", &1)).await.unwrap().offset, 1);
}

#[tokio::test]
async fn a_gateway_that_is_not_trusted_or_has_another_name_gets_nothing() {
    let (port, _) = gateway("localhost").await;
    let (elsewhere, pem) = gateway("elsewhere.example").await;
    let stranger = Gateway::new(&format!("https://localhost:{port}")).unwrap();
    let misnamed = Gateway::new(&format!("https://localhost:{elsewhere}")).unwrap().trust(pem.as_bytes()).unwrap();
    for gateway in [stranger, misnamed] {
        match publisher(gateway).publish(Event::new("order.created", &1)).await {
            Err(PublishError::Unavailable(why)) => assert!(why.contains("no secure connection"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
