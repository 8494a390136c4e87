//! Reads that fail: they are tried again at a pace, and nothing is forgotten over them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::lane::{OnExhausted, Settings as Terms};
use tidings_core::offset::Offset;
use tidings_core::rate::Rate;
use tidings_core::retry::Schedule;
use tidings_engine::dispatcher::{Job, Only, Order, Outcome, SLOTS, Subscription};
use tidings_log::store::{DeadQuery, Sweep};
use tidings_log::{Query, Store, Write};

use crate::flaky::Flaky;
use crate::receiver::{Post, Receiver};
use crate::rig::{Rig, now};

/// Shorter than the pause between two tries, which is a second, and longer than any number of tries without one.
const SOON: Duration = Duration::from_millis(900);

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn instant() -> Instant {
    Instant::now()
}

fn event(id: &str, aggregate: &str) -> String {
    format!(r#"{{"eventId":"{id}","eventType":"order.created","aggregateId":"{aggregate}","data":1}}"#)
}

/// A dispatcher over a log whose reads can fail.
async fn flaky() -> (Rig, Arc<Flaky>) {
    let mut rig = Rig::new().await;
    let flaky = Flaky::over(&rig.store);
    rig.dispatch_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    (rig, flaky)
}

/// Returns once a read that failed after `begun` was tried again, and that was not at once.
async fn tried_again(flaky: &Flaky, begun: Instant) {
    flaky.failed(2).await;
    assert!(begun.elapsed() > SOON, "again after {:?}", begun.elapsed());
}

/// A replay of all five events, by so many a second.
fn all_five(rate: &str) -> Job {
    Job {
        id: "rp_1".into(),
        subscription: "w".into(),
        created_at: now(),
        position: Offset(0),
        to: Offset(5),
        event_types: Vec::new(),
        offsets: Vec::new(),
        only: Only::All,
        letters: Vec::new(),
        rate: Rate::parse(rate).unwrap(),
        sent: 0,
    }
}

/// Five events that `receiver` got.
async fn with_five(rig: &Rig, receiver: &Receiver) {
    rig.dispatcher.start(rig.webhook("w", receiver));
    rig.append((1..=5).map(|n| event(&format!("e{n}"), &format!("a{n}")))).await;
    receiver.wait(5).await;
    rig.settled("w").await;
}

fn ids(posts: &[Post]) -> Vec<&str> {
    posts.iter().map(Post::id).collect()
}

#[tokio::test]
async fn what_retention_takes_from_a_lane_that_reads_is_told() {
    let rig = Rig::new().await;
    for part in 0..3 {
        rig.append((0..500).map(|n| event(&format!("e{}", part * 500 + n), &format!("a{n}")))).await;
    }
    // Nothing is in memory then.
    let mut rig = rig.reopen().await;
    let flaky = Flaky::over(&rig.store);
    rig.dispatch_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    flaky.held.send_replace(true);
    let receiver = Receiver::start().await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.status("w", |status| status.lag > 0).await;
    while flaky.held.receiver_count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = trimmed(&rig).await;
    flaky.held.send_replace(false);
    rig.settled("w").await;
    assert_eq!(gaps(&rig).await, [(1, first - 1)]);
    assert_eq!(receiver.posts().len() as u64, 1_500 - (first - 1));
}

#[tokio::test]
async fn what_retention_takes_from_a_sweeper_that_is_behind_is_told_to_whom_it_concerns() {
    let rig = Rig::new().await;
    for part in 0..3 {
        rig.append((0..500).map(|n| event(&format!("e{}", part * 500 + n), &format!("a{n}")))).await;
    }
    let sweep = |slot| Write::Sweep(Sweep { tenant: rig.tenant, slot, through: Offset(100), current: Vec::new() });
    rig.store.commit(now(), (0..SLOTS).map(sweep).collect()).await.unwrap();
    // Nothing is in memory then.
    let mut rig = rig.reopen().await;
    let flaky = Flaky::over(&rig.store);
    rig.load_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    flaky.held.send_replace(true);
    let receiver = Receiver::start().await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.dispatcher.begin();
    while flaky.held.receiver_count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = trimmed(&rig).await;
    flaky.held.send_replace(false);
    receiver.wait(usize::try_from(1_500 - (first - 1)).unwrap()).await;
    rig.settled("w").await;
    assert_eq!(gaps(&rig).await, [(101, first - 1)]);
    assert_eq!(receiver.posts().len() as u64, 1_500 - (first - 1));
}

/// Has retention take some of the log, once that is sealed and indexed; answers where it begins now.
async fn trimmed(rig: &Rig) -> u64 {
    while rig.store.extent(rig.tenant).first < Offset(400) {
        rig.store.commit(now(), vec![Write::Trim(rig.tenant, Offset(1_400))]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.store.extent(rig.tenant).first.0
}

/// The gaps that are told, each from and through an offset.
async fn gaps(rig: &Rig) -> Vec<(u64, u64)> {
    let gaps = Filter { types: vec![TypePattern::parse("tidings.webhook.gap").unwrap()], ..Filter::default() };
    let query = Query { filter: gaps, ..Query::after(rig.tenant, Offset(0), 10) };
    let told = rig.store.read(query).await.unwrap().events;
    let told = told.iter().map(|event| serde_json::from_slice::<Value>(event.bytes().unwrap()).unwrap());
    told.map(|gap| (gap["firstOffset"].as_u64().unwrap(), gap["lastOffset"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn what_retention_takes_of_what_waits_for_a_dead_letter_is_told() {
    let rig = Rig::new().await;
    let fails_first = |post: &Post| (if post.id() == "e0" { 503 } else { 200 }, Duration::ZERO);
    let receiver = Receiver::answering(fails_first).await;
    let webhook = rig.webhook("w", &receiver);
    let schedule = Schedule::new(vec![Duration::from_millis(100)]).unwrap();
    let settings = Terms { schedule, on_exhausted: OnExhausted::Park, ..webhook.settings.clone() };
    rig.dispatcher.start(Subscription { settings, ..webhook });
    for part in 0..3 {
        rig.append((0..500).map(|n| event(&format!("e{}", part * 500 + n), "a"))).await;
    }
    rig.status("w", |status| status.parked == 1 && status.cursor >= Offset(1_500)).await;
    let first = trimmed(&rig).await;
    let query = DeadQuery {
        tenant: rig.tenant,
        subscription: Some("w".into()),
        event_type: None,
        since: None,
        open: true,
        before: None,
        limit: 10,
    };
    let letters = rig.store.dead_letters(query).await.unwrap();
    let order = Order::Discard(letters, "nobody wants it".into());
    assert_eq!(rig.dispatcher.order("w", order, Vec::new()).await.unwrap().unwrap(), Outcome::Done(1));
    rig.settled("w").await;
    assert_eq!(gaps(&rig).await, [(2, first - 1)]);
    assert_eq!(receiver.posts().len() as u64, 2 + 1_500 - (first - 1));
}

#[tokio::test]
async fn a_replay_that_cannot_read_the_log_tries_again_after_a_while_and_leaves_nothing_out() {
    let (rig, flaky) = flaky().await;
    let receiver = Receiver::start().await;
    with_five(&rig, &receiver).await;
    let begun = instant();
    flaky.broken.store(true, Relaxed);
    let order = Order::Replay(all_five("1000/s"));
    assert_eq!(rig.dispatcher.order("w", order, Vec::new()).await.unwrap().unwrap(), Outcome::Done(1));
    tried_again(&flaky, begun).await;
    flaky.broken.store(false, Relaxed);
    assert_eq!(ids(&receiver.wait(10).await[5..]), ["e1", "e2", "e3", "e4", "e5"]);
}

#[tokio::test]
async fn what_waited_for_an_event_and_cannot_be_read_is_read_again_after_a_while() {
    let (rig, flaky) = flaky().await;
    let fails_first = |post: &Post| {
        let first = post.id() == "e1" && post.header("tidings-attempt") == "1";
        (if first { 503 } else { 200 }, Duration::ZERO)
    };
    let receiver = Receiver::answering(fails_first).await;
    let begun = instant();
    flaky.broken.store(true, Relaxed);
    rig.dispatcher.start(rig.webhook("w", &receiver));
    // The later ones wait on the log.
    rig.append((1..=4).map(|n| event(&format!("e{n}"), "a"))).await;
    tried_again(&flaky, begun).await;
    assert_eq!(ids(&receiver.posts()), ["e1", "e1"]);
    flaky.broken.store(false, Relaxed);
    assert_eq!(ids(&receiver.wait(5).await[2..]), ["e2", "e3", "e4"]);
    rig.settled("w").await;
}

#[tokio::test]
async fn a_replay_under_way_is_not_forgotten_when_a_lane_begins_while_it_cannot_be_read() {
    let (mut rig, _) = flaky().await;
    let receiver = Receiver::start().await;
    with_five(&rig, &receiver).await;
    let order = Order::Replay(all_five("2/s"));
    assert_eq!(rig.dispatcher.order("w", order, Vec::new()).await.unwrap().unwrap(), Outcome::Done(1));
    receiver.wait(6).await;
    rig.dispatcher.shutdown(Duration::from_secs(5)).await;
    let flaky = Flaky::over(&rig.store);
    rig.dispatch_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    let begun = instant();
    flaky.broken.store(true, Relaxed);
    rig.dispatcher.start(rig.webhook("w", &receiver));
    tried_again(&flaky, begun).await;
    flaky.broken.store(false, Relaxed);
    let posts = receiver.wait(10).await;
    assert_eq!(ids(&posts[posts.len() - 2..]), ["e4", "e5"]);
}
