//! A world made from a seed.

mod harsh;

use std::ops::RangeInclusive;
use std::time::Duration;

use tidings_core::event::{Channel, Draft};
use tidings_core::filter::Filter;
use tidings_core::lane::{OnExhausted, Ordering, Pull, Settings};
use tidings_core::rate::Rate;
use tidings_core::retry::Schedule;
use tidings_log::Unavailable;

use crate::chance::Chance;
use crate::disk::{Nature, Trouble};
use crate::receiver::{Mood, Poison};
use crate::workers::Workers;
use crate::world::{Act, Hook, Order, World, at, event, types};

const TYPES: [&str; 4] = ["order.created", "order.item.added", "cart.closed", "user.created"];
const CHANNELS: [&str; 3] = ["user:1", "user:2", "team:1"];

/// Of so many worlds one is harsh.
const HARSH_ONCE_IN: u64 = 8;

/// The world of a seed.
pub fn world(seed: u64) -> World {
    if Chance::about(seed, &["kind"]).once_in(HARSH_ONCE_IN) { harsh(seed) } else { plain(seed) }
}

/// A world of the harsh kind: in it the places of sweepers, slots and lanes disagree often.
pub fn harsh(seed: u64) -> World {
    let mut world = harsh::world(seed);
    killers(seed, &mut world, 100..=600);
    consumers(seed, &mut world);
    world.acts.sort_by_key(|(at, _)| *at);
    world
}

fn plain(seed: u64) -> World {
    let mut chance = Chance::about(seed, &["world"]);
    let mut world = World::blank(seed);
    world.tenants = usize::try_from(chance.within(1..=2)).unwrap_or(1);
    // Most worlds last minutes, some days.
    let length_ms = *chance.pick(&[5_000, 20_000, 60_000, 600_000, 36_000_000]);
    for number in 0..chance.within(1..=4) {
        let hook = hook(&mut chance, &format!("wh_{number}"), world.tenants, length_ms);
        world.hooks.push(hook);
    }
    publishers(&mut chance, &mut world, length_ms);
    orders(&mut chance, &mut world, length_ms);
    ends(&mut chance, &mut world, length_ms);
    world.disk = disk(&mut chance, length_ms);
    killers(seed, &mut world, 10..=60);
    consumers(seed, &mut world);
    world.acts.sort_by_key(|(at, _)| *at);
    world
}

fn hook(chance: &mut Chance, name: &str, tenants: usize, length_ms: u64) -> Hook {
    let mut hook = Hook::named(name);
    hook.tenant = usize::try_from(chance.below(tenants as u64)).unwrap_or(0);
    hook.filter = match chance.below(6) {
        0 => types(&["order.*"]),
        1 => types(&["*", "tidings.*"]),
        2 => {
            let confined = Some(vec![Channel::parse(chance.pick::<&str>(&CHANNELS)).expect("a channel")]);
            Filter { confined, ..Filter::default() }
        }
        _ => Filter::default(),
    };
    hook.settings = settings(chance, length_ms);
    let mut from = 0;
    while from < length_ms && chance.below(4) > 0 {
        let until = from + chance.within(1..=length_ms);
        let mood = mood(chance);
        hook.moods.push((at(until), mood));
        from = until;
    }
    if chance.once_in(3) {
        hook.poison = Poison { fails: chance.within(5..=40), ..Poison::default() };
    }
    if chance.once_in(6) {
        hook.poison.rejected = chance.within(10..=40);
    }
    hook
}

fn settings(chance: &mut Chance, length_ms: u64) -> Settings {
    let steps = match chance.below(5) {
        0 if length_ms > 1_000_000 => Schedule::default(),
        1 => schedule(&[1_000, 2_000, 4_000]),
        2 => schedule(&[100]),
        _ => {
            let count = chance.within(2..=6);
            let steps: Vec<u64> = (0..count).map(|_| chance.within(100..=length_ms.max(1_000) / 4)).collect();
            schedule(&steps)
        }
    };
    Settings {
        schedule: steps,
        max_concurrency: usize::try_from(*chance.pick(&[1, 2, 4, 16])).unwrap_or(1),
        ordering: if chance.once_in(4) { Ordering::None } else { Ordering::Aggregate },
        on_exhausted: if chance.once_in(3) { OnExhausted::Park } else { OnExhausted::Skip },
        deactivate_after: *chance.pick(&[None, Some(1), Some(3), Some(5), Some(5)]),
        rate: if chance.once_in(5) { Rate::parse(chance.pick::<&str>(&["5/s", "50/s", "120/m"])).ok() } else { None },
        pull: None,
    }
}

fn schedule(steps_ms: &[u64]) -> Schedule {
    let steps = steps_ms.iter().map(|ms| Duration::from_millis((*ms).max(100))).collect();
    Schedule::new(steps).expect("a schedule")
}

