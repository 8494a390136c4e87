//! What became of an event at a webhook or a consumer: told by the cursor, the rows, the history, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tidings_core::circuit::Standing;
use tidings_core::event::AggregateId;
use tidings_core::filter::Filter;
use tidings_core::lane::{Acks, Row, RowState};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_engine::dispatcher::LaneStatus;
use tidings_log::store::{Attempt, DeadLetter, DeadQuery, DeadState};
use tidings_log::{Event, Store, Tenant, Unavailable};

use super::consumers::{self, Consumers};
use super::webhooks::{Record, Webhooks};

/// Attempts of one event that are looked at.
const ATTEMPTS_MAX: usize = 1_000;
/// Dead letters among which that of an event is looked for: pages, and their size.
const LETTER_PAGES_MAX: usize = 4;
const LETTERS_PAGE: usize = 250;

/// What became of an event at a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It was not sent yet.
    Pending,
    /// It failed and is tried again.
    Retrying,
    /// It waits for what becomes of a dead letter of its aggregate.
    Parked,
    /// The subscriber has it.
    Delivered,
    /// It was given up.
    Dead,
    /// Somebody had the cursor jump over it.
    Skipped,
}

impl State {
    pub(crate) const NAMES: &'static str = "pending, retrying, parked, delivered, dead or skipped";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "pending" => Self::Pending,
            "retrying" => Self::Retrying,
            "parked" => Self::Parked,
            "delivered" => Self::Delivered,
            "dead" => Self::Dead,
            "skipped" => Self::Skipped,
            _ => return None,
        })
    }
}

/// One delivery.
pub(crate) struct Delivery {
    pub(crate) state: State,
    /// Why the last attempt failed, or what is waited for.
    pub(crate) reason: Option<Box<str>>,
    /// When the next attempt may be made.
    pub(crate) due: Option<Timestamp>,
    /// This subscriber's, the oldest first.
    pub(crate) attempts: Vec<Attempt>,
}

/// A subscriber's deliveries, as they stood at one moment.
pub(crate) struct Book {
    store: Arc<dyn Store>,
    tenant: Tenant,
    id: Box<str>,
    filter: Filter,
    start: Offset,
    cursor: Offset,
    acks: Acks,
    rows: BTreeMap<Offset, Row>,
    standing: Standing,
    /// Of the rows that hold others back: aggregate and row.
    held: Option<Vec<(AggregateId, Offset)>>,
}

impl Book {
    /// Opens the book of a webhook.
    pub(crate) async fn of_webhook(webhooks: &Webhooks, tenant: Tenant, record: &Record) -> Result<Self, Unavailable> {
        let lane = webhooks.status(&record.id).unwrap_or_default();
        Self::open(&webhooks.store, tenant, (&record.id, record.filter(), record.start), lane).await
    }

    /// Opens the book of a consumer.
    pub(crate) async fn of_consumer(
        consumers: &Consumers,
        tenant: Tenant,
        record: &consumers::Record,
    ) -> Result<Self, Unavailable> {
        let lane = consumers.status(&record.id).unwrap_or_default();
        Self::open(&consumers.store, tenant, (&record.id, record.filter(), record.start), lane).await
    }

