//! A simulation: one process after the other over one disk, until everything is at rest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::circuit::Standing;
use tidings_core::event::Draft;
use tidings_core::lane::Row;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::Event;
use tidings_log::memory::MemoryDisk;
use tidings_log::store::{Attempt, DeadLetter};
use tidings_log::verify::Report;
use tokio::sync::Notify;

use crate::clock;
use crate::left;
use crate::life;
use crate::oracle::{self, Violation};
use crate::plant::Plant;
use crate::receiver::{Record, Seen};
use crate::workers::Fetched;
use crate::world::{Act, Order, World};

/// How long it may take, at the end, until everything is delivered.
pub const DRAIN_DAYS: u64 = 400;

/// How many processes there may be: an event at which each of them ends uses its attempts up at some time.
const LIVES_MAX: usize = 1_000;
/// Two starts that are so close, each after a crash, make the second one careful
const CLOSE: Duration = Duration::from_mins(1);
/// for so long: as the server does it.
pub const CAREFUL: Duration = Duration::from_mins(1);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It died.
    Crashed,
    /// It stopped, and nothing was cut off.
    Stopped,
    /// It stopped when its patience was at an end.
    Cancelled,
    /// It had nothing left to do.
    Drained,
}

/// One process from its start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How.
    pub end: End,
    /// Whether attempts were counted before they were made, at first.
    pub careful: bool,
    /// For each webhook the number of the last attempt that is in the history.
    pub told: Vec<u64>,
}

/// Something that somebody did to a webhook.
#[derive(Clone, Debug)]
pub struct Note {
    /// To which.
    pub hook: usize,
    /// What.
    pub order: Order,
    /// In which life of the process.
    pub life: u32,
    /// When it was asked for.
    pub asked: Timestamp,
    /// When it was confirmed, if it was.
    pub done: Option<Timestamp>,
    /// There was nothing to do.
    pub pointless: bool,
}

/// What the log keeps of a webhook in the end.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Where it began.
    pub start: Offset,
    /// Its attempts with their numbers, oldest first.
    pub history: Vec<(u64, Attempt)>,
    /// Its dead letters, oldest first.
    pub letters: Vec<DeadLetter>,
    /// Its rows.
    pub waiting: Vec<Row>,
    /// How it stands.
    pub standing: Standing,
    /// Attempts in flight when the last process was stopped.
    pub in_flight: usize,
}

/// All that is known after a simulation.
pub struct Run {
    /// What was to happen.
    pub world: World,
    /// The processes.
    pub lives: Vec<Life>,
    /// What subscribers saw.
    pub seen: Vec<Seen>,
    /// What workers fetched.
    pub fetched: Vec<Fetched>,
    /// What people did.
    pub notes: Vec<Note>,
    /// What was acknowledged: tenant, id, offset.
    pub acked: Vec<(usize, Box<str>, Offset)>,
    /// Each tenant's events.
    pub logs: Vec<Vec<Arc<Event>>>,
    /// What is kept of each webhook.
    pub kept: Vec<Kept>,
    /// What the proof of the log says.
    pub verified: Report,
    /// Whether everything came to rest.
    pub finished: bool,
    /// What was broken.
    pub violations: Vec<Violation>,
}

/// An event that was acknowledged: of which tenant, its id, its place.
pub(crate) type Acked = (usize, Box<str>, Offset);

/// What processes leave to the next one: what happened outside of them.
pub(crate) struct Outside {
    pub(crate) disk: MemoryDisk,
    pub(crate) record: Arc<Mutex<Record>>,
    pub(crate) notes: Arc<Mutex<Vec<Note>>>,
    pub(crate) acked: Arc<Mutex<Vec<Acked>>>,
    /// What is to be published to each tenant and is not acknowledged yet.
    pub(crate) unacked: Vec<Arc<Unacked>>,
    /// Whether, in the end, the dead letters of each webhook were sent again: then they are given up.
    pub(crate) decided: Mutex<Vec<bool>>,
    pub(crate) plant: Option<Plant>,
    pub(crate) verbose: bool,
}

/// Batches that a publisher has, and is woken for.
#[derive(Default)]
pub(crate) struct Unacked {
    pub(crate) batches: Mutex<VecDeque<Vec<Draft>>>,
    pub(crate) bell: Notify,
}

/// Runs a world and judges it.
pub fn run(world: &World, plant: Option<Plant>, verbose: bool) -> Run {
    let outside = Outside {
        disk: MemoryDisk::default(),
        record: Arc::new(Mutex::new(Record { verbose, ..Record::default() })),
        notes: Arc::default(),
        acked: Arc::default(),
        unacked: (0..world.tenants).map(|_| Arc::default()).collect(),
        decided: Mutex::new(vec![false; world.hooks.len()]),
        plant,
        verbose,
    };
    let mut acts: VecDeque<(Timestamp, Act)> = world.acts.iter().cloned().collect();
    acts.make_contiguous().sort_by_key(|(at, _)| *at);
    life::prepare(&outside, world);
    let mut lives: Vec<Life> = Vec::new();
    let (mut now, mut finished) = (clock::START, true);
    loop {
        let number = u32::try_from(lives.len()).unwrap_or(u32::MAX);
        outside.record.lock().life = number;
        let careful = plant != Some(Plant::CarelessStart) && is_suspicious(&lives, now);
        let outcome = life::live(&outside, world, &mut acts, now, (number, careful));
        if verbose {
            println!("{:>12} ms  {:?}, down for {:?}", oracle::ms(outcome.life.ended), outcome.life.end, outcome.down);
        }
        now = outcome.life.ended.plus(outcome.down);
        finished &= outcome.finished;
        let ended = outcome.life.end == End::Drained;
        lives.push(outcome.life);
        if ended || lives.len() == LIVES_MAX {
            finished &= ended;
            break;
        }
    }
    if verbose {
        for trouble in &world.disk.troubles {
            println!("trouble from {} to {}: {trouble:?}", oracle::ms(trouble.from), oracle::ms(trouble.until));
        }
        for hook in &world.hooks {
            println!("{}: {:?}, {:?}", hook.name, hook.settings, hook.poison);
        }
    }
    let mut run = left::collect(&outside, world, lives, finished);
    if verbose {
        run.kept.iter().flat_map(|kept| &kept.letters).for_each(|letter| println!("{letter:?}"));
    }
    run.violations = oracle::judge(&run);
    run
}

/// Whether an event may be what ends the processes.
fn is_suspicious(lives: &[Life], now: Timestamp) -> bool {
    let crashed = |life: &Life| life.end == End::Crashed;
    matches!(lives, [.., before, last] if crashed(before) && crashed(last) && now.since(last.began) <= CLOSE)
}

impl Run {
    /// When the log tells of something of a webhook.
    pub fn told(&self, hook: usize, event_type: &str) -> Vec<Timestamp> {
        let spec = &self.world.hooks[hook];
        let name = format!("\"{}\"", spec.name);
        let of_hook = |event: &&Arc<Event>| {
            event.subject.event_type.as_str() == event_type
                && event.bytes().is_some_and(|data| String::from_utf8_lossy(data).contains(&name))
        };
        self.logs[spec.tenant].iter().filter(of_hook).map(|event| event.recorded).collect()
    }
}
