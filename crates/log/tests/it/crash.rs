//! What is left when the process dies: copies of the files, made while the log is open.

use rusqlite::Connection;
use tidings_core::event::EventType;
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::offset::Offset;
use tidings_log::conformance::Engine as _;
use tidings_log::query::{Order, Query};
use tidings_log::sqlite::log_path;
use tidings_log::store::Store;
use tidings_log::{Page, Tenant};

use crate::folder::{Folder, add_tenant, append, event, fill, ids, is_indexed, until};

/// Bytes of a frame of the WAL: a page and its header, after the header of the file.
const FRAME_BYTES: u64 = 4_096 + 24;
const HEADER_BYTES: u64 = 32;

#[tokio::test]
async fn a_torn_wal_keeps_every_commit_before_the_tear() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    let wal = folder.path().join("log.db-wal");
    let mut acknowledged = Vec::new();
    for number in 0..6 {
        append(
            &*store,
            tenant,
            vec![event(tenant, &format!("e{number}"), "1"), event(tenant, &format!("f{number}"), "2")],
        )
        .await;
        acknowledged.push(std::fs::metadata(&wal).unwrap().len());
    }
    let crashed = folder.copy();
    drop(store);
    let length = std::fs::metadata(crashed.path().join("log.db-wal")).unwrap().len();
    let mut opened = 0;
    for cut in (acknowledged[2]..=length).filter(|cut| is_telling(*cut)) {
        let torn = crashed.copy_closed();
        std::fs::copy(crashed.path().join("log.db-wal"), torn.path().join("log.db-wal")).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(torn.path().join("log.db-wal")).unwrap();
        file.set_len(cut).unwrap();
        drop(file);
        let store = torn.open_store();
        let kept = ids(&*store, tenant).await;
        let commits = acknowledged.iter().filter(|end| **end <= cut).count();
        assert!(
            kept.len() >= commits * 2,
            "{commits} commits were acknowledged by {cut}, {} events are left",
            kept.len()
        );
        let all = (0..6).flat_map(|number| [format!("e{number}"), format!("f{number}")]);
        assert!(kept.iter().cloned().eq(all.take(kept.len())) && kept.len() % 2 == 0, "{kept:?}");
        let next = append(&*store, tenant, vec![event(tenant, "next", "1")]).await;
        assert_eq!(next[0].offset.0, kept.len() as u64 + 1);
        drop(store);
        assert!(torn.verify().is_whole());
        opened += 1;
    }
    assert!(opened > 50, "{opened}");
}

/// The edges of each frame, and places all over it: 97 is prime.
fn is_telling(cut: u64) -> bool {
    let within = (cut - HEADER_BYTES) % FRAME_BYTES;
    !(3..=FRAME_BYTES - 2).contains(&within) || (22..26).contains(&within) || cut.is_multiple_of(97 * 7)
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_flush_loses_no_way_to_an_event() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    let pin = Pin::new(&folder);
    fill(&*store, tenant, "e", 17_000).await;
    let flushed = |connection: &Connection| {
        let sql = "SELECT value > 0 FROM mark WHERE name = 'indexed_through'";
        connection.query_row(sql, [], |row| row.get::<_, bool>(0)).unwrap()
    };
    let mut more = 0;
    while !flushed(&folder.reader()) {
        append(&*store, tenant, vec![event(tenant, &format!("m{more}"), "1")]).await;
        more += 1;
    }
    crash_and_check(&folder.copy(), &pin, tenant).await;
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_merge_loses_no_way_to_an_event() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    let levels = |connection: &Connection| {
        connection.query_row("SELECT max(level) FROM run", [], |row| row.get::<_, u8>(0)).unwrap()
    };
    let pin = Pin::new(&folder);
    let mut count = 0;
    while count == 0 || levels(&folder.reader()) == 0 {
        fill(&*store, tenant, &format!("r{count}_"), 2_100).await;
        count += 2_100;
        until(&folder.reader(), is_indexed).await;
    }
    crash_and_check(&folder.copy(), &pin, tenant).await;
}

/// A reader in the middle of the WAL: what comes after it is in the WAL alone, however much it is.
struct Pin {
    _connection: Connection,
    frames: u64,
}

