//! Laws of dead letters.

use std::time::Duration;

use tidings_core::lane::{Changes, Dead, Row, RowState};
use tidings_core::offset::Offset;

use super::Engine;
use super::progress::{row, settle};
use super::stage::{START, Stage, draft};
use crate::store::{DeadLetter, DeadQuery, DeadState, Letter, Progress, Settle, Write, Written};

/// A delivery given up after three attempts; the letter is called `id`.
pub(super) fn dead(stage: &Stage<'_>, subscription: &str, offset: u64, id: &str) -> Settle {
    let dead = Dead { offset: Offset(offset), attempts: 3, reason: "status 503".into() };
    let changes = Changes { cursor: Offset(offset), dead: vec![dead], ..Changes::default() };
    let letters = vec![Letter { id: id.into(), event_type: "order.created".into() }];
    Settle { letters, ..settle(stage, subscription, changes) }
}

fn all(stage: &Stage<'_>) -> DeadQuery {
    DeadQuery {
        tenant: stage.tenant,
        subscription: None,
        event_type: None,
        since: None,
        open: false,
        before: None,
        limit: 1_000,
    }
}

/// The ids of what `query` finds.
async fn ids(stage: &Stage<'_>, query: DeadQuery) -> Vec<String> {
    let found = stage.store().dead_letters(query).await.unwrap();
    found.into_iter().map(|letter| letter.id.into()).collect()
}

/// The ids of the open ones of the tenant on stage.
pub(super) async fn open(stage: &Stage<'_>) -> Vec<String> {
    ids(stage, DeadQuery { open: true, ..all(stage) }).await
}

pub(super) fn close(stage: &Stage<'_>, ids: &[&str], became: DeadState) -> Write {
    Write::Close(stage.tenant, ids.iter().map(|id| (*id).into()).collect(), became)
}

pub(super) fn replayed(stage: &Stage<'_>) -> DeadState {
    DeadState::Replayed { at: stage.now }
}

async fn letter(stage: &Stage<'_>, id: &str) -> Option<DeadLetter> {
    stage.store().dead_letter(stage.tenant, id).await.unwrap()
}

pub(super) async fn a_delivery_has_one_open_letter(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.append(vec![draft("order.created"); 3]).await;
    stage.one(Write::Settle(dead(&stage, "wh_1", 2, "d1"))).await;
    let first = DeadLetter {
        id: "d1".into(),
        subscription: "wh_1".into(),
        tenant: stage.tenant,
        offset: Offset(2),
        event_type: "order.created".into(),
        attempts: 3,
        reason: "status 503".into(),
        at: stage.now,
        state: DeadState::Open,
    };
    assert_eq!(letter(&stage, "d1").await.as_ref(), Some(&first));
    // Given up again while the first one is open: it tells the newest attempt, and keeps its name.
    stage.pass(Duration::from_mins(1));
    let mut again = dead(&stage, "wh_1", 2, "d2");
    again.changes.dead[0] = Dead { offset: Offset(2), attempts: 4, reason: "timeout".into() };
    stage.one(Write::Settle(again)).await;
    let told = DeadLetter { attempts: 4, reason: "timeout".into(), at: stage.now, ..first.clone() };
    for _ in 0..2 {
        assert_eq!(letter(&stage, "d1").await.as_ref(), Some(&told));
        assert_eq!(letter(&stage, "d2").await, None);
        assert_eq!(stage.store().dead_counts().await.unwrap(), [("wh_1".into(), 1)]);
        stage.reopen();
    }
    // After a replay there is another one; a commit that is repeated makes none.
    stage.one(close(&stage, &["d1"], replayed(&stage))).await;
    let closed = DeadLetter { state: replayed(&stage), ..told };
    stage.one(Write::Settle(dead(&stage, "wh_1", 2, "d1"))).await;
    assert_eq!(letter(&stage, "d1").await.as_ref(), Some(&closed));
    assert_eq!(stage.store().dead_counts().await.unwrap(), []);
    stage.pass(Duration::from_mins(1));
    for _ in 0..2 {
        stage.one(Write::Settle(dead(&stage, "wh_1", 2, "d3"))).await;
        assert_eq!(ids(&stage, all(&stage)).await, ["d3", "d1"]);
    }
    for _ in 0..2 {
        assert_eq!(letter(&stage, "d1").await.as_ref(), Some(&closed));
        assert_eq!(letter(&stage, "d3").await, Some(DeadLetter { id: "d3".into(), at: stage.now, ..first.clone() }));
        assert_eq!(open(&stage).await, ["d3"]);
        stage.reopen();
    }
    let other = stage.add_tenant("other").await;
    assert_eq!(stage.store().dead_letter(other, "d1").await.unwrap(), None);
}

