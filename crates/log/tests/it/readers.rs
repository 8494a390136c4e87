//! Thousands who read at once: each gets its turn, whoever else waits.

use std::task::Poll;

use tidings_core::offset::Offset;
use tidings_log::sqlite::{Party, SqliteStore};
use tidings_log::{Page, Pending, Query, Store, Tenant, Unavailable};

use crate::folder::{Folder, add_tenant, fill};

const PAGE: usize = 50;
const READERS: usize = 5_000;
const TRIES: usize = 20;

type Answer = Pending<Result<Page, Unavailable>>;

/// Logs of two tenants.
async fn logs(folder: &Folder) -> (std::sync::Arc<SqliteStore>, Tenant, Tenant) {
    let store = folder.open_store();
    let (many, one) = (add_tenant(&*store, "many").await, add_tenant(&*store, "one").await);
    for tenant in [many, one] {
        fill(&*store, tenant, "e", 2 * PAGE).await;
    }
    (store, many, one)
}

/// Asks for a page so many times, before any answer is looked at.
fn ask(store: &SqliteStore, tenant: Tenant, times: usize) -> Vec<Answer> {
    (0..times).map(|_| store.read(Query::after(tenant, Offset(0), PAGE))).collect()
}

/// Takes those out that are answered; how many.
async fn take_answered(answers: &mut Vec<Answer>) -> usize {
    let before = answers.len();
    // Or tokio would call all but the first hundred pending.
    tokio::task::unconstrained(std::future::poll_fn(|context| {
        answers.retain_mut(|answer| {
            answer.as_mut().poll(context).map(|page| page.unwrap().events.len()) != Poll::Ready(PAGE)
        });
        Poll::Ready(())
    }))
    .await;
    before - answers.len()
}

#[tokio::test]
async fn five_thousand_readers_all_get_their_page_and_hold_up_nobody_else() {
    let folder = Folder::new();
    let (store, many, one) = logs(&folder).await;
    // Who waits for all others never comes first; who does not may, when this thread is held up for long.
    for _ in 0..TRIES {
        let mut waiting = ask(&store, many, READERS);
        let behind = waiting.len() - take_answered(&mut waiting).await;
        assert_eq!(store.read(Query::after(one, Offset(0), PAGE)).await.unwrap().events.len(), PAGE);
        let meanwhile = take_answered(&mut waiting).await;
        for answer in waiting {
            assert_eq!(answer.await.unwrap().events.len(), PAGE);
        }
        if meanwhile < behind / 2 {
            return;
        }
    }
    panic!("the one of the other tenant never came before most of the many");
}

#[tokio::test]
async fn requests_are_refused_beyond_their_bound_and_only_those() {
    let folder = Folder::new();
    let (store, many, one) = logs(&folder).await;
    let requests = store.for_party(Party::Requests);
    // The readers are busy meanwhile.
    let works = ask(&store, many, READERS);
    let asked = ask(&requests, many, READERS);
    let other = ask(&requests, one, 1).remove(0);
    let streams = ask(&store.for_party(Party::Streams), many, 10);
    assert_eq!(other.await.unwrap().events.len(), PAGE);
    let mut refused = 0;
    for answer in asked {
        match answer.await {
            Ok(page) => assert_eq!(page.events.len(), PAGE),
            Err(error) => {
                assert_eq!(error, Unavailable::Busy);
                refused += 1;
            }
        }
    }
    assert!((1..READERS).contains(&refused), "{refused}");
    for answer in works.into_iter().chain(streams) {
        assert_eq!(answer.await.unwrap().events.len(), PAGE);
    }
}
