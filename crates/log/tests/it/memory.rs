//! The laws of the conformance suite on the engine in memory, and what it promises beside them.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::time::Timestamp;
use tidings_log::conformance::{Engine, LAWS};
use tidings_log::memory::{MemoryDisk, MemoryStore, Pace, Turn, Work};
use tidings_log::store::{Append, CommitError, Store, Unavailable, Write};
use tidings_log::verify::Report;
use tidings_log::{Pending, Tenant};

use crate::folder::{add_tenant, event, ids};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

impl Engine for Disk {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::open(&self.0))
    }

    fn rest(&self) -> Pending<()> {
        Box::pin(std::future::ready(()))
    }

    fn verify(&self) -> Report {
        self.0.verify()
    }
}

struct Disk(MemoryDisk);

/// One law at a time, or all of them: a law that fails says where.
#[tokio::test]
async fn every_law_holds_in_memory() {
    for (name, law) in LAWS {
        println!("{name}");
        law(&Disk(MemoryDisk::default())).await;
    }
}

fn append(tenant: Tenant, id: &str) -> Vec<Write> {
    vec![Write::Append(Append { tenant, events: vec![event(tenant, id, "1")], request: None })]
}

fn slow(declined: Option<Unavailable>) -> Pace {
    let second = Duration::from_secs(1);
    Arc::new(move |work| match work {
        Work::Commit => Turn { before: second, declined: declined.clone(), after: second },
        Work::Read => Turn::default(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_crash_leaves_what_was_durable_by_then_and_nothing_else() {
    for (crash_ms, expected) in [(500, vec![]), (1_500, vec!["e1"]), (2_500, vec!["e1"]), (3_500, vec!["e1", "e2"])] {
        let disk = MemoryDisk::default();
        let tenant = add_tenant(&MemoryStore::open(&disk), "acme").await;
        let store = MemoryStore::open_paced(&disk, slow(None));
        let first = tokio::spawn(store.commit(NOW, append(tenant, "e1")));
        tokio::task::yield_now().await;
        let second = tokio::spawn(store.commit(NOW, append(tenant, "e2")));
        tokio::time::sleep(Duration::from_millis(crash_ms)).await;
        assert_eq!((first.is_finished(), second.is_finished()), (crash_ms > 2_000, false), "{crash_ms} ms");
        assert_eq!(ids(&MemoryStore::open(&disk), tenant).await, expected, "{crash_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_declined_leaves_nothing_and_the_asker_is_told() {
    let disk = MemoryDisk::default();
    let tenant = add_tenant(&MemoryStore::open(&disk), "acme").await;
    let store = MemoryStore::open_paced(&disk, slow(Some(Unavailable::Full)));
    let answer = store.commit(NOW, append(tenant, "e1")).await;
    assert_eq!(answer, Err(CommitError::Unavailable(Unavailable::Full)));
    assert!(ids(&store, tenant).await.is_empty());
}

#[tokio::test]
async fn a_change_behind_the_back_of_the_log_is_found() {
    // The report of a whole log is only worth something if another one can be told from it.
    let disk = MemoryDisk::default();
    let store = MemoryStore::open(&disk);
    let tenant = add_tenant(&store, "acme").await;
    for id in ["e1", "e2", "e3"] {
        store.commit(NOW, append(tenant, id)).await.unwrap();
    }
    assert!(disk.verify().is_whole());
    disk.lose(tenant, tidings_core::offset::Offset(2));
    assert!(!disk.verify().is_whole());
}
