//! Laws of the events that dead letters and rows keep.

use std::sync::Arc;

use tidings_core::lane::{Changes, Row, RowState};
use tidings_core::offset::Offset;

use super::Engine;
use super::letters::{close, dead, replayed};
use super::progress::{row, settle, sweep};
use super::retention::trim;
use super::stage::{Stage, draft, offsets, refusal, saying, with_id};
use crate::event::Event;
use crate::store::{DeadState, Document, Expect, Kind, Owner, Refusal, Write, Written};

/// How many events the stage is set with, all of them called `e` and their offset.
const EVENTS: u64 = 9;

async fn set(engine: &dyn Engine) -> Stage<'_> {
    let mut stage = Stage::set(engine).await;
    for offset in 1..=EVENTS {
        stage.say(event(offset)).await;
    }
    stage
}

fn event(number: u64) -> tidings_core::event::Draft {
    saying(format!("{{\"n\":{number}}}"), with_id(&format!("e{number}"), draft("order.created")))
}

/// Retention takes everything.
async fn trim_all(stage: &Stage<'_>) {
    stage.engine.rest().await;
    assert_eq!(trim(stage, EVENTS).await, EVENTS + 1);
    assert_eq!(offsets(&stage.log().await), [0; 0]);
}

async fn at(stage: &Stage<'_>, offset: u64) -> Option<Arc<Event>> {
    stage.store().event(stage.tenant, Offset(offset)).await.unwrap()
}

/// The offsets at which there is an event, or a copy.
async fn left(stage: &Stage<'_>) -> Vec<u64> {
    let mut left = Vec::new();
    for offset in 0..=EVENTS + 1 {
        left.extend(at(stage, offset).await.map(|event| event.offset.0));
    }
    left
}

async fn settle_rows(stage: &Stage<'_>, subscription: &str, rows: Vec<Row>) {
    let changes = Changes { cursor: Offset(EVENTS), rows, ..Changes::default() };
    stage.one(Write::Settle(settle(stage, subscription, changes))).await;
}

pub(super) async fn retention_keeps_what_is_needed(engine: &dyn Engine) {
    let mut stage = set(engine).await;
    let other = stage.add_tenant("other").await;
    let parked = Row { state: RowState::Parked, ..row(3, 3) };
    let settled = Row { state: RowState::Settled, followers: Some(Offset(4)), ..row(4, 1) };
    settle_rows(&stage, "wh_1", vec![row(2, 1), parked, settled]).await;
    for (offset, id) in [(1, "d1"), (5, "d5"), (6, "d6")] {
        stage.one(Write::Settle(dead(&stage, "wh_2", offset, id))).await;
    }
    let discarded = DeadState::Discarded { at: stage.now, reason: "obsolete".into() };
    stage.one(close(&stage, &["d5"], replayed(&stage))).await;
    stage.one(close(&stage, &["d6"], discarded)).await;
    let mut before = Vec::new();
    for offset in 1..=EVENTS {
        let event = at(&stage, offset).await.unwrap();
        assert_eq!(event.offset, Offset(offset));
        before.push(event);
    }
    trim_all(&stage).await;
    for _ in 0..2 {
        assert_eq!(left(&stage).await, [1, 2, 3, 4]);
        for was in &before[..4] {
            let kept = at(&stage, was.offset.0).await.unwrap();
            assert_eq!(kept.envelope(), was.envelope());
            assert_eq!((&kept.subject.id, kept.recorded, kept.leaf()), (&was.subject.id, was.recorded, was.leaf()));
            assert!(stage.find(&was.subject.id).await.is_none(), "a copy is not in the log");
        }
        assert!(stage.store().event(other, Offset(1)).await.unwrap().is_none());
        stage.assert_whole();
        stage.reopen();
    }
}

