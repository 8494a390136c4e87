//! Where the sweepers are, where slots are, and where lanes are: three places, and nothing is lost or repeated between them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tidings_core::filter::{Filter, TypePattern};
use tidings_core::lane::{Changes, Row};
use tidings_core::offset::Offset;
use tidings_engine::dispatcher::{Order, Outcome, Point, SLOTS, Subscription, opening};
use tidings_log::store::{Settle, Sweep};
use tidings_log::{Store, Write};

use crate::flaky::Flaky;
use crate::receiver::Receiver;
use crate::rig::{Rig, now};

/// Longer than a lane stays that has nothing to do.
const LINGER: Duration = Duration::from_secs(4);

/// Enough for one in each shard.
const OTHERS: usize = 8;

fn event(number: u64) -> String {
    format!(r#"{{"eventType":"order.created","eventId":"e{number}","data":1}}"#)
}

fn other(number: usize) -> String {
    format!("other{number}")
}

/// After a crash: of 40 events the slots are at 32, `changes` tell of `w`, and others have their cursors at 5. Nothing is
/// in memory.
async fn crashed(changes: Option<Changes>) -> Rig {
    let rig = Rig::new().await;
    rig.append((1..=40).map(event)).await;
    let sweep = |slot| Write::Sweep(Sweep { tenant: rig.tenant, slot, through: Offset(32), current: Vec::new() });
    let settle = |changes| Settle { subscription: "w".into(), tenant: rig.tenant, changes, ..Settle::default() };
    let settle = changes.map(settle).map(Write::Settle);
    let others = (0..OTHERS).map(|number| opening(&other(number), rig.tenant, Offset(5)));
    rig.store.commit(now(), (0..SLOTS).map(sweep).chain(others).chain(settle).collect()).await.unwrap();
    rig.reopen().await
}

/// The same, for all: the sweepers go back. Nothing can be read yet.
async fn gone_back(changes: Option<Changes>, receiver: &Receiver) -> (Rig, Arc<Flaky>) {
    let mut rig = crashed(changes).await;
    let flaky = Flaky::over(&rig.store);
    flaky.held.send_replace(true);
    rig.load_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    rig.dispatcher.start(rig.webhook("w", receiver));
    let nobody = Receiver::start().await;
    for number in 0..OTHERS {
        rig.dispatcher.start(rig.webhook(&other(number), &nobody));
    }
    rig.dispatcher.begin();
    (rig, flaky)
}

/// Lets the log be read, once lanes had the time to end, and answers what `receiver` got then.
async fn got(rig: &Rig, flaky: &Flaky, receiver: &Receiver) -> Vec<u64> {
    tokio::time::sleep(LINGER).await;
    flaky.held.send_replace(false);
    for number in 0..OTHERS {
        rig.settled(&other(number)).await;
    }
    rig.settled("w").await;
    let mut got: Vec<_> = receiver.posts().iter().map(|post| post.id()[1..].parse().unwrap()).collect();
    got.sort_unstable();
    got
}

#[tokio::test]
async fn a_lane_behind_its_slot_gets_what_lies_between_though_the_sweeper_is_behind_both() {
    let receiver = Receiver::start().await;
    // All through 30 and 32 are settled.
    let changes = Changes { cursor: Offset(30), acked: vec![0b10], ..Changes::default() };
    let (rig, flaky) = gone_back(Some(changes), &receiver).await;
    assert_eq!(got(&rig, &flaky, &receiver).await, [31, 33, 34, 35, 36, 37, 38, 39, 40]);
}

#[tokio::test]
async fn a_lane_that_ended_before_the_sweeper_came_to_where_it_was_repeats_nothing() {
    let receiver = Receiver::start().await;
    // All through 30 is settled, but for 26.
    let row = Row { offset: Offset(26), ..Row::default() };
    let changes = Changes { cursor: Offset(30), rows: vec![row], ..Changes::default() };
    let (rig, flaky) = gone_back(Some(changes), &receiver).await;
    assert_eq!(got(&rig, &flaky, &receiver).await, [26, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40]);
}

#[tokio::test]
async fn an_order_before_the_sweeper_came_to_where_a_slot_was_repeats_nothing() {
    let receiver = Receiver::start().await;
    let (rig, flaky) = gone_back(None, &receiver).await;
    let activate = Order::Activate(Point::Cursor);
    assert_eq!(rig.dispatcher.order("w", activate, Vec::new()).await.unwrap().unwrap(), Outcome::Pointless);
    assert_eq!(got(&rig, &flaky, &receiver).await, [33, 34, 35, 36, 37, 38, 39, 40]);
}

#[tokio::test]
async fn who_has_not_begun_is_as_far_behind_as_it_was() {
    let mut rig = crashed(Some(Changes { cursor: Offset(30), acked: vec![0b10], ..Changes::default() })).await;
    rig.load_over(Arc::clone(&rig.store)).await;
    rig.dispatcher.start(rig.webhook("w", &Receiver::start().await));
    let status = rig.dispatcher.status("w").unwrap();
    assert_eq!((status.cursor, status.lag, status.pending), (Offset(30), 10, 1));
}

#[tokio::test]
async fn a_slot_does_not_pass_what_a_lane_without_a_progress_of_its_own_has_not_settled() {
    let mut rig = Rig::new().await;
    let receiver = Receiver::start().await;
    let flaky = Flaky::over(&rig.store);
    rig.dispatch_over(Arc::clone(&flaky) as Arc<dyn Store>).await;
    let orders = Filter { types: vec![TypePattern::parse("order.*").unwrap()], ..Filter::default() };
    rig.dispatcher.start(Subscription { filter: orders.into(), ..rig.webhook("w", &receiver) });
    rig.append([event(1)]).await;
    receiver.wait(1).await;
    tokio::time::sleep(LINGER).await;
    // Its lane has ended: with the next event of anybody its slot's cursor is all that is kept of it.
    rig.append([r#"{"eventType":"other.thing","data":null}"#.to_owned()]).await;
    while !rig.store.behind("", 1).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    flaky.unsettled.store(true, Relaxed);
    rig.append([event(2)]).await;
    receiver.wait(2).await;
    // Several sweeps go by.
    tokio::time::sleep(LINGER).await;
    let swept = rig.store.swept().await.unwrap();
    assert_eq!(swept.iter().map(|swept| swept.through).collect::<Vec<_>>(), [Offset(2)]);
}
