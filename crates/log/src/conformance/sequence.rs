//! Laws of an aggregate's numbers.

use std::collections::HashMap;

use tidings_core::filter::Filter;

use super::Engine;
use super::stage::{Stage, about, appended, draft, expecting, refusal};
use crate::store::Refusal;

pub(super) async fn sequence_numbers_are_dense(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let mut heads: HashMap<String, u64> = HashMap::new();
    for round in 0..4 {
        let mut under_way = Vec::new();
        for _ in 0..60 {
            // Batches that queue become one commit, and touch the same aggregates.
            let names: Vec<String> =
                (0..=stage.chance.below(6)).map(|_| format!("o{}", stage.chance.below(9))).collect();
            let batch = names.iter().map(|name| about(name, draft("order.changed"))).collect();
            under_way.push((names, stage.begin(batch)));
        }
        for (names, answer) in under_way {
            for (name, appended) in names.into_iter().zip(appended(answer.await)) {
                let head = heads.entry(name).or_default();
                *head += 1;
                assert_eq!(appended.sequence, Some(*head));
            }
        }
        assert_eq!(stage.say(draft("order.changed")).await.sequence, None);
        if round == 1 {
            engine.rest().await;
        }
        if round != 0 {
            stage.reopen();
        }
    }
    for (name, head) in heads {
        let aggregate = about(&name, draft("order.changed")).aggregate;
        let events = stage.read(Filter { aggregate, ..Filter::default() }).await;
        assert!(events.iter().map(|event| event.sequence).eq((1..=head).map(Some)));
    }
}

pub(super) async fn an_expected_sequence_counts_its_own_batch(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let next = |expected| expecting(expected, about("o1", draft("order.changed")));
    stage.append(vec![next(0), next(1), next(2)]).await;
    for _ in 0..2 {
        let refused = stage.refusal(vec![next(3), next(3)]).await;
        assert_eq!(refused, Refusal::Sequence { index: 1, current: 4 });
        let refused = stage.refusal(vec![next(0)]).await;
        assert_eq!(refused, Refusal::Sequence { index: 0, current: 3 });
        let new = expecting(1, about("o2", draft("order.changed")));
        assert_eq!(stage.refusal(vec![new]).await, Refusal::Sequence { index: 0, current: 0 });
        engine.rest().await;
        stage.reopen();
    }
    assert_eq!(stage.say(next(3)).await.sequence, Some(4));
    assert_eq!(stage.log().await.len(), 4);
}

pub(super) async fn one_of_equal_expectations_wins(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    for expected in 0..5 {
        let under_way: Vec<_> =
            (0..40).map(|_| stage.begin(vec![expecting(expected, about("o1", draft("order.changed")))])).collect();
        let mut won = 0;
        for answer in under_way {
            match answer.await {
                Ok(written) => {
                    assert_eq!(appended(Ok(written))[0].sequence, Some(expected + 1));
                    won += 1;
                }
                refused => assert_eq!(refusal(refused), Refusal::Sequence { index: 0, current: expected + 1 }),
            }
        }
        assert_eq!(won, 1);
    }
    assert_eq!(stage.log().await.len(), 5);
}
