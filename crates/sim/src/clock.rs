//! Time and chance of a simulated process: tokio's paused clock, and a generator for each lane.
//!
//! A lane draws from its own generator, so that it does not matter which of two lanes runs first in the same millisecond:
//! tokio wakes those who wait for one thing in an order of its own.

use std::cell::RefCell;

use foldhash::HashMap;
use tidings_core::time::Timestamp;
use tidings_engine::dispatcher::Env;

use tokio::task::Id;
use tokio::time::Instant;

use crate::chance::Chance;

/// When every world begins.
pub const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

struct Clock {
    seed: u64,
    life: u32,
    base: Timestamp,
    origin: Instant,
    anybody: Chance,
    lanes: HashMap<Id, (Box<str>, Chance)>,
}

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// Time and chance of this thread's simulated process.
pub(crate) const ENV: Env = Env { now, random };

/// A process begins at `base`. Call it on its runtime.
pub(crate) fn begin(seed: u64, life: u32, base: Timestamp) {
    let anybody = Chance::about(seed, &["process", &life.to_string()]);
    let lanes = HashMap::default();
    CLOCK.set(Some(Clock { seed, life, base, origin: Instant::now(), anybody, lanes }));
}

/// The task that runs is the lane of `subscription`.
pub(crate) fn bind(subscription: &str) {
    let Some(task) = tokio::task::try_id() else { return };
    CLOCK.with_borrow_mut(|clock| {
        let Some(clock) = clock else { return };
        let (seed, life) = (clock.seed, clock.life.to_string());
        let chance = || (subscription.into(), Chance::about(seed, &["lane", &life, subscription]));
        clock.lanes.entry(task).or_insert_with(chance);
    });
}

/// The simulated time.
pub(crate) fn now() -> Timestamp {
    CLOCK.with_borrow(|clock| clock.as_ref().map_or(START, |clock| clock.base.plus(clock.origin.elapsed())))
}

fn random(buffer: &mut [u8]) {
    CLOCK.with_borrow_mut(|clock| {
        let Some(clock) = clock else { return };
        let task = tokio::task::try_id();
        let lane = task.and_then(|task| clock.lanes.get_mut(&task));
        lane.map_or(&mut clock.anybody, |(_, chance)| chance).fill(buffer);
    });
}

/// The subscription whose lane the running task is.
pub(crate) fn lane() -> Option<String> {
    let task = tokio::task::try_id()?;
    CLOCK.with_borrow(|clock| clock.as_ref()?.lanes.get(&task).map(|(name, _)| name.to_string()))
}
