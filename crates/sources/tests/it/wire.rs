//! The connection by which a slot is read: how it begins, what it hears and says.

use std::fs;
use std::time::Duration;

use tidings_rigs::Postgres;
use tidings_sources::outbox::postgres::replication;
use tidings_sources::outbox::postgres::{self, install};
use tidings_sources::outbox::{Reader, State};
use tokio::time::timeout;

use crate::replication::{both, cluster, stands};
use crate::rig::{ARRIVAL, Rig, database, database_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_told_while_the_reader_rests() {
    let rig = Rig::with_slot(database().await).await;
    let table = postgres::Reader::new(rig.config(), "tidings-1");
    let mut reader = Reader::Replication(Box::new(replication::Reader::new(table)));
    let mut position = reader.open(None, true).await.unwrap().position;
    position = reader.poll(&position).await.unwrap().position;
    rig.app.batch_execute(&both(0, 0)).await.unwrap();
    let told = async {
        loop {
            reader.woken(Duration::from_hours(1)).await;
            let batch = reader.poll(&position).await.unwrap();
            position = batch.position;
            if !batch.rows.is_empty() {
                break batch.rows.len();
            }
        }
    };
    assert_eq!(timeout(ARRIVAL, told).await.expect("it is told"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_hears_of_a_reader_that_has_no_time_for_it() {
    let cluster = cluster(&["wal_sender_timeout=600ms"]);
    let rig = Rig::with_slot(database_in(&cluster).await).await;
    let table = postgres::Reader::new(rig.config(), "tidings-1");
    let mut reader = Reader::Replication(Box::new(replication::Reader::new(table)));
    let mut position = reader.open(None, true).await.unwrap().position;
    for _ in 0..2 {
        position = reader.poll(&position).await.unwrap().position;
    }
    // More than it takes at once, so that it stops reading.
    rig.app.batch_execute(&both(0, 29_999)).await.unwrap();
    rig.app.batch_execute("SELECT pg_sleep(2)").await.unwrap();
    let mut rows = 0;
    while rows < 60_000 {
        let batch = reader.poll(&position).await.unwrap();
        (rows, position) = (rows + batch.rows.len(), batch.position);
    }
    assert_eq!(rows, 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_encrypted_and_proves_its_password_as_the_database_asks() {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let mut cluster = Postgres::with_tls(&key.cert.pem(), &key.signing_key.serialize_pem());
    cluster.sql("postgres", "ALTER SYSTEM SET wal_level = logical");
    cluster.sql("postgres", "SET password_encryption = 'md5'; CREATE ROLE md5 SUPERUSER LOGIN PASSWORD 'pass word'");
    cluster.sql(
        "postgres",
        "CREATE ROLE scram SUPERUSER LOGIN PASSWORD 'pass word'; CREATE ROLE plain LOGIN PASSWORD 'x'",
    );
    cluster.stop();
    cluster.run();
    let mut rig = Rig::with_slot(database_in(&cluster).await).await;
    let rules = "host all plain all scram-sha-256\nhostssl all scram all scram-sha-256\nhostssl all md5 all md5\n\
                 hostnossl all scram all password\nhost all postgres all trust\n";
    fs::write(cluster.data().join("pg_hba.conf"), rules).unwrap();
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let host = rig.url.split_once('@').unwrap().1.to_owned();
    let walsender = "SELECT s.ssl, a.usename::text FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                     WHERE a.backend_type = 'walsender'";
    for (number, (role, mode, encrypted)) in
        [("scram", "require", true), ("md5", "require", true), ("scram", "disable", false)].into_iter().enumerate()
    {
        rig.url = format!("postgres://{role}:pass%20word@{host}?sslmode={mode}");
        rig.replicate();
        stands(&rig, |measures| measures.state == State::Reading).await;
        let number = u32::try_from(number).unwrap();
        rig.app.batch_execute(&both(number, number)).await.unwrap();
        rig.events(u64::from(2 * number + 2)).await;
        let seen = rig.app.query_one(walsender, &[]).await.unwrap();
        assert_eq!((seen.get::<_, bool>(0), seen.get::<_, &str>(1)), (encrypted, role));
        rig.stop().await;
    }
    rig.app
        .batch_execute(&install::Roles { producers: Vec::new(), reader: Some("plain".to_owned()) }.grants())
        .await
        .unwrap();
    rig.url = format!("postgres://plain:x@{host}");
    rig.replicate();
    stands(&rig, |measures| measures.error.as_ref().is_some_and(|error| error.contains("ALTER ROLE"))).await;
}
