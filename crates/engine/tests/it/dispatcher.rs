//! Deliveries, end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tidings_core::circuit::ALLOWANCE_AT_START;
use tidings_core::event::AggregateId;
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::offset::Offset;
use tidings_core::retry::Schedule;
use tidings_core::signature::verify_v1;
use tidings_engine::dispatcher::Subscription;
use tidings_log::Store;
use tidings_sinks::{Answer, Outcome, Parcel, Pending, Sink};

use crate::flaky::Flaky;
use crate::receiver::{Post, Receiver};
use crate::rig::{Rig, now, secret};

const AT_ONCE: Duration = Duration::ZERO;

fn event(id: &str, aggregate: &str) -> String {
    format!(r#"{{"eventId":"{id}","eventType":"order.created","aggregateId":"{aggregate}","data":{{"n":1}}}}"#)
}

fn numbered(count: usize, aggregates: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| event(&format!("e{n}"), &format!("a{}", n % aggregates)))
}

fn ids(posts: &[Post]) -> BTreeSet<String> {
    posts.iter().filter(|post| post.status == 200).map(|post| post.id().to_owned()).collect()
}

/// Asserts that each aggregate was delivered first in the order of its numbers.
fn assert_ordered(posts: &[Post]) {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for post in posts.iter().filter(|post| post.status == 200 && seen.insert(post.id().to_owned())) {
        let json = post.json();
        let number = json["sequenceNumber"].as_u64().unwrap();
        let last = last.entry(json["aggregateId"].to_string()).or_default();
        assert_eq!(number, *last + 1, "{}", post.id());
        *last = number;
    }
}

