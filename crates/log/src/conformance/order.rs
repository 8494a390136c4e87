//! Laws of order and sight: dense offsets, readers that skip nothing, time that does not go back, walls between tenants.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::filter::Filter;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tokio::task::JoinSet;

use super::Engine;
use super::chance::Chance;
use super::stage::{START, Stage, about, appended, channels, draft, prepare, to, types, with_id};
use crate::event::Tenant;
use crate::query::Query;
use crate::store::{Append, Appended, Document, Expect, Kind, Owner, Store, Write, Written};

const COMMITTERS: u64 = 64;

/// Many committers at once, each with batches of its own, one after the other.
fn committers(stage: &Stage<'_>, count: u64, batches: u64) -> JoinSet<Vec<Appended>> {
    let mut tasks = JoinSet::new();
    for seed in 0..count {
        let (store, tenant) = (Arc::clone(stage.store()), stage.tenant);
        tasks.spawn(async move { commit_batches(&*store, tenant, seed, batches).await });
    }
    tasks
}

async fn commit_batches(store: &dyn Store, tenant: Tenant, seed: u64, batches: u64) -> Vec<Appended> {
    let mut chance = Chance::of(seed);
    let mut all = Vec::new();
    for _ in 0..batches {
        let size = 1 + chance.below(5);
        let events = (0..size).map(|_| prepare(tenant, draft("order.created"), START, &mut chance)).collect();
        let write = Write::Append(Append { tenant, events, request: None });
        let results = appended(store.commit(START, vec![write]).await);
        assert!(
            results.windows(2).all(|pair| pair[1].offset == pair[0].offset.next()),
            "a batch was torn: {results:?}"
        );
        all.extend(results);
    }
    all
}

pub(super) async fn offsets_are_dense_in_commit_order(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let mut answered = Vec::new();
    let mut tasks = committers(&stage, COMMITTERS, 8);
    while let Some(results) = tasks.join_next().await {
        let results = results.unwrap();
        // Who waits for an answer before it goes on sees its own order kept.
        assert!(results.windows(2).all(|pair| pair[0].offset < pair[1].offset));
        answered.extend(results);
    }
    answered.sort_by_key(|appended| appended.offset);
    let offsets: Vec<u64> = answered.iter().map(|appended| appended.offset.0).collect();
    assert_eq!(offsets, (1..=answered.len() as u64).collect::<Vec<_>>());
    for _ in 0..2 {
        let log = stage.log().await;
        assert!(
            log.iter().map(|event| (event.offset, &event.subject.id)).eq(answered.iter().map(|a| (a.offset, &a.id)))
        );
        assert_eq!(stage.store().extent(stage.tenant).head.0, answered.len() as u64);
        stage.reopen();
    }
}

pub(super) async fn readers_never_skip(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let mut tails = JoinSet::new();
    for limit in [1, 7, 1_000] {
        let (store, tenant) = (Arc::clone(stage.store()), stage.tenant);
        tails.spawn(async move { follow(&*store, tenant, limit).await });
    }
    let mut tasks = committers(&stage, 16, 40);
    while let Some(results) = tasks.join_next().await {
        results.unwrap();
    }
    let last = stage.say(draft("log.ended")).await.offset;
    while let Some(seen) = tails.join_next().await {
        assert_eq!(seen.unwrap(), (1..=last.0).collect::<Vec<_>>());
    }
}

/// Follows the log until `log.ended`, by the tail and by pages in turns.
async fn follow(store: &dyn Store, tenant: Tenant, limit: usize) -> Vec<u64> {
    let mut watch = store.tail().watch(tenant);
    let mut seen = Vec::new();
    let mut cursor = Offset::BEFORE_FIRST;
    loop {
        watch.borrow_and_update();
        for by_tail in [true, false] {
            let recent = by_tail.then(|| store.tail().after(tenant, cursor, limit)).flatten();
            let events = if let Some(events) = recent {
                cursor = events.last().map_or(cursor, |event| event.offset);
                events
            } else {
                let page = store.read(Query::after(tenant, cursor, limit)).await.unwrap();
                cursor = page.reached;
                page.events
            };
            seen.extend(events.iter().map(|event| event.offset.0));
            if events.last().is_some_and(|event| event.subject.event_type.as_str() == "log.ended") {
                return seen;
            }
        }
        if cursor >= store.extent(tenant).head {
            let waited = tokio::time::timeout(Duration::from_secs(20), watch.changed()).await;
            waited.expect("a follower was not woken").unwrap();
        }
    }
}

