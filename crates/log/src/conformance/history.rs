//! Laws of the history of deliveries.

use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::Engine;
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