#[tokio::test]
async fn an_event_arrives_signed_and_labelled() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    rig.dispatcher.start(rig.webhook("w", &receiver));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let data = r#"{"total": 1.10}"#;
    rig.append([format!(
        r#"{{"eventId":"e1","eventType":"order.created","aggregateId":"o1","metadata":{{"traceparent":"{trace}"}},"data":{data}}}"#
    )])
    .await;
    let post = &receiver.wait(1).await[0];
    assert_eq!(post.json()["sequenceNumber"], 1);
    assert!(post.body.ends_with(format!(r#","data":{data}}}"#).as_bytes()), "data is kept byte for byte");
    for (name, value) in [
        ("webhook-id", "e1"),
        ("tidings-event-type", "order.created"),
        ("tidings-attempt", "1"),
        ("traceparent", trace),
        ("content-type", "application/json"),
        ("user-agent", concat!("tidings/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(post.header(name), value);
    }
    let seconds: i64 = post.header("webhook-timestamp").parse().unwrap();
    assert!((now().as_millis() / 1000 - seconds).abs() <= 10);
    assert!(verify_v1(&secret(), "e1", seconds, &post.body, post.header("webhook-signature")));
}

#[tokio::test]
async fn aggregates_keep_their_order_whatever_fails() {
    let rig = Rig::new().await;
    let chance = RandomState::new();
    let receiver = Receiver::answering(move |post| {
        let dice = chance.hash_one((post.id(), post.header("tidings-attempt")));
        (if dice.is_multiple_of(3) { 503 } else { 200 }, Duration::from_millis(dice % 4))
    })
    .await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.append(numbered(60, 7)).await;
    rig.append((60..120).map(|n| event(&format!("e{n}"), &format!("a{}", n % 7)))).await;
    let status = rig.settled("w").await;
    assert_eq!(status.dead, 0);
    let posts = receiver.posts();
    assert_eq!(ids(&posts).len(), 120);
    assert_ordered(&posts);
}

#[tokio::test]
async fn retries_follow_the_schedule_and_every_attempt_is_on_record() {
    let rig = Rig::new().await;
    let answer = |post: &Post| (if post.header("tidings-attempt") == "3" { 204 } else { 503 }, AT_ONCE);
    let receiver = Receiver::answering(answer).await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.append([event("e1", "a")]).await;
    let posts = receiver.wait(3).await;
    rig.settled("w").await;
    rig.dispatcher.stop("w").await;
    assert!(posts.iter().all(|post| post.id() == "e1" && post.body == posts[0].body));
    let attempts = rig.attempts(1).await;
    let told: Vec<_> = attempts.iter().map(|a| (a.number, a.status, a.reason.as_deref())).collect();
    let failed = Some("status 503");
    assert_eq!(told, [(1, Some(503), failed), (2, Some(503), failed), (3, Some(204), None)]);
    for pair in attempts.windows(2) {
        let ended = pair[0].at.plus(Duration::from_millis(pair[0].latency_ms.into()));
        assert!(pair[1].at.since(ended) >= Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_restart_in_the_middle_loses_nothing_and_repeats_only_what_was_unsettled() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::answering(|_| (200, Duration::from_millis(1))).await;
    rig.append(numbered(1000, 50)).await;
    for restart in 1..=3 {
        rig.dispatcher.start(rig.webhook("w", &receiver));
        receiver.wait(restart * 200).await;
        rig.dispatcher.shutdown(AT_ONCE).await;
        rig.restart().await;
    }
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.settled("w").await;
    let posts = receiver.posts();
    assert_eq!(ids(&posts).len(), 1000);
    assert!(posts.len() <= 1000 + 3 * 256, "{} posts", posts.len());
    assert_ordered(&posts);
}

#[tokio::test]
async fn an_exhausted_delivery_is_dead_and_its_aggregate_goes_on() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::answering(|post| (if post.id() == "e0" { 500 } else { 200 }, AT_ONCE)).await;
    let webhook = |rig: &Rig| {
        let schedule = Schedule::new(vec![Duration::from_millis(100); 2]).unwrap();
        let mut webhook = rig.webhook("w", &receiver);
        webhook.settings.schedule = schedule;
        webhook
    };
    rig.dispatcher.start(webhook(&rig));
    rig.append(numbered(3, 1)).await;
    let posts = receiver.wait(5).await;
    let order: Vec<_> = posts.iter().map(Post::id).collect();
    assert_eq!(order, ["e0", "e0", "e0", "e1", "e2"]);
    assert_eq!(rig.settled("w").await.dead, 1);
    rig.dispatcher.shutdown(Duration::from_secs(5)).await;
    let progress = rig.store.progress("w").await.unwrap().unwrap();
    assert!(progress.cursor >= Offset(3) && progress.rows.is_empty());
    assert_eq!(rig.store.dead_counts().await.unwrap(), [("w".into(), 1)]);
    rig.restart().await;
    rig.dispatcher.start(webhook(&rig));
    rig.append([event("e3", "a0")]).await;
    assert_eq!(receiver.wait(6).await[5].id(), "e3");
    assert_eq!(rig.settled("w").await.dead, 1);
}

#[tokio::test]
async fn what_waits_survives_a_restart_with_its_count() {
    let mut rig = Rig::new().await;
    let well = Arc::new(AtomicBool::new(false));
    let receiver = {
        let well = Arc::clone(&well);
        Receiver::answering(move |_| (if well.load(Relaxed) { 200 } else { 503 }, AT_ONCE)).await
    };
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.append(numbered(20, 2)).await;
    rig.status("w", |status| status.pending == 20).await;
    rig.dispatcher.shutdown(AT_ONCE).await;
    let before = receiver.posts().len();
    well.store(true, Relaxed);
    rig.restart().await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.settled("w").await;
    let posts = receiver.posts();
    assert_eq!(posts.len(), before + 20);
    assert_ordered(&posts);
    let again = posts[before..].iter().filter(|post| post.header("tidings-attempt") != "1").count();
    assert_eq!(again, 2, "the first of each aggregate had failed");
}

#[tokio::test]
async fn a_lane_passes_what_it_does_not_want_and_its_lag_falls_to_nothing() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let only =
        |aggregate: &str| Filter { aggregate: Some(AggregateId::parse(aggregate).unwrap()), ..Filter::default() };
    rig.append(numbered(500, 100)).await;
    let wanted = rig.webhook("w", &receiver);
    rig.dispatcher.start(Subscription { filter: only("a7").into(), ..wanted });
    let none = Filter { types: vec![TypePattern::parse("cart.*").unwrap()], ..Filter::default() };
    rig.dispatcher.start(Subscription { filter: none.into(), ..rig.webhook("n", &receiver) });
    rig.settled("w").await;
    rig.settled("n").await;
    rig.append(numbered(500, 100).map(|event| event.replace(r#""eventId":"e"#, r#""eventId":"f"#))).await;
    rig.settled("w").await;
    rig.settled("n").await;
    assert_eq!(receiver.posts().len(), 10);
    // Neither has anything of its own in the end: the cursor is that of their slots.
    while !rig.store.behind("", 10).await.unwrap().is_empty() {
        rig.append([event("more", "a0")]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(rig.store.swept().await.unwrap().iter().all(|swept| swept.through >= Offset(1000)));
}

#[tokio::test]
async fn a_slow_subscription_does_not_slow_its_neighbour() {
    let rig = Rig::new().await;
    let slow = Receiver::answering(|_| (200, Duration::from_secs(2))).await;
    let quick = Receiver::start().await;
    rig.dispatcher.start(rig.webhook("slow", &slow));
    rig.dispatcher.start(rig.webhook("quick", &quick));
    rig.append(numbered(400, 400)).await;
    quick.wait(400).await;
    assert!(slow.posts().is_empty());
    assert_eq!(rig.status("slow", |status| status.in_flight > 0).await.in_flight, ALLOWANCE_AT_START);
    rig.settled("quick").await;
}

#[tokio::test]
async fn a_lane_that_is_behind_the_ring_reads_from_the_disk() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    rig.append(numbered(1500, 10)).await;
    let rig = rig.reopen().await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.settled("w").await;
    rig.append([event("last", "a0")]).await;
    rig.settled("w").await;
    let posts = receiver.posts();
    assert_eq!((posts.len(), ids(&posts).len()), (1501, 1501));
    assert_ordered(&posts);
}

#[tokio::test]
async fn a_lane_started_again_takes_over_without_repeating() {
    let (rig, receiver) = (Rig::new().await, Receiver::answering(|_| (200, Duration::from_millis(2))).await);
    rig.append(numbered(300, 30)).await;
    for part in 1..=5 {
        rig.dispatcher.start(rig.webhook("w", &receiver));
        receiver.wait(part * 50).await;
    }
    rig.settled("w").await;
    assert_eq!(receiver.posts().len(), 300);
}

#[tokio::test]
async fn a_subscriber_that_is_not_there_is_told_as_such() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    let mut gone = Receiver::start().await;
    // Port 1 of the loopback: nobody listens there.
    gone.address.set_port(1);
    rig.dispatcher.start(rig.webhook("gone", &gone));
    rig.dispatcher.start(rig.webhook("there", &receiver));
    rig.append([event("e1", "a")]).await;
    receiver.wait(1).await;
    rig.status("gone", |status| status.pending == 1).await;
    rig.dispatcher.stop("gone").await;
    let attempts = rig.attempts(1).await;
    let failed = attempts.iter().find(|attempt| &*attempt.subscription == "gone").unwrap();
    assert_eq!((failed.status, failed.reason.as_deref()), (None, Some("connect")));
}

/// Panics at the first attempt.
struct Faulty;

impl Sink for Faulty {
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        assert!(parcels[0].attempt > 1, "planted");
        Box::pin(async { vec![Outcome::Delivered(Answer::default())] })
    }
}

#[tokio::test]
async fn a_panic_of_a_sink_is_a_failed_attempt_and_not_the_end_of_the_lane() {
    let rig = Rig::new().await;
    rig.dispatcher.start(rig.subscription("w", Arc::new(Faulty)));
    rig.append([event("e1", "a")]).await;
    rig.settled("w").await;
    rig.dispatcher.stop("w").await;
    let reasons: Vec<_> = rig.attempts(1).await.into_iter().map(|attempt| attempt.reason).collect();
    assert_eq!(reasons, [Some("internal error".into()), None]);
}

#[tokio::test]
async fn a_lane_that_panics_is_counted_and_begins_again_from_what_was_committed() {
    let mut rig = Rig::new().await;
    let flaky = Flaky::over(&rig.store);
    rig.dispatch_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    let receiver = Receiver::start().await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.append(numbered(40, 5)).await;
    rig.status("w", |status| status.cursor == Offset(40)).await;
    flaky.panics.store(2, Relaxed);
    rig.append((40..80).map(|n| event(&format!("e{n}"), "a"))).await;
    rig.status("w", |status| status.cursor == Offset(80) && status.pending == 0).await;
    assert_eq!(rig.dispatcher.totals().panics, 2);
    let posts = receiver.posts();
    assert_eq!(ids(&posts).len(), 80);
    let again = posts.len() - 80;
    assert!((1..=80).contains(&again), "{again} were not committed when it panicked");
    assert_ordered(&posts);
}

#[tokio::test]
async fn on_a_full_disk_outcomes_wait_and_no_more_than_the_unsettled_is_sent() {
    let mut rig = Rig::new().await;
    let flaky = Flaky::over(&rig.store);
    rig.dispatch_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    let receiver = Receiver::start().await;
    rig.append(numbered(600, 600)).await;
    flaky.full.store(true, Relaxed);
    rig.dispatcher.start(rig.webhook("w", &receiver));
    receiver.wait(256).await;
    rig.status("w", |status| status.in_flight == 0).await;
    while flaky.settles.load(Relaxed) < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(receiver.posts().len(), 256, "nothing beyond what may be unsettled");
    assert_eq!(rig.store.progress("w").await.unwrap(), None);
    flaky.full.store(false, Relaxed);
    rig.settled("w").await;
    assert_eq!(receiver.posts().len(), 600, "nothing twice");
    rig.dispatcher.stop("w").await;
    assert_eq!(rig.attempts(1).await.len(), 1);
}

#[tokio::test]
async fn a_shutdown_ends_even_if_nothing_can_be_committed() {
    let mut rig = Rig::new().await;
    let flaky = Flaky::over(&rig.store);
    rig.dispatch_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    let receiver = Receiver::start().await;
    flaky.full.store(true, Relaxed);
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.append(numbered(5, 5)).await;
    receiver.wait(5).await;
    rig.dispatcher.shutdown(Duration::from_millis(100)).await;
    assert_eq!(rig.store.progress("w").await.unwrap(), None);
}

#[tokio::test]
async fn a_lane_with_nothing_to_do_commits_nothing() {
    let mut rig = Rig::new().await;
    let flaky = Flaky::over(&rig.store);
    rig.dispatch_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    let receiver = Receiver::start().await;
    let none = Filter { types: vec![TypePattern::parse("cart.*").unwrap()], ..Filter::default() };
    rig.dispatcher.start(Subscription { filter: none.into(), ..rig.webhook("w", &receiver) });
    for n in 0..50 {
        rig.append([event(&format!("e{n}"), "a")]).await;
        rig.settled("w").await;
    }
    assert!(flaky.settles.load(Relaxed) <= 5, "a cursor alone moves lazily");
}

#[tokio::test]
async fn after_a_shutdown_nothing_starts() {
    let (rig, receiver) = (Rig::new().await, Receiver::start().await);
    rig.dispatcher.shutdown(AT_ONCE).await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    assert_eq!(rig.dispatcher.status("w"), None);
}