    async fn open(
        store: &Arc<dyn Store>,
        tenant: Tenant,
        (id, filter, start): (&str, Filter, Offset),
        lane: LaneStatus,
    ) -> Result<Self, Unavailable> {
        let progress = store.progress(id).await?;
        // Without a progress of its own it has nothing that waits.
        let progress =
            progress.unwrap_or_else(|| tidings_log::store::Progress { cursor: lane.cursor, ..Default::default() });
        Ok(Self {
            store: Arc::clone(store),
            tenant,
            id: id.into(),
            filter,
            start,
            cursor: progress.cursor,
            acks: Acks::from_bytes(progress.cursor, &progress.acked),
            rows: progress.rows.into_iter().map(|row| (row.offset, row)).collect(),
            standing: lane.standing,
            held: None,
        })
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(crate) fn cursor(&self) -> Offset {
        self.cursor
    }

    /// The offset before the oldest row, or the cursor.
    pub(crate) fn oldest_row(&self) -> Offset {
        self.rows.keys().next().map_or(self.cursor, |first| Offset(first.0.saturating_sub(1)))
    }

    /// The rows that wait for another attempt, below `before`, the newest first.
    pub(crate) fn retrying(&self, before: Offset) -> impl Iterator<Item = Offset> {
        let waits = |row: &&Row| is_waiting(row) && failures(row) > 0;
        self.rows.range(..before).rev().map(|(_, row)| row).filter(waits).map(|row| row.offset)
    }

    /// The first dead letter that others wait for: what is parked comes after it.
    pub(crate) fn first_parked(&self) -> Option<Offset> {
        self.rows.values().find(|row| row.state == RowState::Parked).map(|row| row.offset)
    }

    /// What somebody had it jump over, the newest first.
    pub(crate) fn skipped(&self) -> Vec<(Offset, Offset)> {
        self.standing.skipped.iter().rev().copied().collect()
    }

    /// What became of an event; `None`: it was not for this subscriber.
    pub(crate) async fn delivery(&mut self, event: &Event) -> Result<Option<Delivery>, Unavailable> {
        let settled =
            event.offset <= self.cursor || self.rows.contains_key(&event.offset) || self.acks.contains(event.offset);
        let attempts = if settled {
            let all = self.store.attempts(self.tenant, event.offset, ATTEMPTS_MAX).await?;
            all.into_iter().filter(|attempt| *attempt.subscription == *self.id).collect()
        } else {
            Vec::new()
        };
        let Some((state, reason, due)) = self.judge(event, &attempts).await? else { return Ok(None) };
        Ok(Some(Delivery { state, reason, due, attempts }))
    }

    async fn judge(&mut self, event: &Event, attempts: &[Attempt]) -> Result<Option<Judged>, Unavailable> {
        let offset = event.offset;
        let told = |state| Some((state, None, None));
        let failed = || attempts.last().and_then(|attempt| attempt.reason.clone());
        match self.rows.get(&offset) {
            Some(row) if is_waiting(row) => {
                let state = if failures(row) == 0 { State::Pending } else { State::Retrying };
                let reason = Some(row.reason.clone()).filter(|reason| !reason.is_empty());
                return Ok(Some((state, reason, Some(row.due))));
            }
            Some(row) if row.state == RowState::Parked => return Ok(Some((State::Dead, failed(), None))),
            _ => {}
        }
        if attempts.iter().any(|attempt| attempt.reason.is_none()) {
            return Ok(told(State::Delivered));
        }
        if attempts.is_empty() && (!self.filter.matches(&event.subject) || offset <= self.start) {
            return Ok(None);
        }
        if let Some(first) = self.holder(event).await? {
            let parked = self.rows.get(&first).is_some_and(|row| row.state == RowState::Parked);
            let reason = format!("waits for the event at offset {first}, of the same aggregate");
            return Ok(Some((if parked { State::Parked } else { State::Pending }, Some(reason.into()), None)));
        }
        if offset > self.cursor && !self.acks.contains(offset) {
            let state = if attempts.is_empty() { State::Pending } else { State::Retrying };
            return Ok(Some((state, failed(), None)));
        }
        Ok(match attempts {
            [] if self.standing.has_skipped(offset) => told(State::Skipped),
            // It did not match when it passed: the settings were others.
            [] => None,
            _ => Some((State::Dead, failed(), None)),
        })
    }

    /// The row of its aggregate that an event waits for.
    async fn holder(&mut self, event: &Event) -> Result<Option<Offset>, Unavailable> {
        let Some(aggregate) = &event.subject.aggregate else { return Ok(None) };
        if self.acks.contains(event.offset) || !self.rows.values().any(|row| self.may_hold(row, event.offset)) {
            return Ok(None);
        }
        let held = match self.held.take() {
            Some(held) => held,
            None => self.find_held().await?,
        };
        let holds = |first: &Offset| self.rows.get(first).is_some_and(|row| self.may_hold(row, event.offset));
        let found = held.iter().find(|(of, first)| of == aggregate && holds(first)).map(|(_, first)| *first);
        self.held = Some(held);
        Ok(found)
    }

    /// Whether a row can hold back the event at `offset`, if that is of its aggregate: it says so for those that the
    /// cursor has passed; those beyond it wait for any that is parked.
    fn may_hold(&self, row: &Row, offset: Offset) -> bool {
        if offset > self.cursor {
            row.state == RowState::Parked && row.offset < offset
        } else {
            row.followers.is_some_and(|after| after < offset)
        }
    }

    async fn find_held(&self) -> Result<Vec<(AggregateId, Offset)>, Unavailable> {
        let mut held = Vec::new();
        for row in self.rows.values().filter(|row| row.state == RowState::Parked || row.followers.is_some()) {
            let event = self.store.event(self.tenant, row.offset).await?;
            let aggregate = event.and_then(|event| event.subject.aggregate.clone());
            held.extend(aggregate.map(|aggregate| (aggregate, row.offset)));
        }
        Ok(held)
    }

    /// The newest dead letter of an event that is dead, among the newest thousand of its type.
    pub(crate) async fn letter(&self, event: &Event) -> Result<Option<DeadLetter>, Unavailable> {
        let mut before = None;
        for _ in 0..LETTER_PAGES_MAX {
            let query = DeadQuery {
                tenant: self.tenant,
                subscription: Some(self.id.clone()),
                event_type: Some(event.subject.event_type.as_str().into()),
                since: Some(event.recorded),
                open: false,
                before: before.take(),
                limit: LETTERS_PAGE,
            };
            let mut page = self.store.dead_letters(query).await?;
            let found = |letter: &DeadLetter| {
                letter.offset == event.offset && !matches!(letter.state, DeadState::Replayed { .. })
            };
            if let Some(place) = page.iter().position(found) {
                return Ok(Some(page.swap_remove(place)));
            }
            match page.last() {
                Some(last) if page.len() == LETTERS_PAGE => before = Some(last.id.clone()),
                _ => break,
            }
        }
        Ok(None)
    }
}

/// Whether an attempt is to come, or under way.
fn is_waiting(row: &Row) -> bool {
    matches!(row.state, RowState::Waiting | RowState::Counted)
}

/// Attempts that failed: one that is counted before it is made did not, yet.
fn failures(row: &Row) -> u32 {
    row.attempts.saturating_sub(u32::from(row.state == RowState::Counted))
}

type Judged = (State, Option<Box<str>>, Option<Timestamp>);
