//! The index on disk: runs that are merged, and that lose what retention takes.

use rusqlite::Connection;
use tidings_core::event::AggregateId;
use tidings_core::filter::Filter;
use tidings_core::offset::Offset;
use tidings_log::conformance::Engine as _;
use tidings_log::store::{Append, CommitError, Store, Unavailable, Write, Written};
use tidings_log::{Order, Query, Tenant};

use crate::folder::{Folder, NOW, add_tenant, append, event, fill, is_indexed, plain_event, until};

/// One more than are merged: the last stays alone.
const FLUSHES: usize = 9;
const EVENTS: usize = 600;

/// A log that was indexed in several flushes, the same aggregates in each.
async fn flushed(folder: &Folder, store: &dyn Store) -> Tenant {
    let tenant = add_tenant(store, "acme").await;
    for round in 0..FLUSHES {
        fill(store, tenant, &format!("r{round}_"), EVENTS).await;
        until(&folder.reader(), is_indexed).await;
    }
    until(&folder.reader(), |connection| number(connection, "SELECT count(*) FROM run WHERE level = 1") == 1).await;
    tenant
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn about(tenant: Tenant, aggregate: usize, order: Order) -> Query {
    let aggregate = Some(AggregateId::parse(&format!("order_{aggregate}")).unwrap());
    let filter = Filter { aggregate, ..Filter::default() };
    Query { tenant, filter, after: Offset(0), through: None, order, limit: 1_000 }
}

/// The offsets of an aggregate's events, whose sequence numbers are dense.
async fn history(store: &dyn Store, tenant: Tenant, aggregate: usize) -> Vec<u64> {
    let forth = store.read(about(tenant, aggregate, Order::Ascending)).await.unwrap().events;
    let back = store.read(about(tenant, aggregate, Order::Descending)).await.unwrap().events;
    assert!(forth.iter().map(|event| event.offset).eq(back.iter().rev().map(|event| event.offset)));
    let numbers: Vec<u64> = forth.iter().map(|event| event.sequence.unwrap()).collect();
    assert!(numbers.is_empty() || numbers.iter().copied().eq(numbers[0]..=numbers[numbers.len() - 1]), "{numbers:?}");
    forth.iter().map(|event| event.offset.0).collect()
}

#[tokio::test]
async fn everything_is_found_in_merged_runs() {
    let folder = Folder::new();
    let mut store = folder.open_store();
    let tenant = flushed(&folder, &*store).await;
    for _ in 0..2 {
        let mut all = Vec::new();
        for aggregate in 0..10 {
            all.extend(history(&*store, tenant, aggregate).await);
        }
        all.sort_unstable();
        assert!(all.iter().copied().eq(1..=(FLUSHES * EVENTS) as u64));
        for round in 0..FLUSHES {
            let id = format!("r{round}_{}", round * 7);
            let again = append(&*store, tenant, vec![event(tenant, &id, "{\"n\":1}")]).await.remove(0);
            assert_eq!((again.offset.0, again.duplicate), ((round * EVENTS + round * 7 + 1) as u64, true));
        }
        // Asked of the file, not of a cache.
        drop(store);
        store = folder.open_store();
    }
}

#[tokio::test]
async fn what_retention_took_leaves_the_runs_and_numbers_go_on() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = flushed(&folder, &*store).await;
    let mut counts = Vec::new();
    for aggregate in 0..10 {
        counts.push(history(&*store, tenant, aggregate).await.len() as u64);
    }
    folder.rest().await;
    let all = (FLUSHES * EVENTS) as u64;
    loop {
        let written = store.commit(NOW, vec![Write::Trim(tenant, Offset(all))]).await.unwrap();
        if written == [Written::Trimmed(Offset(all + 1))] {
            break;
        }
    }
    let connection = folder.reader();
    until(&connection, |connection| number(connection, "SELECT coalesce(sum(offsets), 0) FROM run") == 0).await;
    folder.rest().await;
    assert!(number(&connection, "SELECT sum(keys) FROM run") <= 20, "ten aggregates, in two runs");
    assert!(number(&connection, "SELECT count(*) FROM run_block") <= 4, "a block and a filter each");
    drop(store);
    let store = folder.open_store();
    for round in 0..2_u64 {
        for n in 0..10_u8 {
            // The byte says which aggregate it is about.
            let id = char::from(b'0' + n).to_string().repeat(1 + usize::try_from(round).unwrap() * 10);
            let aggregate = usize::from(b'0' + n) * id.len() % 10;
            let said = append(&*store, tenant, vec![event(tenant, &id, "1")]).await.remove(0);
            counts[aggregate] += 1;
            assert_eq!((said.sequence, said.duplicate), (Some(counts[aggregate]), false), "order_{aggregate}");
        }
        folder.rest().await;
    }
    assert!(folder.verify().is_whole());
}

