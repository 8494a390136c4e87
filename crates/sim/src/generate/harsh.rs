//! Worlds in which the places disagree: many lanes that are behind, aggregates that wait, and crashes close together.

use std::time::Duration;

use tidings_core::event::{AggregateId, Channel};
use tidings_core::filter::Filter;
use tidings_core::lane::{OnExhausted, Ordering, Settings};
use tidings_core::rate::Rate;

use super::{CHANNELS, draft, schedule, troubles};
use crate::chance::Chance;
use crate::disk::Nature;
use crate::receiver::{Mood, Poison};
use crate::world::{Act, Hook, Order, World, at, types};

/// The harsh world of a seed.
pub(super) fn world(seed: u64) -> World {
    let mut chance = Chance::about(seed, &["harsh"]);
    let mut world = World::blank(seed);
    let length_ms = *chance.pick(&[2_000, 6_000, 20_000, 60_000]);
    let aggregates = chance.within(1..=3);
    for number in 0..chance.within(4..=14) {
        let hook = hook(&mut chance, &format!("wh_{number}"), length_ms, aggregates);
        world.hooks.push(hook);
    }
    publish(&mut chance, &mut world, length_ms, aggregates);
    orders(&mut chance, &mut world, length_ms);
    ends(&mut chance, &mut world, length_ms);
    world.disk = disk(&mut chance, length_ms);
    world
}

fn hook(chance: &mut Chance, name: &str, length_ms: u64, aggregates: u64) -> Hook {
    let mut hook = Hook::named(name);
    hook.filter = match chance.below(8) {
        0 => types(&["user.created"]),
        1 => types(&["order.*"]),
        2 => {
            let aggregate = AggregateId::parse(&format!("a{}", chance.below(aggregates))).expect("an id");
            Filter { aggregate: Some(aggregate), ..Filter::default() }
        }
        3 => {
            let confined = Some(vec![Channel::parse(chance.pick::<&str>(&CHANNELS)).expect("a channel")]);
            Filter { confined, ..Filter::default() }
        }
        4 => types(&["never.*"]),
        5 => types(&["*", "tidings.*"]),
        _ => Filter::default(),
    };
    let steps: &&[u64] = chance.pick(&[&[100], &[100, 100, 100], &[200, 400, 800], &[1_000, 2_000], &[5_000]]);
    hook.settings = Settings {
        schedule: schedule(steps),
        max_concurrency: usize::try_from(*chance.pick(&[1, 2, 16, 64])).unwrap_or(1),
        ordering: if chance.once_in(8) { Ordering::None } else { Ordering::Aggregate },
        on_exhausted: if chance.once_in(2) { OnExhausted::Park } else { OnExhausted::Skip },
        deactivate_after: *chance.pick(&[None, None, Some(2), Some(5)]),
        rate: if chance.once_in(10) { Rate::parse(chance.pick::<&str>(&["5/s", "50/s"])).ok() } else { None },
        pull: None,
    };
    let mut from = 0;
    while from < length_ms && chance.below(3) > 0 {
        let until = from + chance.within(1..=length_ms);
        let mood = match chance.below(8) {
            0 => Mood::Slow(chance.within(50..=2_000)),
            1 => Mood::Hanging,
            2 => Mood::Busy(Duration::from_millis(chance.within(100..=5_000))),
            3 if chance.once_in(3) => Mood::Gone,
            3 | 4 => Mood::Flapping(chance.within(5..=60)),
            5 => Mood::Down(*chance.pick(&[500, 503, 404])),
            _ => Mood::Well,
        };
        hook.moods.push((at(until), mood));
        from = until;
    }
    if chance.once_in(2) {
        hook.poison = Poison { fails: chance.within(3..=60), ..Poison::default() };
    }
    if chance.once_in(4) {
        hook.poison.rejected = chance.within(5..=60);
    }
    hook
}

fn publish(chance: &mut Chance, world: &mut World, length_ms: u64, aggregates: u64) {
    let mut number = 0;
    // A few have more of one aggregate than are read again at once.
    let sizes: &[u64] = if chance.once_in(3) { &[1, 12, 64] } else { &[1, 1, 1, 3, 12] };
    for _ in 0..chance.within(3..=40) {
        let moment = at(chance.below(length_ms));
        let batch = (0..*chance.pick(sizes))
            .map(|_| {
                number += 1;
                draft(chance, 0, number, aggregates, 8)
            })
            .collect();
        world.acts.push((moment, Act::Publish(0, batch)));
    }
}

fn orders(chance: &mut Chance, world: &mut World, length_ms: u64) {
    let calm = [Order::Restart, Order::ReplayDead, Order::Discard, Order::Pause, Order::Resume];
    let all = [
        Order::Pause,
        Order::Pause,
        Order::Resume,
        Order::Resume,
        Order::Activate,
        Order::Activate,
        Order::Restart,
        Order::Restart,
        Order::ReplayDead,
        Order::ReplayDead,
        Order::Discard,
        Order::ReplayAll,
        Order::ReplayUndelivered,
        Order::ActivateLatest,
    ];
    for hook in 0..world.hooks.len() {
        let orders: &[Order] = if chance.once_in(2) { &calm } else { &all };
        for _ in 0..*chance.pick(&[0, 0, 2, 6, 16]) {
            // Some come close together.
            let mut moment = chance.below(length_ms);
            for _ in 0..*chance.pick(&[1, 1, 1, 4]) {
                world.acts.push((at(moment), Act::Order(hook, *chance.pick(orders))));
                moment += chance.within(0..=40);
            }
        }
    }
}

fn ends(chance: &mut Chance, world: &mut World, length_ms: u64) {
    for _ in 0..chance.within(0..=4) {
        let mut moment = chance.below(length_ms);
        let longest = *chance.pick(&[5, 50, 500, 3_000]);
        for _ in 0..*chance.pick(&[1, 1, 3, 8]) {
            let longest_down = *chance.pick(&[0, 10, 1_000]);
            let down = chance.millis(0..=longest_down);
            let act = if chance.once_in(4) {
                Act::Stop { patience: Duration::from_millis(*chance.pick(&[0, 10, 100, 20_000])), down }
            } else {
                Act::Crash(down)
            };
            world.acts.push((at(moment), act));
            moment += u64::try_from(down.as_millis()).unwrap_or(0) + chance.within(1..=longest);
        }
    }
}

fn disk(chance: &mut Chance, length_ms: u64) -> Nature {
    let troubles = troubles(chance, 4, length_ms, 10_000);
    let reads_fail = (*chance.pick(&[0, 0, 3, 10, 50]), at(length_ms));
    Nature { commit_ms: *chance.pick(&[1, 4, 20]), read_ms: *chance.pick(&[0, 2, 10, 50, 200]), troubles, reads_fail }
}
