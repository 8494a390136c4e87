//! Laws of the history of deliveries.

use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::Engine;
use super::letters::{close, dead, replayed};
use super::retention::trim;
use super::stage::{Stage, draft};
use crate::store::{Attempt, Settle, Write};

/// An attempt; odd ones failed, and those of numbers over 8 are of a replay.
pub(super) fn attempt(subscription: &str, offset: u64, number: u32) -> Attempt {
    let failed = number % 2 == 1;
    Attempt {
        subscription: subscription.into(),
        offset: Offset(offset),
        number,
        at: Timestamp::from_millis(1_790_000_000_000 + i64::from(number)),
        latency_ms: 12 + number,
        status: (!number.is_multiple_of(3)).then_some(if failed { 503 } else { 204 }),
        reason: failed.then(|| format!("status {number}").into()),
        answer: (number % 4 == 1).then(|| "busy: später\u{1f600}".into()),
        replay: number > 8,
    }
}

pub(super) async fn attempts_are_kept(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.append(vec![draft("order.created"); 3]).await;
    let attempt = |offset: u64, number: u32| attempt("wh_1", offset, number);
    for number in [1, 3, 5, 7] {
        // Several commits, each with attempts of near and far events.
        let attempts = vec![attempt(1, number), attempt(70_000, number), attempt(2, number), attempt(1, number + 1)];
        let settle = Settle { subscription: "wh_1".into(), tenant: stage.tenant, attempts, ..Settle::default() };
        stage.one(Write::Settle(settle)).await;
    }
    for _ in 0..2 {
        for (offset, limit, numbers) in [
            (1, 100, vec![1, 2, 3, 4, 5, 6, 7, 8]),
            (1, 3, vec![6, 7, 8]),
            (2, 100, vec![1, 3, 5, 7]),
            (3, 100, vec![]),
            (70_000, 2, vec![5, 7]),
        ] {
            let found = stage.store().attempts(stage.tenant, Offset(offset), limit).await.unwrap();
            let expected: Vec<Attempt> = numbers.into_iter().map(|number| attempt(offset, number)).collect();
            assert_eq!(found, expected, "the newest {limit} of {offset}");
        }
        stage.reopen();
    }
    let other = stage.add_tenant("other").await;
    assert_eq!(stage.store().attempts(other, Offset(1), 10).await.unwrap(), []);
}

fn settle(stage: &Stage<'_>, subscription: &str, attempts: Vec<Attempt>) -> Write {
    Write::Settle(Settle { subscription: subscription.into(), tenant: stage.tenant, attempts, ..Settle::default() })
}

/// The whole history of a subscription, by pages of `limit`.
async fn history(stage: &Stage<'_>, subscription: &str, limit: usize) -> Vec<(u64, Attempt)> {
    let mut all: Vec<(u64, Attempt)> = Vec::new();
    loop {
        let before = all.last().map(|(number, _)| *number);
        let page = stage.store().history(subscription, before, limit).await.unwrap();
        assert!(page.len() <= limit);
        assert!(page.iter().all(|(number, _)| before.is_none_or(|before| *number < before)), "before {before:?}");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

pub(super) async fn history_is_told_newest_first(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let mut made = Vec::new();
    for (place, count) in [3, 1, 2_500, 1, 64].into_iter().enumerate() {
        // Each commit speaks of events near each other.
        let base = 1 + 100_000 * place as u64;
        let attempts: Vec<_> =
            (0..count).map(|number| attempt("wh_1", base + u64::from(number % 50), number)).collect();
        let others = vec![attempt("wh_2", base, 1)];
        made.extend(attempts.clone());
        stage.commit(vec![settle(&stage, "wh_2", others), settle(&stage, "wh_1", attempts)]).await.unwrap();
    }
    made.reverse();
    let told = history(&stage, "wh_1", 1_000).await;
    assert_eq!(told.iter().map(|(_, attempt)| attempt).collect::<Vec<_>>(), made.iter().collect::<Vec<_>>());
    assert!(told.windows(2).all(|pair| pair[0].0 > pair[1].0), "numbers fall");
    for limit in [1_024, 100, 7] {
        assert_eq!(history(&stage, "wh_1", limit).await, told, "by {limit}");
        stage.reopen();
    }
    assert_eq!(history(&stage, "wh_2", 2).await.len(), 5);
    assert_eq!(history(&stage, "nobody", 2).await, []);
    // What comes later does not move what a page began with.
    let before = told[10].0;
    stage.one(settle(&stage, "wh_1", vec![attempt("wh_1", 1, 99)])).await;
    assert_eq!(stage.store().history("wh_1", Some(before), 5).await.unwrap(), told[11..16]);
    assert_eq!(history(&stage, "wh_1", 1_000).await[0].1, attempt("wh_1", 1, 99));
}

pub(super) async fn history_goes_with_its_events(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.fill(13_000).await;
    let kept = 5_000;
    for offset in [1, 2, kept, 9_000, 13_000] {
        stage.one(settle(&stage, "wh_1", vec![attempt("wh_1", offset, 1)])).await;
    }
    stage.one(Write::Settle(dead(&stage, "wh_1", kept, "d1"))).await;
    engine.rest().await;
    let told = async |stage: &Stage<'_>| {
        let mut offsets: Vec<_> =
            history(stage, "wh_1", 100).await.into_iter().map(|(_, attempt)| attempt.offset.0).collect();
        offsets.sort_unstable();
        for offset in [1, 2, kept, 9_000, 13_000] {
            let by_event = stage.store().attempts(stage.tenant, Offset(offset), 9).await.unwrap();
            assert_eq!(by_event.len(), usize::from(offsets.contains(&offset)), "{offset}");
        }
        offsets
    };
    assert!(trim(&stage, 12_900).await > 12_288 - 1_024);
    for _ in 0..3 {
        trim(&stage, 12_900).await;
    }
    for _ in 0..2 {
        let told = told(&stage).await;
        assert!(!told.contains(&1) && !told.contains(&2), "{told:?}");
        assert!(told.contains(&kept), "its event is there for the dead letter");
        assert!(told.contains(&13_000));
        stage.reopen();
    }
    stage.one(close(&stage, &["d1"], replayed(&stage))).await;
    for _ in 0..3 {
        trim(&stage, 12_900).await;
    }
    assert!(!told(&stage).await.contains(&kept));
}
