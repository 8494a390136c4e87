//! Laws of how far subscriptions are.

use tidings_core::lane::{Acks, Changes, Row, RowState};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::Engine;
use super::history::attempt;
use super::letters::{dead, open};
use super::stage::{Stage, draft};
use crate::store::{Progress, Settle, Sweep, Swept, Write, Written};

/// A delivery that waits after `attempts` attempts.
pub(super) fn row(offset: u64, attempts: u32) -> Row {
    let due = Timestamp::from_millis(1_000 + i64::from(attempts));
    Row { offset: Offset(offset), attempts, due, reason: format!("status {attempts}").into(), ..Row::default() }
}

pub(super) fn settle(stage: &Stage<'_>, subscription: &str, changes: Changes) -> Settle {
    Settle { subscription: subscription.into(), tenant: stage.tenant, changes, ..Settle::default() }
}

pub(super) fn sweep(stage: &Stage<'_>, slot: u8, through: u64, current: &[&str]) -> Write {
    let current = current.iter().map(|name| (*name).into()).collect();
    Write::Sweep(Sweep { tenant: stage.tenant, slot, through: Offset(through), current })
}

fn through(cursor: u64) -> Changes {
    Changes { cursor: Offset(cursor), ..Changes::default() }
}

fn at(cursor: u64) -> Progress {
    Progress { cursor: Offset(cursor), ..Progress::default() }
}

async fn progress(stage: &Stage<'_>, subscription: &str) -> Option<Progress> {
    stage.store().progress(subscription).await.unwrap()
}

pub(super) async fn progress_is_kept(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.append(vec![draft("order.created"); 9]).await;
    assert_eq!(progress(&stage, "wh_1").await, None);
    let mut acks = Acks::default();
    for offset in [Offset(6), Offset(7), Offset(4_096)] {
        acks.insert(offset);
    }
    let parked = Row { state: RowState::Parked, followers: Some(Offset(3)), ..row(3, 4) };
    let counted = Row { state: RowState::Counted, ..row(3, 5) };
    let replayed = Row { state: RowState::Settled, replay: Some("rp_1".into()), ..row(2, 1) };
    let steps = [
        (
            Changes { rows: vec![row(3, 1), row(2, 1)], acked: acks.to_bytes(Offset(4)), ..through(4) },
            vec![row(2, 1), row(3, 1)],
        ),
        (
            Changes {
                rows: vec![parked.clone(), row(1, 1)],
                cleared: vec![Offset(2), Offset(8)],
                acked: vec![0, 0, 0x80],
                ..through(4)
            },
            vec![row(1, 1), parked.clone()],
        ),
        // Everything of a row is replaced.
        (
            Changes { rows: vec![replayed.clone(), counted.clone()], ..through(6) },
            vec![row(1, 1), replayed.clone(), counted],
        ),
        (Changes { cleared: vec![Offset(1), Offset(3)], ..through(6) }, vec![replayed.clone()]),
        // The same again changes nothing: an answer that was lost is repeated.
        (Changes { cleared: vec![Offset(1), Offset(3)], ..through(6) }, vec![replayed]),
    ];
    stage.one(Write::Settle(settle(&stage, "wh_2", Changes { rows: vec![row(1, 7)], ..through(1) }))).await;
    for (changes, rows) in steps {
        let kept = Progress { cursor: changes.cursor, acked: changes.acked.clone(), rows };
        assert_eq!(stage.one(Write::Settle(settle(&stage, "wh_1", changes))).await, Written::Done);
        for _ in 0..2 {
            assert_eq!(progress(&stage, "wh_1").await.as_ref(), Some(&kept));
            assert_eq!(progress(&stage, "wh_2").await, Some(Progress { rows: vec![row(1, 7)], ..at(1) }));
            stage.reopen();
        }
    }
}

