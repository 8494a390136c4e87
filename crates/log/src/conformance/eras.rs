//! Laws of eras: offsets jump, so that a cursor of a lost past is noticed.

use tidings_core::filter::Filter;
use tidings_core::offset::Offset;

use super::Engine;
use super::stage::{Stage, about, draft, offsets, types, with_id};
use crate::query::Query;
use crate::store::{Extent, Write, Written};

const ERA: u64 = 1 << 30;

pub(super) async fn an_era_jumps_and_is_explained(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.append(vec![about("o1", draft("order.created")), about("o1", with_id("a", draft("order.paid")))]).await;
    for _ in 0..2 {
        // A second one without an event between is the same.
        assert_eq!(stage.one(Write::Era(stage.tenant)).await, Written::Done);
        let extent = Extent { first: Offset(1), head: Offset(ERA - 1), era: Offset(ERA) };
        assert_eq!(stage.store().extent(stage.tenant), extent);
        assert_eq!(offsets(&stage.log().await), [1, 2]);
        stage.reopen();
    }
    let next = stage.say(about("o1", draft("order.shipped"))).await;
    assert_eq!((next.offset.0, next.sequence), (ERA, Some(3)));
    assert!(stage.say(about("o1", with_id("a", draft("order.paid")))).await.duplicate);
    stage.one(Write::Era(stage.tenant)).await;
    stage.say(draft("order.created")).await;
    for _ in 0..2 {
        let expected = [1, 2, ERA, 2 * ERA];
        assert_eq!(offsets(&stage.log().await), expected);
        assert_eq!(offsets(&stage.read(types(&["order.*"])).await), expected);
        let aggregate = about("o1", draft("a.b")).aggregate;
        assert_eq!(offsets(&stage.read(Filter { aggregate, ..Filter::default() }).await), expected[..3]);
        let page = stage.store().read(Query::after(stage.tenant, Offset(2), 1)).await.unwrap();
        assert_eq!((offsets(&page.events), page.more), (vec![ERA], true));
        for (cursor, era) in [
            (0, None),
            (2, None),
            (3, Some(ERA)),
            (ERA - 2, Some(ERA)),
            (ERA - 1, None),
            (ERA, None),
            (ERA + 1, Some(2 * ERA)),
            (2 * ERA, None),
            (2 * ERA + 7, None),
        ] {
            assert_eq!(stage.store().replaced_by(stage.tenant, Offset(cursor)), era.map(Offset), "{cursor}");
        }
        engine.rest().await;
        stage.assert_whole();
        stage.reopen();
    }
}

pub(super) async fn retention_crosses_an_era(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.say(draft("order.created")).await;
    stage.one(Write::Era(stage.tenant)).await;
    stage.append(vec![draft("order.created"); 3]).await;
    engine.rest().await;
    let mut firsts = Vec::new();
    for through in [1, 2, ERA - 1, ERA + 2] {
        firsts.push(stage.one(Write::Trim(stage.tenant, Offset(through))).await);
        stage.assert_whole();
    }
    let expected = [ERA, ERA, ERA, ERA + 3].map(|first| Written::Trimmed(Offset(first)));
    assert_eq!(firsts, expected);
    stage.one(Write::Era(stage.tenant)).await;
    for _ in 0..2 {
        let extent = Extent { first: Offset(2 * ERA), head: Offset(2 * ERA - 1), era: Offset(2 * ERA) };
        assert_eq!(stage.store().extent(stage.tenant), extent);
        stage.assert_whole();
        stage.reopen();
    }
    assert_eq!(stage.say(draft("order.created")).await.offset.0, 2 * ERA);
    engine.rest().await;
    stage.assert_whole();
    assert_eq!(offsets(&stage.log().await), [2 * ERA]);
}
