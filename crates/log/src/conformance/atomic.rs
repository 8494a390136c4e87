//! Laws of all or none.

use tidings_core::lane::Changes;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;

use super::Engine;
use super::history::attempt;
use super::letters::{dead, open};
use super::progress::{row, settle, sweep};
use super::stage::{Stage, about, appended, draft, expecting, offsets, refusal, with_id};
use crate::store::{DeadState, Document, Expect, Kind, Owner, Progress, Refusal, RequestKey, Settle, Write, Written};

fn setting(id: &str, body: &str) -> Document {
    Document { kind: Kind::Setting, owner: Owner::Operator, id: id.into(), revision: 0, body: body.into() }
}

fn one_row() -> Changes {
    Changes { cursor: Offset(1), rows: vec![row(1, 1)], ..Changes::default() }
}

pub(super) async fn a_batch_with_a_refused_event_leaves_none(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.say(with_id("a", about("o1", draft("order.created")))).await;
    let batch = vec![
        about("o1", draft("order.changed")),
        with_id("b", about("o2", draft("order.created"))),
        expecting(9, about("o1", draft("order.changed"))),
    ];
    assert_eq!(stage.refusal(batch).await, Refusal::Sequence { index: 2, current: 2 });
    assert_eq!(offsets(&stage.log().await), [1]);
    let next =
        stage.append(vec![about("o1", draft("order.changed")), with_id("b", about("o2", draft("order.paid")))]).await;
    assert_eq!(next.iter().map(|a| (a.offset.0, a.sequence)).collect::<Vec<_>>(), [(2, Some(2)), (3, Some(1))]);
    stage.reopen();
    assert_eq!(offsets(&stage.log().await), [1, 2, 3]);
    engine.rest().await;
    stage.assert_whole();
}

pub(super) async fn a_unit_is_kept_whole(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let writes = vec![
        Write::Put(setting("a", "1"), Expect::New),
        stage.appending(vec![about("o1", draft("order.created"))]),
        Write::Settle(settle(&stage, "wh_1", one_row())),
        stage.appending(vec![expecting(1, about("o1", draft("order.paid")))]),
        Write::Put(setting("a", "2"), Expect::Revision(1)),
    ];
    let written = stage.commit(writes).await.unwrap();
    assert!(matches!(
        written[..],
        [Written::Put(1), Written::Appended { .. }, Written::Done, Written::Appended { .. }, Written::Put(2)]
    ));
    for _ in 0..2 {
        assert_eq!(offsets(&stage.log().await), [1, 2]);
        let document = stage.store().get(Kind::Setting, Owner::Operator, "a").await.unwrap().unwrap();
        assert_eq!((document.revision, &document.body[..]), (2, &b"2"[..]));
        assert_eq!(stage.store().progress("wh_1").await.unwrap().unwrap().rows, [row(1, 1)]);
        stage.reopen();
    }
}

pub(super) async fn a_refused_unit_leaves_nothing(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.one(Write::Put(setting("taken", "1"), Expect::New)).await;
    let first = stage.say(with_id("first", about("o1", draft("order.created")))).await;
    stage.one(Write::Settle(dead(&stage, "wh_2", 1, "d1"))).await;
    let extent = stage.store().extent(stage.tenant);
    let request = Some(RequestKey { key: [1; 32], body: [1; 32] });
    for last in [
        Write::Put(setting("taken", "2"), Expect::New),
        Write::Put(setting("a", "2"), Expect::Revision(9)),
        stage.appending(vec![expecting(7, about("o1", draft("order.paid")))]),
    ] {
        let writes = vec![
            Write::Tenant(TenantName::parse("ghost").unwrap()),
            Write::Put(setting("a", "1"), Expect::Any),
            Write::Remove(Kind::Setting, Owner::Operator, "taken".into()),
            Write::Put(setting("taken", "2"), Expect::New),
            stage.appending_to(stage.tenant, vec![with_id("b", about("o1", draft("order.paid")))], request.clone()),
            Write::Erase(stage.tenant, first.id.clone()),
            Write::Settle(settle(&stage, "wh_1", one_row())),
            Write::Settle(Settle { attempts: vec![attempt("wh_1", 1, 1)], ..dead(&stage, "wh_1", 1, "d2") }),
            Write::Close(stage.tenant, vec!["d1".into()], DeadState::Replayed { at: stage.now }),
            sweep(&stage, 3, 1, &["wh_2"]),
            Write::Forget("wh_2".into()),
            Write::Era(stage.tenant),
            last,
        ];
        refusal(stage.commit(writes).await);
        assert_eq!(stage.store().extent(stage.tenant), extent);
        assert_eq!(stage.store().tenants().len(), 1);
    }
    for _ in 0..2 {
        assert_eq!(offsets(&stage.log().await), [1]);
        assert!(stage.find(&first.id).await.unwrap().bytes().is_some());
        assert_eq!(stage.store().extent(stage.tenant), extent);
        assert_eq!(stage.store().progress("wh_1").await.unwrap(), None);
        assert_eq!(
            stage.store().progress("wh_2").await.unwrap(),
            Some(Progress { cursor: Offset(1), ..Progress::default() })
        );
        assert_eq!(stage.store().swept().await.unwrap(), []);
        assert_eq!(stage.store().history("wh_1", None, 9).await.unwrap(), []);
        assert_eq!(open(&stage).await, ["d1"]);
        assert_eq!(stage.store().get(Kind::Setting, Owner::Operator, "a").await.unwrap(), None);
        let taken = stage.store().get(Kind::Setting, Owner::Operator, "taken").await.unwrap().unwrap();
        assert_eq!((taken.revision, &taken.body[..]), (1, &b"1"[..]));
        stage.reopen();
    }
    let write = stage.appending_to(stage.tenant, vec![with_id("b", about("o1", draft("order.changed")))], request);
    let results = appended(stage.commit(vec![write]).await);
    assert_eq!((results[0].offset.0, results[0].sequence, results[0].duplicate), (2, Some(2), false));
    assert_eq!(stage.add_tenant("ghost").await.0, stage.tenant.0 + 1);
}

