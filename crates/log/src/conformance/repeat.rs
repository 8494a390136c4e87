//! Laws of what comes twice: event ids and request keys.

use std::time::Duration;

use bytes::Bytes;
use tidings_core::event::Draft;

use super::Engine;
use super::stage::{Stage, about, appended, draft, expecting, offsets, refusal, saying, to, with_id};
use crate::store::{Appended, CommitError, Refusal, RequestKey, Written};

pub(super) async fn equal_appends_at_once_make_one_event(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let event = with_id("once", about("o1", draft("order.created")));
    let under_way: Vec<_> = (0..200).map(|_| stage.begin(vec![event.clone()])).collect();
    let mut all = Vec::new();
    for answer in under_way {
        all.extend(appended(answer.await));
    }
    assert_eq!(all.iter().filter(|appended| !appended.duplicate).count(), 1);
    assert!(all.iter().all(|appended| (appended.offset.0, appended.sequence) == (1, Some(1))));
    let twice =
        stage.append(vec![with_id("twice", draft("order.created")), with_id("twice", draft("order.created"))]).await;
    assert_eq!(twice.iter().map(|a| (a.offset.0, a.duplicate)).collect::<Vec<_>>(), [(2, false), (2, true)]);
    assert_eq!(offsets(&stage.log().await), [1, 2]);
}

pub(super) async fn a_repeated_id_is_found_wherever_it_is(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let uuid = "0192f3c1-8f4e-7c3a-9f10-1d2b3c4d5e6f";
    let near = "0192f3c1-8f4e-7c3a-0000-000000000000";
    let events = [uuid, near, "own-1"].map(|id| with_id(id, about("o1", draft("order.created"))));
    let first = stage.append(events.to_vec()).await;
    let again: Vec<_> = first.iter().map(|first| Appended { duplicate: true, ..first.clone() }).collect();
    // In memory; while the index is written; on disk; after a start from there; after a start from the tail.
    assert_eq!(stage.append(events.to_vec()).await, again);
    stage.fill(16_500).await;
    for _ in 0..20 {
        assert_eq!(stage.append(events.to_vec()).await, again);
    }
    engine.rest().await;
    assert_eq!(stage.append(events.to_vec()).await, again);
    stage.reopen();
    assert_eq!(stage.append(events.to_vec()).await, again);
    let late = stage.say(with_id("late", draft("order.created"))).await;
    stage.reopen();
    let late_again = stage.say(with_id("late", draft("order.created"))).await;
    assert_eq!(late_again, Appended { duplicate: true, ..late });
    assert_eq!(stage.log().await.len(), 16_504);
}

pub(super) async fn an_id_with_other_content_is_refused(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let original =
        with_id("a", about("o1", to(&["user:1", "user:2"], saying("{\"total\":1.0}", draft("order.created")))));
    let first = stage.say(original.clone()).await;
    let others = [
        saying("{\"total\":1}", original.clone()),
        to(&["user:1"], original.clone()),
        about("o2", original.clone()),
        Draft { version: Some(1), ..original.clone() },
        Draft { event_type: draft("order.paid").event_type, ..original.clone() },
    ];
    let equal = [to(&["user:2", "user:1"], original.clone()), saying(" { \"total\" : 1.0 } ".trim(), original)];
    for _ in 0..2 {
        for other in &others {
            let batch = vec![draft("order.created"), about("o1", draft("order.created")), other.clone()];
            assert_eq!(stage.refusal(batch).await, Refusal::IdTaken { index: 2 });
        }
        for equal in &equal {
            assert_eq!(stage.say(equal.clone()).await, Appended { duplicate: true, ..first.clone() });
        }
        // A repeated event is judged by its id first.
        assert!(stage.say(expecting(7, equal[0].clone())).await.duplicate);
        assert_eq!(offsets(&stage.log().await), [1]);
        engine.rest().await;
        stage.reopen();
    }
}

fn request(key: u8, body: u8) -> RequestKey {
    RequestKey { key: [key; 32], body: [body; 32] }
}

async fn ask(stage: &mut Stage<'_>, request: RequestKey) -> Result<Vec<Written>, CommitError> {
    let batch = vec![about("o1", draft("order.created")), with_id("known", draft("order.created"))];
    let write = stage.appending_to(stage.tenant, batch, Some(request));
    stage.commit(vec![write]).await
}

fn answer(answer: Result<Vec<Written>, CommitError>) -> (Vec<Appended>, bool) {
    match answer.unwrap().remove(0) {
        Written::Appended { results, replayed } => (results, replayed),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_request_key_replays_its_first_answer(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.say(with_id("known", draft("order.created"))).await;
    let (first, replayed) = answer(ask(&mut stage, request(1, 1)).await);
    assert!(!replayed);
    assert_eq!(first.iter().map(|a| (a.sequence, a.duplicate)).collect::<Vec<_>>(), [(Some(1), false), (None, true)]);
    for _ in 0..3 {
        assert_eq!(answer(ask(&mut stage, request(1, 1)).await), (first.clone(), true));
        assert_eq!(refusal(ask(&mut stage, request(1, 2)).await), Refusal::RequestKeyReused);
        stage.reopen();
    }
    let batch =
        |stage: &mut Stage<'_>| stage.appending_to(stage.tenant, vec![draft("order.created")], Some(request(2, 1)));
    let under_way: Vec<_> = (0..50)
        .map(|_| {
            let write = batch(&mut stage);
            stage.commit(vec![write])
        })
        .collect();
    let mut fresh = 0;
    for under_way in under_way {
        let (results, replayed) = answer(under_way.await);
        assert_eq!(results[0].offset.0, 3);
        fresh += usize::from(!replayed);
    }
    assert_eq!(fresh, 1);
    assert_eq!(stage.log().await.len(), 3);
}

pub(super) async fn a_request_key_expires_after_a_day(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let (first, _) = answer(ask(&mut stage, request(1, 1)).await);
    stage.pass(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(answer(ask(&mut stage, request(1, 1)).await), (first, true));
    stage.pass(Duration::from_secs(2));
    let (second, replayed) = answer(ask(&mut stage, request(1, 2)).await);
    assert!(!replayed);
    assert_eq!(second[0].sequence, Some(2));
    assert_eq!(answer(ask(&mut stage, request(1, 2)).await), (second, true));
}

pub(super) async fn a_refused_request_keeps_no_answer(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let expected =
        |sequence| vec![expecting(sequence, about("o1", saying(Bytes::from_static(b"1"), draft("order.created"))))];
    let write = stage.appending_to(stage.tenant, expected(5), Some(request(1, 1)));
    assert_eq!(refusal(stage.commit(vec![write]).await), Refusal::Sequence { index: 0, current: 0 });
    let write = stage.appending_to(stage.tenant, expected(0), Some(request(1, 1)));
    let (results, replayed) = answer(stage.commit(vec![write]).await);
    assert_eq!((results[0].sequence, replayed), (Some(1), false));
}
