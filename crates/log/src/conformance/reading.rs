//! Laws of reading: every filter, in both directions, page by page, wherever the events are.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::event::Subject;
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::Engine;
use super::chance::Chance;
use super::stage::{START, Stage, about, appended, channels, draft, to, types};
use crate::query::{Frame, Framed, Order, Page, Query};
use crate::store::Write;

const TYPES: [&str; 8] = [
    "order.created",
    "order.item.added",
    "order.item.removed",
    "orders.created",
    "cart.closed",
    "a.b.c.d.e.f.g.h.i.j",
    "a.b.c.d.e.f.g.h.i.k",
    "tidings.key.created",
];
const PATTERNS: [&str; 9] = [
    "*",
    "order.*",
    "order.item.*",
    "a.*",
    "a.b.c.d.e.f.g.h.i.*",
    "tidings.*",
    "order.created",
    "cart.closed",
    "none.here",
];
const CHANNELS: [&str; 5] = ["user:1", "user:2", "user:3", "team:1", "nobody"];

/// What the log should have.
type Model = Vec<(u64, Subject)>;

fn some_events(chance: &mut Chance, count: usize) -> Vec<tidings_core::event::Draft> {
    let event = |_| {
        let mut event = draft(chance.pick::<&str>(&TYPES));
        if chance.once_in(2) {
            event = about(&format!("o{}", chance.below(40)), event);
        }
        let names: Vec<&str> = CHANNELS[..4].iter().copied().filter(|_| chance.once_in(4)).collect();
        to(&names, event)
    };
    (0..count).map(event).collect()
}