pub(super) async fn recorded_never_goes_back(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let mut latest = START;
    for step_ms in [0, 500, -10_000, 3, -1, 20_000, -40_000] {
        stage.now = Timestamp::from_millis(stage.now.as_millis() + step_ms);
        latest = latest.max(stage.now);
        let appended = stage.say(draft("order.created")).await;
        assert_eq!(stage.find(&appended.id).await.unwrap().recorded, latest);
    }
    stage.reopen();
    let after = stage.say(draft("order.created")).await;
    assert_eq!(stage.find(&after.id).await.unwrap().recorded, latest);
    engine.rest().await;
    stage.assert_whole();
}

pub(super) async fn what_was_answered_can_be_read(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let store = Arc::clone(stage.store());
    for round in 1..=100_u64 {
        let aggregate = format!("o{round}");
        let event = to(&[&format!("user:{round}")], about(&aggregate, draft("order.created")));
        let document = Document {
            kind: Kind::Setting,
            owner: Owner::Operator,
            id: "round".into(),
            revision: 0,
            body: aggregate.clone().into_bytes(),
        };
        let writes = vec![stage.appending(vec![event]), Write::Put(document, Expect::Any)];
        let written = stage.commit(writes).await.unwrap();
        let [Written::Appended { results, .. }, Written::Put(revision)] = &written[..] else { panic!("{written:?}") };
        let offset = results[0].offset;
        assert_eq!((offset, *revision), (Offset(round), round));
        assert_eq!(store.extent(stage.tenant).head, offset);
        assert_eq!(*store.tail().watch(stage.tenant).borrow(), offset);
        let tail = store.tail().after(stage.tenant, Offset(round - 1), 10).unwrap();
        let scanned = store.read(Query::after(stage.tenant, Offset(round - 1), 10)).await.unwrap().events;
        let mut filter = Filter { channels: channels(&[&format!("user:{round}")]), ..types(&["order.*"]) };
        let by_channel = stage.read(filter.clone()).await;
        filter.channels.clear();
        filter.aggregate = tail[0].subject.aggregate.clone();
        let by_aggregate = stage.read(filter).await;
        let found = vec![stage.find(&results[0].id).await.unwrap()];
        for events in [tail, scanned, by_channel, by_aggregate, found] {
            assert_eq!(events.len(), 1);
            assert_eq!(events[0].offset, offset);
            assert_eq!(events[0].sequence, Some(1));
        }
        let document = store.get(Kind::Setting, Owner::Operator, "round").await.unwrap().unwrap();
        assert_eq!((document.revision, document.body), (round, aggregate.into_bytes()));
    }
}

pub(super) async fn tenants_do_not_see_each_other(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let other = stage.add_tenant("other").await;
    assert_eq!(stage.add_tenant("acme").await, stage.tenant);
    let same = with_id("same", about("o1", to(&["user:1"], draft("order.created"))));
    for tenant in [stage.tenant, other, other] {
        let write = stage.appending_to(tenant, vec![same.clone(), about("o1", draft("order.paid"))], None);
        appended(stage.commit(vec![write]).await);
    }
    for _ in 0..2 {
        for (tenant, count) in [(stage.tenant, 2), (other, 3)] {
            let log = stage.read_of(tenant, Filter::everything()).await;
            assert_eq!(log.iter().map(|event| event.offset.0).collect::<Vec<_>>(), (1..=count).collect::<Vec<_>>());
            assert!(log.iter().all(|event| event.tenant == tenant && event.sequence == Some(event.offset.0)));
            assert_eq!(stage.read_of(tenant, types(&["order.created"])).await.len(), 1);
            let by_channel = Filter { channels: channels(&["user:1"]), ..Filter::default() };
            assert_eq!(stage.read_of(tenant, by_channel).await[0].tenant, tenant);
            let found = stage.store().find(tenant, &log[0].subject.id).await.unwrap().unwrap();
            assert_eq!((found.tenant, found.offset), (tenant, Offset(1)));
            assert_eq!(stage.store().extent(tenant).head.0, count);
        }
        let names: Vec<_> =
            stage.store().tenants().into_iter().map(|(tenant, name)| (tenant, name.to_string())).collect();
        assert_eq!(names, [(stage.tenant, "acme".to_owned()), (other, "other".to_owned())]);
        engine.rest().await;
        stage.reopen();
    }
    let same = stage.log().await[0].subject.id.clone();
    stage.one(Write::Erase(other, same.clone())).await;
    assert!(stage.find(&same).await.unwrap().bytes().is_some());
}
