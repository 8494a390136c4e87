//! What a lane has to commit: its changes, the attempts made since the last commit, and what is told of both.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tidings_core::event::EventType;
use tidings_core::id::uuid_v7;
use tidings_core::lane::{Changes, Notice, Outcome};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{Attempt, Document, Expect, Kind, Letter, Owner, Settle};
use tidings_log::{CommitError, Event, Write};

use super::attempt::Attempted;
use super::notice::{Failed, Notices};
use super::{Env, Subscription};

/// The pauses between tries of a commit that fails, doubled from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(2);

pub(super) struct Ledger {
    subscription: Arc<Subscription>,
    env: Env,
    /// As committed last.
    cursor: Offset,
    acked: Vec<u8>,
    attempts: Vec<Attempt>,
    /// Of deliveries that failed and have no end yet.
    failed: HashMap<Offset, Failed>,
    /// Until it is known to be committed.
    taken: Option<Taken>,
    pause: Duration,
}

struct Taken {
    settle: Settle,
    /// Of each of the dead, the id of its event.
    event_ids: Vec<Option<Arc<str>>>,
}

impl Ledger {
    pub(super) fn new(subscription: Arc<Subscription>, env: Env, cursor: Offset, acked: Vec<u8>) -> Self {
        Self {
            subscription,
            env,
            cursor,
            acked,
            attempts: Vec::new(),
            failed: HashMap::default(),
            taken: None,
            pause: PAUSE_MIN,
        }
    }

    /// Attempts that no commit has told yet.
    pub(super) fn attempts(&self) -> usize {
        self.attempts.len()
    }

    /// Whether something taken is not yet committed.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.is_some()
    }

    pub(super) fn note(&mut self, attempted: &Attempted, outcome: &Outcome, ended: Timestamp) {
        let offset = attempted.turn.offset;
        let answer = outcome.answer();
        match (outcome.reason(), &attempted.event) {
            (Some(_), Some(event)) => {
                self.remember(event);
            }
            (Some(_), None) => {}
            (None, _) if self.failed.is_empty() => {}
            (None, _) => drop(self.failed.remove(&offset)),
        }
        self.attempts.push(Attempt {
            subscription: self.subscription.id.clone(),
            offset,
            number: attempted.turn.attempt,
            at: attempted.at,
            latency_ms: u32::try_from(ended.since(attempted.at).as_millis()).unwrap_or(u32::MAX),
            status: answer.status,
            reason: outcome.reason().map(Into::into),
            answer: answer.text.clone(),
            replay: attempted.turn.replay.is_some(),
        });
    }

    /// Keeps what a dead letter will say of an event.
    pub(super) fn remember(&mut self, event: &Event) {
        let failed =
            || Failed { event_type: event.subject.event_type.as_str().into(), id: event.subject.id.as_str().into() };
        self.failed.entry(event.offset).or_insert_with(failed);
    }

    /// Takes changes, or none if only attempts are to be told.
    pub(super) fn take(&mut self, changes: Option<Changes>, now: Timestamp) {
        let unchanged = || Changes { cursor: self.cursor, acked: self.acked.clone(), ..Changes::default() };
        let changes = changes.unwrap_or_else(unchanged);
        changes.notices.iter().for_each(|notice| self.say(notice));
        let failed: Vec<_> = changes.dead.iter().map(|dead| self.failed.remove(&dead.offset)).collect();
        let letters = failed.iter().map(|failed| self.letter(failed.as_ref(), now)).collect();
        let event_ids = failed.into_iter().map(|failed| failed.map(|failed| failed.id)).collect();
        self.taken = Some(Taken {
            settle: Settle {
                subscription: self.subscription.id.clone(),
                tenant: self.subscription.tenant,
                changes,
                letters,
                attempts: mem::take(&mut self.attempts),
            },
            event_ids,
        });
    }

    /// What whoever watches the server sees of a subscription. Single deliveries that are given up are counted instead.
    fn say(&self, notice: &Notice) {
        let subscription = &*self.subscription.id;
        match notice {
            Notice::Deactivated { reason } => tracing::warn!(subscription, %reason, "deactivated"),
            Notice::Failing { round, reason } => tracing::info!(subscription, round, %reason, "failing"),
            Notice::Recovered { rounds } => tracing::info!(subscription, rounds, "recovered"),
            // Said where it was noticed.
            Notice::Gap { .. } => {}
        }
    }

    fn letter(&self, failed: Option<&Failed>, now: Timestamp) -> Letter {
        let mut random = [0; 10];
        (self.env.random)(&mut random);
        let id = format!("dl_{}", uuid_v7(now, random).simple()).into();
        Letter { id, event_type: failed.map_or_else(Box::default, |failed| Box::from(&*failed.event_type)) }
    }

    /// The writes that commit what is taken. A copy: a commit that fails keeps what it was given.
    pub(super) fn writes(&self, now: Timestamp) -> Vec<Write> {
        let Some(Taken { settle, event_ids }) = &self.taken else { return Vec::new() };
        let tenant = settle.tenant;
        let mut notices = Notices::new(&self.subscription, self.env, now);
        settle.changes.notices.iter().for_each(|notice| notices.notice(notice));
        for ((dead, letter), event_id) in settle.changes.dead.iter().zip(&settle.letters).zip(event_ids) {
            if !letter.event_type.starts_with(EventType::OPERATIONAL_PREFIX) {
                notices.dead(dead, letter, event_id.as_deref());
            }
        }
        let mut writes = vec![Write::Settle(settle.clone())];
        if let Some(standing) = &settle.changes.standing {
            let body = serde_json::to_vec(standing).unwrap_or_default();
            let (kind, owner, id) = (Kind::Standing, Owner::Tenant(tenant), settle.subscription.clone());
            writes.push(Write::Put(Document { kind, owner, id, revision: 0, body }, Expect::Any));
        }
        writes.extend(notices.write(tenant));
        writes
    }

    /// Notes that what was taken is committed; answers how many deliveries that gave up.
    pub(super) fn committed(&mut self) -> u64 {
        self.pause = PAUSE_MIN;
        let Some(Taken { settle, .. }) = self.taken.take() else { return 0 };
        self.cursor = settle.changes.cursor;
        self.acked = settle.changes.acked;
        settle.changes.dead.len() as u64
    }

    /// As committed last.
    pub(super) fn cursor(&self) -> Offset {
        self.cursor
    }

    /// How long to wait before the next try.
    pub(super) fn failed(&mut self, error: &CommitError) -> Duration {
        if self.pause == PAUSE_MIN {
            tracing::warn!(subscription = &*self.subscription.id, %error, "outcomes wait to be committed");
        }
        let pause = self.pause;
        self.pause = (2 * pause).min(PAUSE_MAX);
        pause
    }
}