pub(super) async fn a_sweep_takes_progress_away(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let other = stage.add_tenant("other").await;
    stage.append(vec![draft("order.created"); 9]).await;
    for name in ["wh_1", "wh_2", "wh_3"] {
        stage.one(Write::Settle(settle(&stage, name, Changes { rows: vec![row(1, 1)], ..through(4) }))).await;
    }
    stage.one(Write::Settle(dead(&stage, "wh_1", 2, "d1"))).await;
    let of_other = Sweep { tenant: other, slot: 7, through: Offset(1), current: Vec::new() };
    let writes =
        vec![sweep(&stage, 7, 5, &["wh_1", "wh_3", "nobody"]), sweep(&stage, 0, 9, &[]), Write::Sweep(of_other)];
    assert_eq!(stage.commit(writes).await.unwrap(), [Written::Done, Written::Done, Written::Done]);
    // A cursor never goes back, and what would go back takes nothing away.
    stage.one(sweep(&stage, 7, 4, &["wh_2"])).await;
    stage.one(sweep(&stage, 0, 9, &[])).await;
    let swept = |tenant, slot, through| Swept { tenant, slot, through: Offset(through) };
    for _ in 0..2 {
        let mut all = stage.store().swept().await.unwrap();
        all.sort_by_key(|swept| (swept.tenant, swept.slot));
        assert_eq!(all, [swept(stage.tenant, 0, 9), swept(stage.tenant, 7, 5), swept(other, 7, 1)]);
        assert_eq!(progress(&stage, "wh_1").await, None);
        assert_eq!(progress(&stage, "wh_2").await, Some(Progress { rows: vec![row(1, 1)], ..at(4) }));
        assert_eq!(progress(&stage, "wh_3").await, None);
        assert_eq!(open(&stage).await, ["d1"], "dead letters stay");
        stage.reopen();
    }
    // It falls behind again: nothing comes back.
    stage.one(Write::Settle(settle(&stage, "wh_1", through(6)))).await;
    assert_eq!(progress(&stage, "wh_1").await, Some(at(6)));
    stage.one(sweep(&stage, 7, 8, &["wh_1", "wh_2"])).await;
    assert_eq!((progress(&stage, "wh_1").await, progress(&stage, "wh_2").await), (None, None));
}

pub(super) async fn who_is_behind_is_listed_in_pages(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let other = stage.add_tenant("other").await;
    let mut names: Vec<String> = (0..30).rev().map(|number| format!("wh_{number:02}")).collect();
    for (place, name) in names.iter().enumerate() {
        let tenant = if place % 2 == 0 { stage.tenant } else { other };
        stage.one(Write::Settle(Settle { tenant, ..settle(&stage, name, through(1)) })).await;
    }
    stage.one(sweep(&stage, 1, 1, &["wh_04"])).await;
    stage.one(Write::Forget("wh_07".into())).await;
    names.retain(|name| name != "wh_04" && name != "wh_07");
    names.sort();
    stage.reopen();
    for limit in [1, 7, 28, 1_000] {
        let mut all: Vec<Box<str>> = Vec::new();
        loop {
            let after = all.last().cloned().unwrap_or_default();
            let page = stage.store().behind(&after, limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            all.extend(page.into_iter().map(|behind| behind.subscription));
        }
        assert_eq!(all.iter().map(|name| &**name).collect::<Vec<_>>(), names, "by {limit}");
    }
}

pub(super) async fn a_subscription_is_forgotten_whole(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.append(vec![draft("order.created"); 3]).await;
    for (name, letter) in [("wh_1", "d1"), ("wh_2", "d2")] {
        let attempts = vec![attempt(name, 1, 1), attempt(name, 2, 1)];
        stage.one(Write::Settle(Settle { attempts, ..dead(&stage, name, 1, letter) })).await;
        let changes = Changes { rows: vec![row(2, 1)], ..through(2) };
        stage.one(Write::Settle(settle(&stage, name, changes))).await;
    }
    stage.one(Write::Forget("wh_1".into())).await;
    for _ in 0..2 {
        let store = stage.store();
        assert_eq!(progress(&stage, "wh_1").await, None);
        assert_eq!(store.history("wh_1", None, 9).await.unwrap(), []);
        assert_eq!(store.attempts(stage.tenant, Offset(1), 9).await.unwrap(), [attempt("wh_2", 1, 1)]);
        assert_eq!(store.dead_letter(stage.tenant, "d1").await.unwrap(), None);
        assert_eq!(open(&stage).await, ["d2"]);
        assert_eq!(store.dead_counts().await.unwrap(), [("wh_2".into(), 1)]);
        assert_eq!(progress(&stage, "wh_2").await, Some(Progress { rows: vec![row(2, 1)], ..at(2) }));
        assert_eq!(store.history("wh_2", None, 9).await.unwrap().len(), 2);
        stage.reopen();
    }
    // Who comes under the same name is new.
    stage.one(Write::Settle(settle(&stage, "wh_1", through(3)))).await;
    assert_eq!(progress(&stage, "wh_1").await, Some(at(3)));
    stage.one(Write::Forget("nobody".into())).await;
}