#[tokio::test]
async fn a_run_of_which_nothing_is_left_leaves_no_row() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    // Without an aggregate: nothing of it outlives retention.
    append(&*store, tenant, vec![plain_event(tenant, "e1")]).await;
    folder.rest().await;
    let written = store.commit(NOW, vec![Write::Trim(tenant, Offset(1))]).await.unwrap();
    assert_eq!(written, [Written::Trimmed(Offset(2))]);
    let connection = folder.reader();
    until(&connection, |connection| number(connection, "SELECT count(*) FROM run") == 0).await;
    folder.rest().await;
    assert_eq!(number(&connection, "SELECT count(*) FROM run_block"), 0);
}

#[tokio::test]
async fn a_damaged_block_answers_no_question_and_stops_no_neighbour() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = flushed(&folder, &*store).await;
    drop(store);
    let sql = "UPDATE run_block SET entries = CAST(substr(entries, 1, 40) || x'2a' || substr(entries, 42) AS BLOB) \
               WHERE number = (SELECT min(number) FROM run_block)";
    folder.vandal().execute_batch(sql).unwrap();
    assert!(!folder.verify().is_whole());
    let store = folder.open_store();
    let first = store.read(Query::after(tenant, Offset(0), 1_000)).await.unwrap().events;
    let mut failed = 0;
    for event in &first {
        match store.find(tenant, &event.subject.id).await {
            Ok(found) => assert_eq!(found.unwrap().offset, event.offset),
            Err(Unavailable::Trouble(_)) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failed > 0, "the block was not asked");
    for (number, known) in first.iter().enumerate() {
        let again = |id: &str| {
            let events = vec![event(tenant, id, "{\"n\":1}")];
            store.commit(NOW, vec![Write::Append(Append { tenant, events, request: None })])
        };
        let (repeated, fresh) = (again(known.subject.id.as_str()), again(&format!("new{number}")));
        match repeated.await {
            Ok(_) => {}
            Err(CommitError::Unavailable(Unavailable::Trouble(_))) => failed -= 1,
            Err(other) => panic!("{other}"),
        }
        // What is new may be declined for what the block may know of it, but not for its neighbour.
        if let Err(error) = fresh.await {
            assert!(matches!(error, CommitError::Unavailable(Unavailable::Trouble(_))), "{error}");
        }
    }
    assert_eq!(failed, 0);
    assert!(store.extent(tenant).head.0 > (FLUSHES * EVENTS) as u64 + 500);
}

#[tokio::test]
async fn what_an_old_run_says_beside_is_not_taken_for_the_last_number() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = flushed(&folder, &*store).await;
    let said = append(&*store, tenant, vec![event(tenant, "new1", "1")]).await.remove(0);
    until(&folder.reader(), is_indexed).await;
    drop(store);
    let store = folder.open_store();
    // "new1" is one further than "new0": each of the others is asked for, of the old runs, before it.
    for id in ["new0", "new2", "new3", "new4", "new5", "new6", "new7", "new8", "new9"] {
        append(&*store, tenant, vec![event(tenant, id, "1")]).await;
    }
    let next = append(&*store, tenant, vec![event(tenant, "wen1", "1")]).await.remove(0);
    assert_eq!(next.sequence, said.sequence.map(|sequence| sequence + 1));
}