fn some_filter(chance: &mut Chance) -> Filter {
    let some = |chance: &mut Chance, from: &[&'static str]| -> Vec<&'static str> {
        (0..chance.below(4)).map(|_| *chance.pick(from)).collect()
    };
    let patterns = if chance.once_in(3) { some(chance, &TYPES) } else { some(chance, &PATTERNS) };
    Filter {
        types: patterns.into_iter().map(|pattern| TypePattern::parse(pattern).unwrap()).collect(),
        channels: if chance.once_in(2) { channels(&some(chance, &CHANNELS)) } else { Vec::new() },
        aggregate: chance
            .once_in(4)
            .then(|| about(&format!("o{}", chance.below(42)), draft("a.b")).aggregate)
            .flatten(),
        confined: chance.once_in(5).then(|| channels(&some(chance, &CHANNELS))),
    }
}

async fn extend(stage: &mut Stage<'_>, model: &mut Model, count: usize) {
    for begin in (0..count).step_by(400) {
        let batch = some_events(&mut stage.chance, (count - begin).min(400));
        let write = stage.appending(batch);
        let Write::Append(append) = &write else { unreachable!("an append") };
        let subjects: Vec<Subject> = append.events.iter().map(|event| event.encoded.subject.clone()).collect();
        let results = appended(stage.commit(vec![write]).await);
        model.extend(results.into_iter().map(|appended| appended.offset.0).zip(subjects));
    }
}

pub(super) async fn every_filter_equals_a_naive_one(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let mut model = Model::new();
    extend(&mut stage, &mut model, 6_000).await;
    check(&mut stage, &model, 60).await;
    engine.rest().await;
    check(&mut stage, &model, 60).await;
    // Part of it on disk, part in memory.
    extend(&mut stage, &mut model, 2_000).await;
    check(&mut stage, &model, 120).await;
    stage.reopen();
    check(&mut stage, &model, 60).await;
    extend(&mut stage, &mut model, 500).await;
    check(&mut stage, &model, 60).await;
    // More than a flush takes at once, and reads while it is written.
    stage.one(Write::Era(stage.tenant)).await;
    extend(&mut stage, &mut model, 17_000).await;
    check(&mut stage, &model, 60).await;
    engine.rest().await;
    check(&mut stage, &model, 30).await;
}

async fn check(stage: &mut Stage<'_>, model: &Model, rounds: usize) {
    let head = model.last().unwrap().0;
    for _ in 0..rounds {
        let filter = some_filter(&mut stage.chance);
        let order = *stage.chance.pick(&[Order::Ascending, Order::Descending]);
        let after = if stage.chance.once_in(2) { 0 } else { stage.chance.pick(model).0 };
        let through = stage.chance.once_in(2).then(|| stage.chance.below(head + 10));
        let limit = *stage.chance.pick(&[1, 3, 100, 1_000]);
        let mut naive: Vec<u64> = model
            .iter()
            .filter(|(offset, subject)| {
                *offset > after && through.is_none_or(|through| *offset <= through) && filter.matches(subject)
            })
            .map(|(offset, _)| *offset)
            .collect();
        if order == Order::Descending {
            naive.reverse();
        }
        // Pages of one would take for ever to the end.
        let enough = limit * 8;
        naive.truncate(enough);
        let (after, through) = (Offset(after), through.map(Offset));
        let query = Query { tenant: stage.tenant, filter, after, through, order, limit };
        let found = page_by_page(stage, &query, enough).await;
        assert_eq!(found, naive, "{query:?}");
    }
}

/// The first `enough` offsets that a query finds.
async fn page_by_page(stage: &Stage<'_>, query: &Query, enough: usize) -> Vec<u64> {
    let mut query = query.clone();
    let mut found = Vec::new();
    loop {
        let page = stage.store().read(query.clone()).await.unwrap();
        assert!(page.events.len() <= query.limit);
        assert!(page.events.iter().all(|event| query.filter.matches(&event.subject)));
        check_frames(stage, &query, &page).await;
        found.extend(page.events.iter().map(|event| event.offset.0));
        if !page.more || found.len() >= enough {
            found.truncate(enough);
            return found;
        }
        match query.order {
            Order::Ascending => query.after = page.reached,
            Order::Descending => query.through = Some(Offset(page.reached.0 - 1)),
        }
    }
}

/// A page of frames is the page of events, framed; what may be so large and no larger is its beginning.
async fn check_frames(stage: &Stage<'_>, query: &Query, page: &Page) {
    let framed = stage.store().frame(query.clone(), usize::MAX, in_lines()).await.unwrap();
    let same = Framed::of(&page.events, page.reached, usize::MAX, &in_lines());
    assert_eq!(framed, Framed { more: page.more, first: page.first, ..same }, "{query:?}");
    if let [(_, one), (_, two), _, ..] = framed.ends[..] {
        let short = stage.store().frame(query.clone(), one + 1, in_lines()).await.unwrap();
        assert_eq!((&short.bytes[..], &short.ends[..]), (&framed.bytes[..two], &framed.ends[..2]), "{query:?}");
        assert!(short.more);
        let beyond = Query {
            after: if query.order == Order::Ascending { short.reached } else { query.after },
            through: if query.order == Order::Descending { Some(Offset(short.reached.0 - 1)) } else { query.through },
            limit: 1,
            ..query.clone()
        };
        let next = stage.store().frame(beyond, 1, in_lines()).await.unwrap();
        assert_eq!(next.ends.first().map(|(offset, _)| *offset), Some(framed.ends[2].0), "{query:?}");
    }
}

/// Frames an event as its number and its envelope, on a line.
fn in_lines() -> Frame {
    Box::new(|out, record| {
        out.extend_from_slice(record.offset.to_string().as_bytes());
        out.extend(record.envelope().concat());
        out.push(b'\n');
    })
}

pub(super) async fn operational_events_must_be_named(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let event_types = ["order.created", "tidings.key.created", "tidings.delivery.dead_lettered"];
    stage.append(event_types.map(draft).to_vec()).await;
    for (patterns, expected) in [
        (&[][..], vec![1]),
        (&["*"], vec![1]),
        (&["tidings.*"], vec![2, 3]),
        (&["tidings.key.created"], vec![2]),
        (&["*", "tidings.delivery.*"], vec![1, 3]),
    ] {
        let events = stage.read(types(patterns)).await;
        assert_eq!(super::stage::offsets(&events), expected, "{patterns:?}");
    }
}

pub(super) async fn before_is_the_last_offset_before_a_time(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    assert_eq!(stage.store().before(stage.tenant, START).await, Ok(Offset(0)));
    let mut model: Vec<(u64, Timestamp)> = Vec::new();
    for round in 0..60 {
        for _ in 0..stage.chance.below(4) {
            let appended = stage.say(draft("order.created")).await;
            model.push((appended.offset.0, stage.now));
        }
        let pause = stage.chance.below(20);
        stage.pass(Duration::from_millis(pause));
        if round == 30 {
            stage.one(Write::Era(stage.tenant)).await;
        }
    }
    for _ in 0..2 {
        for ms in START.as_millis() - 2..stage.now.as_millis() + 2 {
            let time = Timestamp::from_millis(ms);
            let naive = model.iter().rev().find(|(_, recorded)| *recorded < time).map_or(0, |(offset, _)| *offset);
            assert_eq!(stage.store().before(stage.tenant, time).await, Ok(Offset(naive)), "{ms} ms");
        }
        stage.one(Write::Era(stage.tenant)).await;
        let store = Arc::clone(stage.store());
        assert_eq!(
            store.before(stage.tenant, stage.now.plus(Duration::from_secs(1))).await.unwrap().0,
            model.last().unwrap().0
        );
        drop(store);
        stage.reopen();
    }
}
