//! What subscriptions are told to do, beside what goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tidings_core::filter::{Filter, TypePattern};
use tidings_core::offset::Offset;
use tidings_core::rate::Rate;
use tidings_core::retry::Schedule;
use tidings_engine::dispatcher::{Job, LaneStatus, Only, Order, Outcome as Became, Point, Subscription};
use tidings_log::Query;
use tidings_log::store::{DeadLetter, DeadQuery};
use tidings_sinks::{Answer, Outcome, Parcel, Pending, Sink};
use tokio::sync::watch;

use crate::receiver::Receiver;
use crate::rig::{Rig, now};

fn event(id: &str, event_type: &str) -> String {
    format!(r#"{{"eventId":"{id}","eventType":"{event_type}","data":1}}"#)
}

/// Two attempts, 100 ms apart, of what `receiver` gets.
fn short(rig: &Rig, receiver: &Receiver) -> Subscription {
    let mut webhook = rig.webhook("w", receiver);
    webhook.settings.schedule = Schedule::new(vec![Duration::from_millis(100)]).unwrap();
    webhook
}

async fn letters(rig: &Rig) -> Vec<DeadLetter> {
    let (tenant, subscription) = (rig.tenant, Some("w".into()));
    let query = DeadQuery { tenant, subscription, event_type: None, since: None, open: true, before: None, limit: 100 };
    rig.store.dead_letters(query).await.unwrap()
}

async fn order(rig: &Rig, order: Order) -> Became {
    rig.dispatcher.order("w", order, Vec::new()).await.unwrap().unwrap()
}

/// Its status once nothing is left to do.
async fn rest(rig: &Rig) -> LaneStatus {
    rig.status("w", |status| status.pending == 0 && status.in_flight == 0).await
}

/// A subscription of which one event is dead; and its receiver, which is well now.
async fn with_a_dead_letter(rig: &Rig) -> (Receiver, DeadLetter) {
    let well = Arc::new(AtomicBool::new(false));
    let receiver = {
        let well = Arc::clone(&well);
        Receiver::answering(move |_| (if well.load(Relaxed) { 200 } else { 500 }, Duration::ZERO)).await
    };
    rig.dispatcher.start(short(rig, &receiver));
    rig.append([event("e1", "order.created")]).await;
    receiver.wait(2).await;
    rig.status("w", |status| status.dead == 1).await;
    well.store(true, Relaxed);
    (receiver, letters(rig).await.remove(0))
}

#[tokio::test]
async fn one_that_is_started_again_goes_on_where_it_was_and_as_it_stood() {
    let rig = Rig::new().await;
    let receiver = Receiver::start().await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.append((1..=3).map(|n| event(&format!("e{n}"), "order.created"))).await;
    receiver.wait(3).await;
    // It has no progress of its own then.
    while !rig.store.behind("", 1).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // As when its removal fails.
    rig.dispatcher.stop("w").await;
    rig.append([event("e4", "order.created")]).await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    receiver.wait(4).await;
    rig.settled("w").await;
    assert_eq!(order(&rig, Order::Pause).await, Became::Done(1));
    rig.dispatcher.stop("w").await;
    rig.dispatcher.start(rig.webhook("w", &receiver));
    rig.append([event("e5", "order.created")]).await;
    rig.status("w", |status| !status.standing.is_active()).await;
    assert_eq!(order(&rig, Order::Resume).await, Became::Done(1));
    let ids: Vec<_> = receiver.wait(5).await.iter().map(|post| post.id().to_owned()).collect();
    assert_eq!(ids, ["e1", "e2", "e3", "e4", "e5"]);
}

#[tokio::test]
async fn a_dead_letter_that_was_discarded_first_is_not_sent_again() {
    let rig = Rig::new().await;
    let (receiver, letter) = with_a_dead_letter(&rig).await;
    // Both saw it open.
    let discard = order(&rig, Order::Discard(vec![letter.clone()], "nobody wants it".into()));
    let revive = order(&rig, Order::Revive(vec![letter.clone()]));
    assert_eq!(tokio::join!(discard, revive), (Became::Done(1), Became::Done(0)));
    assert_eq!(order(&rig, Order::Discard(vec![letter], "once more".into())).await, Became::Done(0));
    assert_eq!(rest(&rig).await.dead, 0, "it is counted once");
    assert_eq!(receiver.posts().len(), 2);
}

#[tokio::test]
async fn a_dead_letter_that_was_sent_again_first_is_not_discarded() {
    let rig = Rig::new().await;
    let (receiver, letter) = with_a_dead_letter(&rig).await;
    let revive = order(&rig, Order::Revive(vec![letter.clone()]));
    let discard = order(&rig, Order::Discard(vec![letter], "nobody wants it".into()));
    assert_eq!(tokio::join!(revive, discard), (Became::Done(1), Became::Done(0)));
    receiver.wait(3).await;
    assert_eq!(rest(&rig).await.dead, 0);
}

#[tokio::test]
async fn a_replay_leaves_out_what_was_discarded_since_it_was_asked_for() {
    let rig = Rig::new().await;
    let (receiver, letter) = with_a_dead_letter(&rig).await;
    let job = Job {
        id: "rp_1".into(),
        subscription: "w".into(),
        created_at: now(),
        position: Offset(0),
        to: Offset(1),
        event_types: Vec::new(),
        offsets: Vec::new(),
        only: Only::Undelivered,
        letters: vec![(letter.offset, letter.id.clone())],
        rate: Rate::parse("100/s").unwrap(),
        sent: 0,
    };
    let discard = order(&rig, Order::Discard(vec![letter], "nobody wants it".into()));
    assert_eq!(tokio::join!(discard, order(&rig, Order::Replay(job))), (Became::Done(1), Became::Done(1)));
    // The replay comes to its end.
    let completed =
        Filter { types: vec![TypePattern::parse("tidings.replay.completed").unwrap()], ..Filter::default() };
    while told(&rig, &completed).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(receiver.posts().len(), 2);
}

async fn told(rig: &Rig, filter: &Filter) -> usize {
    let query = Query { filter: filter.clone(), ..Query::after(rig.tenant, Offset(0), 100) };
    rig.store.read(query).await.unwrap().events.len()
}

/// Answers once it is let.
struct Held(watch::Receiver<bool>);

impl Sink for Held {
    fn deliver<'a>(&'a self, _: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        let mut held = self.0.clone();
        Box::pin(async move {
            held.wait_for(|open| *open).await.unwrap();
            vec![Outcome::Delivered(Answer::default())]
        })
    }
}

