//! Databases that are not, or not any more, what the reader knew.

use std::time::Duration;

use tidings_rigs::Postgres;
use tidings_sources::outbox::State;
use tokio::time::{sleep, timeout};

use crate::rig::{ARRIVAL, Rig, column, connect, database_in, now};

/// Has the readers of a database connect again.
const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = 'tidings' AND datname = current_database()";

/// A cluster that may be killed. What the operating system was given survives that, so it needs no syncs.
fn cluster() -> Postgres {
    Postgres::start()
}

async fn emit(rig: &Rig, kind: &str) {
    rig.app.execute(&format!("SELECT tidings.emit('order.{kind}', '1', aggregate_id => 'a')"), &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_that_gives_transaction_ids_out_again_loses_no_row() {
    let mut postgres = cluster();
    let mut rig = Rig::at(database_in(&postgres).await).await;
    rig.start();
    emit(&rig, "before").await;
    // Ids that nobody writes to disk, and that the reader sees as begun.
    for _ in 0..100 {
        rig.app.batch_execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK").await.unwrap();
    }
    emit(&rig, "seen").await;
    rig.events(2).await;
    for _ in 0..100 {
        rig.app.batch_execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK").await.unwrap();
    }
    rig.settled().await;
    rig.stop().await;
    postgres.kill();
    postgres.run();
    rig.app = connect(&rig.url).await;
    for _ in 0..300 {
        emit(&rig, "after").await;
    }
    rig.start();
    let events = rig.events(303).await;
    rig.settled().await;
    let kinds = column(&events, "/eventType");
    assert_eq!(kinds.iter().filter(|kind| **kind == "order.after").count(), 300);
    assert_eq!(kinds.iter().filter(|kind| **kind == "tidings.source.reset").count(), 1);
    assert_eq!(rig.all().await.len(), 303, "what the log had is not there twice");
    assert_eq!(rig.meter().measures(now()).rows, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_taken_back_is_noticed_and_read_from_its_beginning() {
    let mut postgres = cluster();
    let mut rig = Rig::at(database_in(&postgres).await).await;
    rig.start();
    emit(&rig, "kept").await;
    rig.events(1).await;
    rig.stop().await;
    postgres.stop();
    postgres.back_up();
    postgres.run();
    rig.app = connect(&rig.url).await;
    rig.start();
    for _ in 0..20 {
        emit(&rig, "lost").await;
    }
    rig.events(21).await;
    rig.stop().await;
    postgres.stop();
    postgres.restore();
    postgres.run();
    rig.app = connect(&rig.url).await;
    // More than were lost: no counter is behind any more.
    for _ in 0..60 {
        emit(&rig, "new").await;
    }
    rig.start();
    let events = rig.events(82).await;
    let reset = events.iter().find(|event| event["eventType"] == "tidings.source.reset").unwrap();
    assert_eq!(reset["data"]["reason"], "the database was taken back to an earlier state");
    let kinds = column(&events, "/eventType");
    assert_eq!(kinds.iter().filter(|kind| **kind == "order.new").count(), 60);
    assert_eq!(kinds.iter().filter(|kind| **kind == "order.kept").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_is_made_anew_is_read_though_its_numbers_begin_again() {
    let rig = Rig::new().await;
    rig.app
        .batch_execute("INSERT INTO tidings.outbox (event_type, aggregate_id, data) VALUES ('Bad', 'b', '1')")
        .await
        .unwrap();
    emit(&rig, "first").await;
    rig.events(2).await;
    rig.settled().await;
    let again = format!("DROP SCHEMA tidings CASCADE; {}", tidings_sources::outbox::postgres::install::INSTALL);
    rig.app.batch_execute(&again).await.unwrap();
    rig.app.batch_execute(CUT).await.unwrap();
    rig.app
        .batch_execute("INSERT INTO tidings.outbox (event_type, aggregate_id, data) VALUES ('Worse', 'c', '1')")
        .await
        .unwrap();
    emit(&rig, "second").await;
    let events = rig.events(5).await;
    let kinds = column(&events, "/eventType");
    assert!(kinds.contains(&"order.second") && kinds.contains(&"tidings.source.reset"), "{kinds:?}");
    assert_eq!(rig.quarantined().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_read_an_outbox_the_later_goes_on_and_the_earlier_stops() {
    let first = Rig::new().await;
    emit(&first, "one").await;
    first.events(1).await;
    let mut second = Rig::at(first.url.clone()).await;
    second.start_as("tidings-2");
    second.events(1).await;
    // The first notices when it says how far it is, or when it has to connect again.
    first.app.batch_execute(CUT).await.unwrap();
    let stopped = async {
        while first.meter().measures(now()).state != State::Taken {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(ARRIVAL, stopped).await.unwrap();
    emit(&second, "two").await;
    second.events(2).await;
    assert_eq!(first.all().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_and_comes_back_is_read_on() {
    let mut postgres = cluster();
    let mut rig = Rig::at(database_in(&postgres).await).await;
    rig.start();
    emit(&rig, "before").await;
    rig.events(1).await;
    postgres.stop();
    let failing = async {
        while rig.meter().measures(now()).state != State::Failing {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(ARRIVAL, failing).await.unwrap();
    postgres.run();
    rig.app = connect(&rig.url).await;
    emit(&rig, "after").await;
    let events = rig.events(2).await;
    assert_eq!(column(&events, "/eventType"), ["order.before", "order.after"], "an orderly restart is no reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_is_behind_is_told_once_and_once_more_when_it_is_not() {
    let mut postgres = cluster();
    let mut rig = Rig::at(database_in(&postgres).await).await;
    rig.bound = Duration::from_millis(800);
    rig.start();
    emit(&rig, "before").await;
    rig.events(1).await;
    postgres.stop();
    rig.events(2).await;
    // Whoever starts while it is behind knows that it was told.
    rig.reopen().await;
    rig.start();
    let late = async {
        while rig.meter().measures(now()).delay < 3 * rig.bound {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(ARRIVAL, late).await.unwrap();
    postgres.run();
    rig.app = connect(&rig.url).await;
    emit(&rig, "after").await;
    let events = rig.events(4).await;
    let mut kinds = column(&events, "/eventType");
    kinds[2..].sort_unstable();
    assert_eq!(kinds, ["order.before", "tidings.source.delayed", "order.after", "tidings.source.recovered"]);
    let told = &events[1]["data"];
    assert_eq!((&told["source"], &told["boundMs"]), (&"shop".into(), &800.into()), "{told}");
    assert!(told["delayMs"].as_u64() > Some(800) && told["reason"].is_string(), "{told}");
    rig.settled().await;
    assert_eq!(rig.all().await.len(), 4, "each once");
}

/// Makes a copy of a database by a dump, in a cluster that has it not.
fn dump(from: (&Postgres, &str), to: &Postgres) {
    to.sql("postgres", &format!("CREATE DATABASE {}", from.1));
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", "\"$1\" \"$2\" > \"$5\"; \"$3\" -Xq -v ON_ERROR_STOP=1 -f \"$5\" \"$4\"", "dump"]);
    command.arg(from.0.program("pg_dump")).arg(from.0.url(from.1));
    let folder = tempfile::tempdir().unwrap();
    command.arg(to.program("psql")).arg(to.url(from.1)).arg(folder.path().join("dump.sql"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_in_another_cluster_is_read_though_its_transactions_lie_ahead_of_that_one() {
    let (first, second) = (cluster(), cluster());
    let mut rig = Rig::at(database_in(&first).await).await;
    let name = rig.url.rsplit('/').next().unwrap().to_owned();
    rig.start();
    emit(&rig, "before").await;
    rig.events(1).await;
    rig.stop().await;
    let begun = "DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    rig.app.batch_execute(begun).await.unwrap();
    // More than a batch.
    let many = "SELECT tidings.emit('order.waiting', to_json(n), aggregate_id => 'a') FROM generate_series(1, 2500) n";
    rig.app.batch_execute(many).await.unwrap();
    dump((&first, &name), &second);
    rig.url = second.url(&name);
    rig.app = connect(&rig.url).await;
    emit(&rig, "after").await;
    rig.start();
    // The first is known by its id; the reset is told.
    let events = rig.events(2_503).await;
    let numbers = events.iter().filter(|event| event["eventType"] == "order.waiting").map(|event| &event["data"]);
    assert_eq!(numbers.filter_map(serde_json::Value::as_u64).collect::<Vec<_>>(), (1..=2_500).collect::<Vec<_>>());
    assert_eq!(events[1]["data"]["reason"], "it is another database cluster");
    emit(&rig, "later").await;
    let events = rig.events(2_504).await;
    assert_eq!(column(&events[2_502..], "/eventType"), ["order.after", "order.later"]);
    rig.settled().await;
    let found = rig.meter().measures(now());
    assert_eq!((found.rows, found.resets), (2_502, 1), "nothing is read for ever");
    let ahead = "SELECT count(*) FROM tidings.outbox WHERE txid >= pg_snapshot_xmax(pg_current_snapshot())";
    assert_eq!(rig.app.query_one(ahead, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_database_at_the_same_url_is_read_from_its_beginning() {
    let postgres = cluster();
    let mut rig = Rig::at(database_in(&postgres).await).await;
    let name = rig.url.rsplit('/').next().unwrap().to_owned();
    rig.start();
    for _ in 0..3 {
        emit(&rig, "old").await;
    }
    rig.events(3).await;
    postgres.sql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
    postgres.sql("postgres", &format!("CREATE DATABASE {name}"));
    let config = tidings_sources::outbox::postgres::config(&rig.url, None, None).unwrap();
    let wanted = tidings_sources::outbox::postgres::install::Wanted::default();
    assert!(tidings_sources::outbox::postgres::install::install(&config, &wanted).await.unwrap());
    rig.app = connect(&rig.url).await;
    emit(&rig, "new").await;
    let events = rig.events(5).await;
    let mut kinds = column(&events, "/eventType");
    kinds[3..].sort_unstable();
    assert_eq!(kinds, ["order.old", "order.old", "order.old", "order.new", "tidings.source.reset"]);
}
