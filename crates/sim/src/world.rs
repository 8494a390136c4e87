//! What a simulation consists of: tenants, webhooks, what is published, and what goes wrong when.

use std::time::Duration;

use bytes::Bytes;
use tidings_core::event::{AggregateId, Channel, Draft, EventType};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::id::EventId;
use tidings_core::lane::Settings;
use tidings_core::time::Timestamp;

use crate::clock::START;
use crate::disk::Nature;
use crate::receiver::{Mood, Poison};
use crate::workers::Workers;

/// Everything that is to happen.
#[derive(Clone, Debug)]
pub struct World {
    /// Repeats it.
    pub seed: u64,
    /// How many tenants there are.
    pub tenants: usize,
    /// The webhooks.
    pub hooks: Vec<Hook>,
    /// What happens when, by time.
    pub acts: Vec<(Timestamp, Act)>,
    /// How the disk behaves.
    pub disk: Nature,
    /// Whether, at the end, everybody is healed and everything delivered.
    pub drains: bool,
}

/// A webhook and its subscriber.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name.
    pub name: Box<str>,
    /// Whose, by place.
    pub tenant: usize,
    /// Which events.
    pub filter: Filter,
    /// How it is delivered to.
    pub settings: Settings,
    /// Until when its subscriber behaves how.
    pub moods: Vec<(Timestamp, Mood)>,
    /// Events that it never takes.
    pub poison: Poison,
    /// It is a consumer, from which these fetch.
    pub workers: Option<Workers>,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Act {
    /// Events are published to a tenant, in one batch.
    Publish(usize, Vec<Draft>),
    /// Somebody does something to a webhook.
    Order(usize, Order),
    /// The process dies, and begins again so much later.
    Crash(Duration),
    /// The process is stopped with so much patience, and begins again so much later.
    Stop {
        /// How long what is in flight may take.
        patience: Duration,
        /// How long nothing runs.
        down: Duration,
    },
}

/// What somebody does to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Pauses it.
    Pause,
    /// Ends a pause.
    Resume,
    /// Activates it where it stood.
    Activate,
    /// Activates it at the end of the log.
    ActivateLatest,
    /// Starts it anew, as after a change of its settings.
    Restart,
    /// Sends all its open dead letters again.
    ReplayDead,
    /// Gives up all its open dead letters.
    Discard,
    /// Sends again what is under its cursor, everything.
    ReplayAll,
    /// Sends again what was given up or jumped over.
    ReplayUndelivered,
}

/// A moment of the simulation.
pub fn at(ms: u64) -> Timestamp {
    START.plus(Duration::from_millis(ms))
}

impl World {
    /// A world with one tenant where nothing happens.
    pub fn blank(seed: u64) -> Self {
        let disk = Nature { commit_ms: 4, read_ms: 2, troubles: Vec::new(), ..Nature::default() };
        Self { seed, tenants: 1, hooks: Vec::new(), acts: Vec::new(), disk, drains: true }
    }

    /// Adds a webhook; answers its place.
    pub fn hook(&mut self, hook: Hook) -> usize {
        self.hooks.push(hook);
        self.hooks.len() - 1
    }

    /// Has events published, `count` of them to each of `aggregates`, one each `every`, from `from_ms` on.
    pub fn publish(&mut self, from_ms: u64, every: Duration, aggregates: &[&str], count: usize) {
        let mut moment = at(from_ms);
        for n in 0..count {
            for aggregate in aggregates {
                let id = format!("{aggregate}-{from_ms}-{n}");
                self.acts.push((moment, Act::Publish(0, vec![event(0, &id, Some(aggregate), "order.created", &[])])));
                moment = moment.plus(every);
            }
        }
    }

    /// Whether an event is published to a tenant by somebody.
    pub fn publishes(&self, tenant: usize, id: &str) -> bool {
        self.acts.iter().any(|(_, act)| match act {
            Act::Publish(to, events) => {
                *to == tenant && events.iter().any(|event| event.id.as_ref().is_some_and(|other| other.as_str() == id))
            }
            _ => false,
        })
    }

    /// Has something happen.
    pub fn act(&mut self, ms: u64, act: Act) {
        self.acts.push((at(ms), act));
    }
}

impl Hook {
    /// A webhook of the first tenant that wants everything and is well.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            tenant: 0,
            filter: Filter::default(),
            settings: Settings { max_concurrency: 16, deactivate_after: Some(5), ..Settings::default() },
            moods: Vec::new(),
            poison: Poison::default(),
            workers: None,
        }
    }

    /// The same, in a mood until then.
    #[must_use]
    pub fn until(mut self, ms: u64, mood: Mood) -> Self {
        self.moods.push((at(ms), mood));
        self
    }
}

/// An event; its data says whose it is.
pub fn event(tenant: usize, id: &str, aggregate: Option<&str>, event_type: &str, channels: &[&str]) -> Draft {
    Draft {
        id: Some(EventId::parse(id).expect("an id")),
        event_type: EventType::parse(event_type).expect("a type"),
        version: None,
        timestamp: None,
        source: None,
        aggregate: aggregate.map(|aggregate| AggregateId::parse(aggregate).expect("an aggregate")),
        channels: channels.iter().map(|channel| Channel::parse(channel).expect("a channel")).collect(),
        metadata: Vec::new(),
        data: Bytes::from(format!("{{\"tenant\":{tenant},\"id\":\"{id}\"}}")),
        expected_sequence: None,
    }
}

/// A filter of types.
pub fn types(patterns: &[&str]) -> Filter {
    let types = patterns.iter().map(|pattern| TypePattern::parse(pattern).expect("a pattern")).collect();
    Filter { types, ..Filter::default() }
}