pub(super) async fn a_dead_delivery_has_a_row_only_for_what_follows(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.append(vec![draft("order.created"); 4]).await;
    let rows = vec![row(1, 1), row(2, 1), row(3, 1)];
    let waiting = Changes { cursor: Offset(4), rows, ..Changes::default() };
    stage.one(Write::Settle(settle(&stage, "wh_1", waiting))).await;
    let parked = Row { state: RowState::Parked, followers: Some(Offset(2)), ..row(2, 3) };
    let skipped = Row { state: RowState::Settled, followers: Some(Offset(3)), ..row(3, 3) };
    let mut settle = settle(&stage, "wh_1", Changes { cursor: Offset(4), ..Changes::default() });
    for (offset, id) in [(1, "d1"), (2, "d2"), (3, "d3")] {
        let dead = dead(&stage, "wh_1", offset, id);
        settle.changes.dead.extend(dead.changes.dead);
        settle.letters.extend(dead.letters);
    }
    settle.changes.rows = vec![parked.clone(), skipped.clone()];
    stage.one(Write::Settle(settle)).await;
    for _ in 0..2 {
        let kept = Progress { cursor: Offset(4), rows: vec![parked.clone(), skipped.clone()], ..Progress::default() };
        assert_eq!(stage.store().progress("wh_1").await.unwrap(), Some(kept));
        assert_eq!(open(&stage).await, ["d3", "d2", "d1"]);
        stage.reopen();
    }
}

pub(super) async fn dead_letters_are_listed_newest_first(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let other = stage.add_tenant("other").await;
    stage.append(vec![draft("order.created"); 30]).await;
    let mut letters = Vec::new();
    for number in 0..30_u64 {
        let subscription = ["wh_1", "wh_2", "wh_3"][usize::try_from(number % 3).unwrap()];
        let id = format!("d{number:02}");
        let mut settle = dead(&stage, subscription, number + 1, &id);
        settle.letters[0].event_type = if number % 5 == 0 { "user.created" } else { "order.created" }.into();
        let event_type = settle.letters[0].event_type.clone();
        stage.one(Write::Settle(settle)).await;
        letters.push((id, subscription, event_type, stage.now));
        stage.pass(Duration::from_secs(1));
    }
    stage.one(Write::Settle(Settle { tenant: other, ..dead(&stage, "wh_9", 1, "d99") })).await;
    let closed = ["d03", "d10", "d28"];
    stage.one(close(&stage, &closed, replayed(&stage))).await;
    stage.reopen();
    for (subscription, event_type, since, open) in [
        (None, None, None, false),
        (None, None, None, true),
        (Some("wh_2"), None, None, false),
        (Some("wh_2"), None, None, true),
        (None, Some("user.created"), None, false),
        (None, None, Some(20), false),
        (Some("wh_1"), Some("order.created"), Some(10), true),
        (Some("wh_9"), None, None, false),
    ] {
        let since = since.map(|seconds| START.plus(Duration::from_secs(seconds)));
        let mut expected: Vec<_> = letters
            .iter()
            .filter(|(id, of, kind, at)| {
                subscription.is_none_or(|wanted| wanted == *of)
                    && event_type.is_none_or(|wanted| *wanted == **kind)
                    && since.is_none_or(|since| *at >= since)
                    && !(open && closed.contains(&&**id))
            })
            .map(|(id, ..)| id.clone())
            .collect();
        expected.reverse();
        let (subscription, event_type) = (subscription.map(Into::into), event_type.map(Into::into));
        for limit in [1, 4, 1_000] {
            let mut found: Vec<String> = Vec::new();
            loop {
                let (subscription, event_type) = (subscription.clone(), event_type.clone());
                let before = found.last().map(|id| id.as_str().into());
                let query = DeadQuery { subscription, event_type, since, open, before, limit, ..all(&stage) };
                let page = ids(&stage, query.clone()).await;
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                found.extend(page);
            }
            assert_eq!(found, expected, "{subscription:?} {event_type:?} {since:?} {open} by {limit}");
        }
    }
    let mut counts = stage.store().dead_counts().await.unwrap();
    counts.sort();
    let expected = [("wh_1", 9), ("wh_2", 8), ("wh_3", 10), ("wh_9", 1)];
    assert_eq!(counts, expected.map(|(name, count)| (name.into(), count)));
}

pub(super) async fn a_letter_is_closed_once(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let other = stage.add_tenant("other").await;
    stage.append(vec![draft("order.created"); 3]).await;
    for (offset, id) in [(1, "d1"), (2, "d2"), (3, "d3")] {
        stage.one(Write::Settle(dead(&stage, "wh_1", offset, id))).await;
    }
    let discarded = |stage: &Stage<'_>| DeadState::Discarded { at: stage.now, reason: "obsolete".into() };
    let (first, second) = (discarded(&stage), replayed(&stage));
    assert_eq!(stage.one(close(&stage, &["d1", "nobody"], first.clone())).await, Written::Done);
    stage.one(close(&stage, &["d2"], second.clone())).await;
    stage.pass(Duration::from_mins(1));
    // Closed ones stay as they are, open ones are not reopened, those of others are not reached.
    stage.one(close(&stage, &["d1"], replayed(&stage))).await;
    stage.one(close(&stage, &["d2"], discarded(&stage))).await;
    stage.one(close(&stage, &["d1", "d2", "d3"], DeadState::Open)).await;
    stage.one(Write::Close(other, vec!["d3".into()], replayed(&stage))).await;
    for _ in 0..2 {
        assert_eq!(letter(&stage, "d1").await.unwrap().state, first);
        assert_eq!(letter(&stage, "d2").await.unwrap().state, second);
        assert_eq!(letter(&stage, "d3").await.unwrap().state, DeadState::Open);
        assert_eq!(stage.store().dead_counts().await.unwrap(), [("wh_1".into(), 1)]);
        assert_eq!(ids(&stage, all(&stage)).await, ["d3", "d2", "d1"], "a closed one is not lost");
        stage.reopen();
    }
}