pub(super) async fn a_refusal_disturbs_no_neighbour(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.one(Write::Put(setting("taken", "1"), Expect::New)).await;
    let mut under_way = Vec::new();
    for number in 0..300_u64 {
        let good = about("o1", draft("order.changed"));
        let answer = match number % 3 {
            0 => stage.begin(vec![good]),
            1 => stage.begin(vec![good, expecting(1_000, about("o2", draft("order.changed")))]),
            _ => {
                let write = stage.appending(vec![good]);
                stage.commit(vec![write, Write::Put(setting("taken", "2"), Expect::New)])
            }
        };
        under_way.push((number, answer));
    }
    for (number, answer) in under_way {
        let answer = answer.await;
        match number % 3 {
            0 => assert_eq!(appended(answer)[0].sequence, Some(number / 3 + 1)),
            1 => assert_eq!(refusal(answer), Refusal::Sequence { index: 1, current: 0 }),
            _ => assert_eq!(refusal(answer), Refusal::Revision),
        }
    }
    assert_eq!(offsets(&stage.log().await), (1..=100).collect::<Vec<_>>());
    engine.rest().await;
    stage.assert_whole();
}

/// Documents so large that what is handed over does not fit one transaction.
const LARGE_BYTES: usize = 64 << 10;
const HANDED_OVER: u64 = 120;

pub(super) async fn what_is_handed_over_in_order_is_applied_in_order(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let mut under_way = Vec::new();
    for number in 1..=HANDED_OVER {
        let cursor = Changes { cursor: Offset(number), ..Changes::default() };
        let large = setting("a", &"x".repeat(LARGE_BYTES));
        // Each of them fails, or leaves something else, in another place.
        under_way.push(stage.commit(vec![Write::Put(large, Expect::Revision(number - 1))]));
        under_way.push(stage.begin(vec![expecting(number - 1, about("o1", draft("order.changed")))]));
        under_way.push(stage.commit(vec![Write::Settle(settle(&stage, "wh_1", cursor))]));
        if number < HANDED_OVER {
            under_way.push(stage.commit(vec![sweep(&stage, 7, number, &["wh_1"])]));
            // Nobody waits for this one; it has its place all the same.
            drop(stage.commit(vec![Write::Put(setting("b", ""), Expect::Any)]));
        } else {
            under_way.push(stage.commit(vec![Write::Put(setting("b", ""), Expect::Revision(number - 1))]));
        }
    }
    // The answers are asked for the other way round.
    for answer in under_way.into_iter().rev() {
        answer.await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(stage.log().await.last().unwrap().sequence, Some(HANDED_OVER));
        let last = Progress { cursor: Offset(HANDED_OVER), ..Progress::default() };
        assert_eq!(stage.store().progress("wh_1").await.unwrap(), Some(last), "the last sweep came before");
        assert_eq!(stage.store().swept().await.unwrap()[0].through, Offset(HANDED_OVER - 1));
        stage.reopen();
    }
}