pub(super) async fn what_is_kept_goes_when_nothing_needs_it(engine: &dyn Engine) {
    let mut stage = set(engine).await;
    settle_rows(&stage, "wh_1", [1, 2, 3, 4].map(|offset| row(offset, 1)).into()).await;
    settle_rows(&stage, "wh_3", vec![row(8, 1)]).await;
    for (offset, id) in [(4, "d4"), (5, "d5"), (6, "d6"), (7, "d7")] {
        stage.one(Write::Settle(dead(&stage, "wh_2", offset, id))).await;
    }
    trim_all(&stage).await;
    assert_eq!(left(&stage).await, [1, 2, 3, 4, 5, 6, 7, 8]);
    // A refused unit takes nothing away.
    let missing = Document {
        kind: Kind::Setting,
        owner: Owner::Operator,
        id: "missing".into(),
        revision: 0,
        body: b"1".to_vec(),
    };
    let refused = [
        close(&stage, &["d5"], replayed(&stage)),
        Write::Forget("wh_1".into()),
        Write::Put(missing, Expect::Revision(9)),
    ];
    assert_eq!(refusal(stage.commit(refused.into()).await), Refusal::Revision);
    assert_eq!(left(&stage).await, [1, 2, 3, 4, 5, 6, 7, 8]);

    let cursor = Offset(EVENTS);
    let cleared = Changes { cursor, cleared: vec![Offset(1), Offset(4)], ..Changes::default() };
    stage.one(Write::Settle(settle(&stage, "wh_1", cleared))).await;
    assert_eq!(left(&stage).await, [2, 3, 4, 5, 6, 7, 8], "one of two needs of 4 is gone");
    settle_rows(&stage, "wh_1", vec![Row { state: RowState::Settled, ..row(2, 1) }]).await;
    assert_eq!(left(&stage).await, [2, 3, 4, 5, 6, 7, 8], "it tells whose followers wait");
    let cleared = Changes { cursor, cleared: vec![Offset(2)], ..Changes::default() };
    stage.one(Write::Settle(settle(&stage, "wh_1", cleared))).await;
    assert_eq!(left(&stage).await, [3, 4, 5, 6, 7, 8]);
    // A letter that is closed for a replay leaves its event to the row of the same commit, whichever comes first.
    let again = |offset| Changes {
        cursor,
        rows: vec![Row { replay: Some("rp_1".into()), ..row(offset, 0) }],
        ..Changes::default()
    };
    let writes = vec![
        close(&stage, &["d4", "d5"], replayed(&stage)),
        Write::Settle(settle(&stage, "wh_2", again(5))),
        Write::Settle(settle(&stage, "wh_2", again(6))),
        close(&stage, &["d6"], replayed(&stage)),
    ];
    stage.commit(writes).await.unwrap();
    assert!(stage.store().dead_letter(stage.tenant, "d4").await.unwrap().is_some());
    trim_all(&stage).await;
    for _ in 0..2 {
        assert_eq!(left(&stage).await, [3, 5, 6, 7, 8]);
        stage.reopen();
    }
    // A letter that is closed goes after its event; one that is open stays.
    for (id, stays) in [("d4", false), ("d5", false), ("d6", false), ("d7", true)] {
        assert_eq!(stage.store().dead_letter(stage.tenant, id).await.unwrap().is_some(), stays, "{id}");
    }
    stage.one(sweep(&stage, 1, EVENTS, &["wh_3"])).await;
    assert_eq!(left(&stage).await, [3, 5, 6, 7]);
    stage.one(Write::Forget("wh_2".into())).await;
    assert_eq!(left(&stage).await, [3]);
    // A delivery given up passes its need from the row to the letter.
    stage.one(Write::Settle(dead(&stage, "wh_1", 3, "d3"))).await;
    for _ in 0..2 {
        assert_eq!(left(&stage).await, [3]);
        stage.reopen();
    }
    stage.one(Write::Forget("wh_1".into())).await;
    assert_eq!(left(&stage).await, [0; 0]);
}

pub(super) async fn an_erasure_reaches_what_is_kept(engine: &dyn Engine) {
    let mut stage = set(engine).await;
    let erase = |stage: &Stage<'_>, number: u64| Write::Erase(stage.tenant, event(number).id.unwrap());
    for (offset, id) in [(1, "d1"), (2, "d2"), (3, "d3")] {
        stage.one(Write::Settle(dead(&stage, "wh_1", offset, id))).await;
    }
    let leaf = at(&stage, 1).await.unwrap().leaf();
    // One before retention takes it, one after.
    assert_eq!(stage.one(erase(&stage, 2)).await, Written::Erased(Offset(2)));
    trim_all(&stage).await;
    for _ in 0..2 {
        assert_eq!(stage.one(erase(&stage, 1)).await, Written::Erased(Offset(1)));
    }
    // The id is free again; an erasure reaches the copy of its first event too.
    let second = stage.say(event(3)).await;
    assert!(!second.duplicate);
    assert_eq!(stage.one(erase(&stage, 3)).await, Written::Erased(second.offset));
    assert_eq!(refusal(stage.commit(vec![erase(&stage, 4)]).await), Refusal::NoSuchEvent);
    for _ in 0..2 {
        for offset in [1, 2, 3, second.offset.0] {
            let event = at(&stage, offset).await.unwrap();
            assert_eq!(event.bytes(), None, "{offset}");
            assert!(event.envelope().ends_with(b",\"data\":null,\"erased\":true}"));
        }
        assert_eq!(at(&stage, 1).await.unwrap().leaf(), leaf);
        stage.assert_whole();
        stage.reopen();
    }
}
