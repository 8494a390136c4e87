//! Laws of the chain and of retention.

use std::cell::Cell;
use std::time::Duration;

use tidings_core::filter::Filter;
use tidings_core::offset::Offset;

use super::Engine;
use super::stage::{Stage, about, appended, draft, offsets, types, with_id};
use crate::query::Query;
use crate::store::{Append, Appended, Write, Written};

/// Trims until nothing more goes; the first offset that stays.
pub(super) async fn trim(stage: &Stage<'_>, through: u64) -> u64 {
    let mut first = Offset(0);
    loop {
        match stage.one(Write::Trim(stage.tenant, Offset(through))).await {
            Written::Trimmed(now) if now == first => return first.0,
            Written::Trimmed(now) => first = now,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) async fn the_chain_covers_every_event(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    assert_eq!(stage.store().sealed(stage.tenant), None);
    let other = stage.add_tenant("other").await;
    for round in 1..=3_u64 {
        stage.fill(1_500).await;
        let event = stage.prepare(other, draft("order.created"));
        let write = Write::Append(Append { tenant: other, events: vec![event], request: None });
        appended(stage.commit(vec![write]).await);
        engine.rest().await;
        let report = engine.verify();
        assert!(report.is_whole(), "{:#?}", report.findings);
        for (tenant, count) in [(stage.tenant, round * 1_500), (other, round)] {
            let seal = stage.store().sealed(tenant).unwrap();
            let found = &report.tenants[tenant.0 as usize - 1];
            assert_eq!((seal.last.0, found.sealed_through, found.events, found.head), (count, count, count, count));
            assert_eq!((found.unsealed, found.first), (0, 1));
            assert_eq!(found.head_hash, tidings_core::chain::hex(&seal.hash));
        }
        stage.reopen();
    }
}

pub(super) async fn retention_takes_whole_seals(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.fill(3_000).await;
    engine.rest().await;
    stage.say(with_id("kept", draft("order.created"))).await;
    let before = stage.log().await;
    let first = trim(&stage, 2_500).await;
    assert!((1_025..=2_501).contains(&first), "{first}");
    assert_eq!(trim(&stage, first).await, first, "a seal was cut");
    for _ in 0..2 {
        assert_eq!(stage.store().extent(stage.tenant).first.0, first);
        assert_eq!(offsets(&stage.log().await), (first..=3_001).collect::<Vec<_>>());
        assert_eq!(stage.read(types(&["filler.added"])).await.len() as u64, 3_001 - first);
        let from_tail = stage.store().tail().after(stage.tenant, Offset(0), 10);
        assert!(from_tail.is_none(), "the tail says that nothing is missing");
        for event in &before {
            let kept = event.offset.0 >= first;
            assert_eq!(stage.find(&event.subject.id).await.is_some(), kept, "{}", event.offset);
        }
        stage.assert_whole();
        engine.rest().await;
        assert_eq!(engine.verify().tenants[0].first, first);
        stage.reopen();
    }
    assert!(stage.say(with_id("kept", draft("order.created"))).await.duplicate);
    assert_eq!(trim(&stage, 0).await, first);
}

/// What is missing of a page is what is before the offset that it names, also while retention goes on.
pub(super) async fn a_page_says_where_the_log_began(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.fill(8_000).await;
    engine.rest().await;
    let over = Cell::new(false);
    let retention = async {
        trim(&stage, 7_000).await;
        over.set(true);
    };
    let reads = async {
        let mut first = Offset(0);
        while !over.get() || first < stage.store().extent(stage.tenant).first {
            for filter in [Filter::everything(), types(&["filler.added"])] {
                let query = Query { filter, ..Query::after(stage.tenant, Offset(0), 1_000) };
                let page = stage.store().read(query).await.unwrap();
                assert_eq!(offsets(&page.events), (page.first.0..=page.reached.0).collect::<Vec<_>>());
                assert!(page.first >= first);
                first = page.first;
            }
        }
        assert!(first.0 > 1_024, "{first}");
    };
    tokio::join!(retention, reads);
}

pub(super) async fn numbers_go_on_when_everything_is_trimmed(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.append(vec![about("o1", draft("order.created")), about("o1", with_id("old", draft("order.paid")))]).await;
    let recorded = stage.log().await[1].recorded;
    engine.rest().await;
    let sealed = stage.store().sealed(stage.tenant).unwrap();
    assert_eq!(trim(&stage, 100).await, 3);
    for round in 0..2 {
        let extent = stage.store().extent(stage.tenant);
        assert_eq!((extent.first.0, extent.head.0), (3, 2), "round {round}");
        assert_eq!(offsets(&stage.log().await), [0; 0]);
        assert_eq!(stage.store().sealed(stage.tenant), Some(sealed));
        stage.assert_whole();
        stage.reopen();
    }
    stage.now = tidings_core::time::Timestamp::from_millis(recorded.as_millis() - 60_000);
    let next = stage.say(about("o1", with_id("old", draft("order.shipped")))).await;
    assert_eq!(next, Appended { id: next.id.clone(), offset: Offset(3), sequence: Some(3), duplicate: false });
    assert_eq!(stage.find(&next.id).await.unwrap().recorded, recorded);
    engine.rest().await;
    let seal = stage.store().sealed(stage.tenant).unwrap();
    assert_eq!((seal.first.0, seal.last.0), (3, 3));
    stage.assert_whole();
}

pub(super) async fn retention_waits_for_what_it_would_forget(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    // Sealed at once, but perhaps not known on disk by its aggregate yet.
    let batch: Vec<_> = (0..1_024).map(|_| about("o1", draft("order.changed"))).collect();
    stage.append(batch).await;
    for _ in 0..200 {
        if trim(&stage, 1_024).await > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(stage.store().extent(stage.tenant).first.0 > 1, "retention never came through");
    stage.reopen();
    assert_eq!(stage.say(about("o1", draft("order.changed"))).await.sequence, Some(1_025));
}
