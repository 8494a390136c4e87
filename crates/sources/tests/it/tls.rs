//! Connections to databases that speak TLS, and to those that do not.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tidings_rigs::Postgres;
use tidings_sources::outbox::Reader;
use tidings_sources::outbox::postgres::{self, install};

use crate::rig::connect;

/// An authority in PEM, and a certificate of it for this name with its key.
fn certificates(name: &str) -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (authority, server.pem(), key.serialize_pem())
}

/// Whether a reader's connection is encrypted, or why there is none.
async fn secured(url: &str, authorities: Option<&str>) -> Result<bool, String> {
    let config = postgres::config(url, None, authorities.map(str::as_bytes))?;
    let mut reader = Reader::Postgres(Box::new(postgres::Reader::new(config, "tidings-1")));
    reader.open(None, true).await.map_err(|error| error.to_string())?;
    let sql = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'tidings'";
    let looking = connect(url.split_once('?').map_or(url, |(url, _)| url)).await;
    let encrypted = looking.query_one(sql, &[]).await.unwrap().get(0);
    drop(reader);
    // It ends when its client is gone.
    while !looking.query(sql, &[]).await.unwrap().is_empty() {}
    Ok(encrypted)
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_says_what_is_encrypted_and_who_is_trusted() {
    let (authority, certificate, key) = certificates("127.0.0.1");
    let (stranger, elsewhere, elsewheres_key) = certificates("database.example");
    let clear = Postgres::start();
    let right = Postgres::with_tls(&certificate, &key);
    let wrong = Postgres::with_tls(&elsewhere, &elsewheres_key);
    for cluster in [&clear, &right, &wrong] {
        let config = postgres::config(&cluster.url("postgres"), None, None).unwrap();
        assert!(install::install(&config, &install::Wanted::default()).await.unwrap());
    }
    let (own, other) = (Some(authority.as_str()), Some(stranger.as_str()));
    let cases = [
        (&clear, "", None, Ok(false)),
        (&clear, "?sslmode=require", None, Err("TLS")),
        (&clear, "?sslmode=verify-full", own, Err("TLS")),
        (&right, "", None, Ok(true)),
        (&right, "?sslmode=disable", None, Ok(false)),
        (&right, "?sslmode=require", None, Ok(true)),
        (&right, "?sslmode=verify-full", own, Ok(true)),
        (&right, "?sslmode=verify-full", None, Err("UnknownIssuer")),
        (&right, "?sslmode=verify-full", other, Err("certificate")),
        (&wrong, "?sslmode=require", None, Ok(true)),
        (&wrong, "?sslmode=verify-full", other, Err("not valid for name")),
        (&right, "?sslmode=verify-full&sslmode=disable", own, Err("twice")),
        (&right, "?sslmode=require", own, Err("verify-full")),
        (&right, "?sslmode=verify-ca", own, Err("verify-full")),
        (&right, "?sslmode=verify-full", Some("no PEM"), Err("no certificate")),
    ];
    for (cluster, mode, authorities, expected) in cases {
        let found = secured(&format!("{}{mode}", cluster.url("postgres")), authorities).await;
        match (&found, expected) {
            (Ok(found), Ok(expected)) if *found == expected => {}
            (Err(reason), Err(part)) if reason.contains(part) => {}
            _ => panic!("{mode} {authorities:?}: {found:?} in place of {expected:?}"),
        }
    }
}