#[tokio::test]
async fn latest_is_the_end_of_the_log_when_an_activation_is_carried_out() {
    let rig = Rig::new().await;
    let (open, held) = watch::channel(false);
    rig.dispatcher.start(rig.subscription("w", Arc::new(Held(held))));
    rig.append([event("e1", "order.created")]).await;
    rig.status("w", |status| status.in_flight == 1).await;
    assert_eq!(order(&rig, Order::Pause).await, Became::Done(1));
    let activation = order(&rig, Order::Activate(Point::Latest));
    let meanwhile = async {
        rig.append((2..=5).map(|n| event(&format!("e{n}"), "order.created"))).await;
        // It was asked before they came, and waits for what is in flight.
        open.send(true).unwrap();
    };
    assert_eq!(tokio::join!(activation, meanwhile).0, Became::Done(1));
    let status = rest(&rig).await;
    assert_eq!((status.standing.skipped, status.cursor), (vec![(Offset(2), Offset(5))], Offset(5)));
}

#[tokio::test]
async fn what_is_told_of_a_subscription_does_not_have_it_told_of_again() {
    let rig = Rig::new().await;
    let receiver = Receiver::answering(|_| (500, Duration::ZERO)).await;
    let pattern = |text: &str| TypePattern::parse(text).unwrap();
    let mut webhook = short(&rig, &receiver);
    webhook.filter = Filter { types: vec![pattern("order.*"), pattern("tidings.*")], ..Filter::default() }.into();
    webhook.settings.deactivate_after = Some(1);
    rig.dispatcher.start(webhook);
    rig.append([event("e1", "order.created")]).await;
    // The attempts of the order deactivate it, and that is told.
    for _ in 0..2 {
        rig.status("w", |status| !status.standing.is_active()).await;
        assert_eq!(order(&rig, Order::Activate(Point::Cursor)).await, Became::Done(1));
    }
    // Then nothing is left but what was told of it: that fails, and dies, and says nothing more.
    let status = rest(&rig).await;
    assert!(status.standing.is_active(), "{status:?}");
    let deactivated = Filter { types: vec![pattern("tidings.webhook.deactivated")], ..Filter::default() };
    assert_eq!(told(&rig, &deactivated).await, 2);
    assert_eq!(status.dead, 4, "the order, its dead letter, and two deactivations");
}