fn mood(chance: &mut Chance) -> Mood {
    match chance.below(8) {
        0 => Mood::Slow(chance.within(50..=8_000)),
        1 => Mood::Hanging,
        2 => Mood::Busy(Duration::from_millis(chance.within(500..=120_000))),
        3 if chance.once_in(2) => Mood::Gone,
        3 | 4 => Mood::Flapping(chance.within(5..=60)),
        5 | 6 => Mood::Down(*chance.pick(&[500, 503, 404])),
        _ => Mood::Well,
    }
}

fn publishers(chance: &mut Chance, world: &mut World, length_ms: u64) {
    for tenant in 0..world.tenants {
        let aggregates = chance.within(1..=6);
        let mut number = 0;
        for _ in 0..chance.within(3..=40) {
            let moment = at(chance.below(length_ms));
            let batch = (0..*chance.pick(&[1, 1, 1, 3, 12]))
                .map(|_| {
                    number += 1;
                    // Two tenants have the same ids and the same aggregates.
                    draft(chance, tenant, number, aggregates, 6)
                })
                .collect();
            world.acts.push((moment, Act::Publish(tenant, batch)));
        }
    }
}

fn orders(chance: &mut Chance, world: &mut World, length_ms: u64) {
    let all = [
        Order::Pause,
        Order::Resume,
        Order::Resume,
        Order::Activate,
        Order::Activate,
        Order::Restart,
        Order::ReplayDead,
        Order::Discard,
        Order::ReplayAll,
        Order::ReplayUndelivered,
        Order::ActivateLatest,
    ];
    for hook in 0..world.hooks.len() {
        for _ in 0..chance.below(6) {
            world.acts.push((at(chance.below(length_ms)), Act::Order(hook, *chance.pick(&all))));
        }
    }
}

fn ends(chance: &mut Chance, world: &mut World, length_ms: u64) {
    for _ in 0..chance.below(5) {
        let longest = *chance.pick(&[10, 1_000, 60_000]);
        let down = chance.millis(0..=longest);
        let act = if chance.once_in(3) {
            Act::Stop { patience: Duration::from_millis(*chance.pick(&[0, 100, 20_000])), down }
        } else {
            Act::Crash(down)
        };
        world.acts.push((at(chance.below(length_ms)), act));
    }
}

/// Events at which the process ends: one in so many, at some webhooks.
fn killers(seed: u64, world: &mut World, once_in: RangeInclusive<u64>) {
    let mut chance = Chance::about(seed, &["killers"]);
    for hook in &mut world.hooks {
        if chance.once_in(8) {
            hook.poison.kills = chance.within(once_in.clone());
        }
    }
}

/// Has some webhooks be consumers.
fn consumers(seed: u64, world: &mut World) {
    let mut chance = Chance::about(seed, &["consumers"]);
    for hook in world.hooks.iter_mut().filter(|hook| hook.poison.kills == 0) {
        if chance.once_in(5) {
            let ack_wait = Duration::from_secs(*chance.pick(&[1, 5, 30]));
            let retries_max = u32::try_from(chance.below(6)).unwrap_or(0);
            hook.workers = Some(Workers { count: chance.within(1..=4), max: *chance.pick(&[1, 5, 50]), ack_wait });
            let Settings { schedule, ordering, .. } = hook.settings.clone();
            let pull = Some(Pull { retries_max, ack_wait });
            hook.settings = Settings { schedule, ordering, pull, ..Settings::default() };
        }
    }
}

fn disk(chance: &mut Chance, length_ms: u64) -> Nature {
    let troubles = troubles(chance, 3, length_ms, 30_000);
    Nature {
        commit_ms: *chance.pick(&[1, 4, 20]),
        read_ms: *chance.pick(&[0, 0, 2, 10]),
        troubles,
        ..Nature::default()
    }
}

/// Fewer than `bound` times in which commits fail, each of at most `longest_ms`.
fn troubles(chance: &mut Chance, bound: u64, length_ms: u64, longest_ms: u64) -> Vec<Trouble> {
    let count = chance.below(bound);
    let trouble = |_| {
        let from = chance.below(length_ms);
        Trouble {
            from: at(from),
            until: at(from + chance.within(100..=longest_ms)),
            reason: if chance.once_in(2) { Unavailable::Full } else { Unavailable::Busy },
            once_in: *chance.pick(&[1, 2, 10]),
        }
    };
    (0..count).map(trouble).collect()
}

/// An event of one of so many aggregates, or, once in a while, of none.
fn draft(chance: &mut Chance, tenant: usize, number: u64, aggregates: u64, none_once_in: u64) -> Draft {
    let aggregate = (!chance.once_in(none_once_in)).then(|| format!("a{}", chance.below(aggregates)));
    let channels: Vec<&str> = CHANNELS.into_iter().filter(|_| chance.once_in(2)).collect();
    event(tenant, &format!("e{number}"), aggregate.as_deref(), chance.pick::<&str>(&TYPES), &channels)
}
