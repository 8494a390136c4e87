//! Many subscriptions: what those cost that have nothing to do, and those that are behind together.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_engine::dispatcher::{Subscription, opening};
use tidings_log::{Store, Write};

use crate::flaky::Flaky;
use crate::receiver::Receiver;
use crate::rig::{Rig, now};

const COUNT: usize = 100;

fn name(number: usize) -> String {
    format!("w{number:03}")
}

fn order(number: usize) -> String {
    format!(r#"{{"eventType":"order.created","eventId":"e{number}","data":{{"n":{number}}}}}"#)
}

/// Subscription `number`, which wants `types`.
fn webhook(rig: &Rig, receiver: &Receiver, number: usize, types: &str) -> Subscription {
    let filter = Filter { types: vec![TypePattern::parse(types).unwrap()], ..Filter::default() };
    Subscription { filter: filter.into(), ..rig.webhook(&name(number), receiver) }
}

/// Waits until nobody has a progress of its own.
async fn all_current(rig: &Rig) {
    for _ in 0..3000 {
        if rig.store.behind("", 1).await.unwrap().is_empty() {
            return;
        }
        // The log gives no signal of it.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("somebody is behind for ever");
}

#[tokio::test]
async fn who_wants_nothing_of_what_came_becomes_current_without_a_lane() {
    let (mut rig, receiver) = (Rig::new().await, Receiver::start().await);
    for number in 0..COUNT {
        rig.store.commit(now(), vec![opening(&name(number), rig.tenant, Offset(0))]).await.unwrap();
    }
    rig.append((0..300).map(order)).await;
    let flaky = Flaky::over(&rig.store);
    // As after a start: the log knows them, they have cursors of their own.
    rig.dispatch_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    for number in 0..COUNT {
        rig.dispatcher.start(webhook(&rig, &receiver, number, "cart.*"));
    }
    // And one that is made now.
    rig.store.commit(now(), vec![opening(&name(COUNT), rig.tenant, Offset(300))]).await.unwrap();
    let made = Subscription { start: Offset(300), fresh: true, ..webhook(&rig, &receiver, COUNT, "order.*") };
    rig.dispatcher.start(made);
    rig.append([r#"{"eventType":"other.thing","data":null}"#.to_owned()]).await;
    all_current(&rig).await;
    assert_eq!(flaky.settles.load(Relaxed), 0, "nobody had a lane");
    rig.append([order(300)]).await;
    receiver.wait(1).await;
    let status = rig.settled(&name(COUNT)).await;
    assert_eq!((status.cursor, receiver.posts().len()), (Offset(302), 1));
}

#[tokio::test]
async fn many_that_are_behind_together_get_all() {
    const EVENTS: usize = 600;
    let (mut rig, receiver) = (Rig::new().await, Receiver::start().await);
    for number in 0..COUNT {
        rig.store.commit(now(), vec![opening(&name(number), rig.tenant, Offset(0))]).await.unwrap();
    }
    rig.append((0..EVENTS).map(order)).await;
    rig = rig.reopen().await;
    for number in 0..COUNT {
        // Some want few of the events, others all.
        rig.dispatcher.start(webhook(&rig, &receiver, number, if number % 2 == 0 { "order.*" } else { "*" }));
    }
    for number in 0..COUNT {
        rig.settled(&name(number)).await;
    }
    let posts = receiver.posts();
    assert_eq!(posts.len(), COUNT * EVENTS);
}

/// What others read from the disk a moment ago still had its data.
#[tokio::test]
async fn who_is_opened_after_an_erasure_does_not_get_what_was_erased() {
    const HALF: usize = COUNT / 2;
    let (mut rig, receiver) = (Rig::new().await, Receiver::start().await);
    for number in 0..COUNT {
        rig.store.commit(now(), vec![opening(&name(number), rig.tenant, Offset(0))]).await.unwrap();
    }
    rig.append((0..300).map(order)).await;
    rig = rig.reopen().await;
    let erase = Write::Erase(rig.tenant, EventId::parse("e0").unwrap());
    for (half, left) in [(0..HALF, json!({"n": 0})), (HALF..COUNT, Value::Null)] {
        let before = receiver.posts().len();
        for number in half.clone() {
            rig.dispatcher.start(webhook(&rig, &receiver, number, "order.*"));
        }
        for number in half {
            rig.settled(&name(number)).await;
        }
        let posts = receiver.posts().split_off(before);
        let mut erased = posts.iter().filter(|post| post.id() == "e0");
        assert!(posts.len() == HALF * 300 && erased.all(|post| post.json()["data"] == left), "{left}");
        rig.store.commit(now(), vec![erase.clone()]).await.unwrap();
    }
}