impl Pin {
    fn new(folder: &Folder) -> Self {
        let connection = folder.reader();
        connection.execute_batch("BEGIN; SELECT * FROM mark").unwrap();
        let wal = std::fs::metadata(folder.path().join("log.db-wal")).unwrap().len();
        Self { _connection: connection, frames: wal / FRAME_BYTES }
    }
}

/// Lets the writing of the index end in the middle, at several places, and looks whether all is found then.
async fn crash_and_check(folder: &Folder, pin: &Pin, tenant: Tenant) {
    let wal = std::fs::read(folder.path().join("log.db-wal")).unwrap();
    let mut seen = 0;
    for frames in (pin.frames..=wal.len() as u64 / FRAME_BYTES).rev().step_by(37) {
        let crashed = folder.copy_closed();
        let cut = usize::try_from(HEADER_BYTES + frames * FRAME_BYTES).unwrap();
        std::fs::write(crashed.path().join("log.db-wal"), &wal[..cut]).unwrap();
        if !has_orphans(&crashed.reader()) {
            continue;
        }
        seen += 1;
        let store = crashed.open_store();
        let count = usize::try_from(store.extent(tenant).head.0).unwrap();
        check(&*store, tenant, count).await;
        crashed.rest().await;
        assert!(!has_orphans(&crashed.reader()));
        check(&*store, tenant, count).await;
        drop(store);
        check(&*crashed.open_store(), tenant, count).await;
        assert!(crashed.verify().is_whole());
        if seen == 5 {
            break;
        }
    }
    assert!(seen > 0, "nothing was seen under way");
}

/// Whether the index has rows of runs that do not exist.
fn has_orphans(connection: &Connection) -> bool {
    let sql = "SELECT EXISTS (SELECT 1 FROM run_block WHERE run NOT IN (SELECT number FROM run))";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn check(store: &dyn Store, tenant: Tenant, count: usize) {
    assert_eq!(store.extent(tenant).head.0, count as u64);
    let types = vec![TypePattern::Exact(EventType::parse("order.created").unwrap())];
    let filter = Filter { types, ..Filter::default() };
    let query = Query { tenant, filter, after: Offset(0), through: None, order: Order::Descending, limit: 1_000 };
    let Page { events, more, .. } = store.read(query.clone()).await.unwrap();
    assert!(more);
    assert!(events.iter().map(|event| event.offset.0).eq((0..1_000).map(|n| count as u64 - n)));
    for found in store.read(Query::after(tenant, Offset(0), 1_000)).await.unwrap().events.iter().step_by(13) {
        let id = &found.subject.id;
        let again = append(store, tenant, vec![event(tenant, id.as_str(), "{\"n\":1}")]).await.remove(0);
        assert_eq!((again.offset, again.duplicate), (found.offset, true), "{id} was forgotten");
        assert_eq!(store.find(tenant, id).await.unwrap().unwrap().offset, found.offset);
    }
    for number in 0..10 {
        let aggregate = Some(format!("order_{number}").try_into().unwrap());
        let mut query =
            Query { filter: Filter { aggregate, ..Filter::default() }, order: Order::Ascending, ..query.clone() };
        let mut sequence = 0;
        loop {
            let page = store.read(query.clone()).await.unwrap();
            for event in &page.events {
                sequence += 1;
                assert_eq!(event.sequence, Some(sequence));
            }
            if !page.more {
                break;
            }
            query.after = page.reached;
        }
        assert!(sequence > 1_000);
    }
}

#[tokio::test]
async fn a_copy_made_at_any_moment_has_all_that_was_answered() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    for round in 1..=8_usize {
        // Large enough that checkpoints come between.
        let data = format!("\"{}\"", "x".repeat(2_000));
        let batch = (0..700).map(|n| event(tenant, &format!("r{round}_{n}"), &data)).collect();
        append(&*store, tenant, batch).await;
        let crashed = folder.copy();
        let report = crashed.verify();
        assert!(report.is_whole(), "{:?}", report.findings);
        let store = crashed.open_store();
        assert_eq!(ids(&*store, tenant).await.len(), round * 700);
        let again = append(&*store, tenant, vec![event(tenant, &format!("r{round}_699"), &data)]).await;
        assert_eq!((again[0].offset.0, again[0].duplicate), (round as u64 * 700, true));
    }
    assert!(std::fs::metadata(log_path(folder.path())).unwrap().len() > 4 << 20, "no checkpoint was made");
}
