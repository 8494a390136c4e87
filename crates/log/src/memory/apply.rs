//! What each write does to the tables.

use std::sync::Arc;

use tidings_core::chain::{self, GENESIS};
use tidings_core::event::same_content;
use tidings_core::id::EventId;
use tidings_core::lane::{Dead, RowState};
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;

use super::state::{Answered, Log, Place, Sealed, State, document_key};
use crate::event::{Event, Tenant};
use crate::sqlite::SEAL_EVENTS_MAX;
use crate::store::{
    Append, Appended, CommitError, DeadLetter, DeadState, Document, Expect, Extent, Letter, Prepared, REQUEST_KEPT,
    Refusal, Seal, Settle, Sweep, Unavailable, Write, Written,
};

/// The offsets of eras are multiples of this.
const ERA_BITS: u32 = 30;

/// What a commit means for the tail.
#[derive(Default)]
pub(super) struct News {
    pub(super) tenants: Vec<Tenant>,
    pub(super) events: Vec<Arc<Event>>,
    pub(super) erased: Vec<Arc<Event>>,
    /// Tenants whose oldest events go, and the first that stays.
    pub(super) trimmed: Vec<(Tenant, Offset)>,
}

impl State {
    /// Applies all of `writes`, or none.
    pub(super) fn commit(&mut self, now: Timestamp, writes: Vec<Write>) -> Result<(Vec<Written>, News), CommitError> {
        let mut news = News::default();
        let written: Result<Vec<_>, _> = writes.into_iter().map(|write| self.write(now, write, &mut news)).collect();
        match written {
            Ok(written) => {
                self.seal_all();
                self.drop_copies();
                self.keep();
                Ok((written, news))
            }
            Err(error) => {
                self.undo();
                Err(error)
            }
        }
    }

    fn write(&mut self, now: Timestamp, write: Write, news: &mut News) -> Result<Written, CommitError> {
        match write {
            Write::Tenant(name) => Ok(self.add_tenant(name, news)),
            Write::Append(append) => self.append(now, append, news),
            Write::Erase(tenant, id) => self.erase(tenant, &id, news),
            Write::Put(document, expect) => self.put(document, expect),
            Write::Remove(kind, owner, id) => {
                self.documents.remove(&document_key(kind, owner, &id));
                Ok(Written::Done)
            }
            Write::Settle(settle) => self.settle(now, settle),
            Write::Sweep(sweep) => Ok(self.sweep(sweep)),
            Write::Close(tenant, ids, state) => Ok(self.close(tenant, ids, &state)),
            Write::Forget(subscription) => Ok(self.forget(&subscription)),
            Write::Trim(tenant, through) => Ok(self.trim(tenant, through, news)),
            Write::Era(tenant) => self.begin_era(tenant),
        }
    }

    fn add_tenant(&mut self, name: TenantName, news: &mut News) -> Written {
        if let Some((tenant, _)) = self.logs.iter().find(|(_, log)| log.name == name) {
            return Written::Tenant(*tenant);
        }
        let tenant = Tenant(self.logs.iter().next_back().map_or(1, |(tenant, _)| tenant.0 + 1));
        let extent = Extent { first: Offset(1), ..Extent::default() };
        self.logs.put(tenant, Log { name, extent, recorded: Timestamp::from_millis(0), eras: Vec::new() });
        news.tenants.push(tenant);
        Written::Tenant(tenant)
    }

    fn log(&self, tenant: Tenant) -> Result<Log, CommitError> {
        let unknown = || Unavailable::Trouble("there is no such tenant".into()).into();
        self.logs.get(&tenant).cloned().ok_or_else(unknown)
    }

    fn append(&mut self, now: Timestamp, append: Append, news: &mut News) -> Result<Written, CommitError> {
        if let Some(request) = &append.request
            && let Some(kept) = self.requests.get(&request.key)
            && now.since(kept.at) < REQUEST_KEPT
        {
            if kept.body != request.body {
                return Err(CommitError::Refused(Refusal::RequestKeyReused));
            }
            return Ok(Written::Appended { results: kept.results.clone(), replayed: true });
        }
        let mut log = self.log(append.tenant)?;
        let mut results = Vec::with_capacity(append.events.len());
        for (index, prepared) in append.events.into_iter().enumerate() {
            results.push(self.place(append.tenant, &mut log, now, index, prepared, news)?);
        }
        self.logs.put(append.tenant, log);
        if let Some(request) = append.request {
            self.requests.put(request.key, Answered { body: request.body, at: now, results: results.clone() });
        }
        Ok(Written::Appended { results, replayed: false })
    }

    fn place(
        &mut self,
        tenant: Tenant,
        log: &mut Log,
        now: Timestamp,
        index: usize,
        Prepared { encoded, .. }: Prepared,
        news: &mut News,
    ) -> Result<Appended, CommitError> {
        let id = encoded.subject.id.clone();
        if encoded.id_given
            && let Some(earlier) = self.find(tenant, &id)
        {
            if !same_content(earlier.header(), earlier.bytes(), earlier.supplied, &encoded) {
                return Err(CommitError::Refused(Refusal::IdTaken { index }));
            }
            return Ok(Appended { id, offset: earlier.offset, sequence: earlier.sequence, duplicate: true });
        }
        let sequence = match encoded.subject.aggregate.as_ref().map(|aggregate| (tenant, aggregate.as_str().into())) {
            None => None,
            Some(aggregate) => {
                let current = self.heads.get(&aggregate).copied().unwrap_or(0);
                if encoded.expected_sequence.is_some_and(|expected| expected != current) {
                    return Err(CommitError::Refused(Refusal::Sequence { index, current }));
                }
                self.heads.put(aggregate, current + 1);
                Some(current + 1)
            }
        };
        log.extent.head = log.extent.head.next();
        log.recorded = log.recorded.max(now);
        let event = Event::commit(encoded, tenant, log.extent.head, log.recorded, sequence);
        self.ids.put((tenant, id.as_str().into()), event.offset);
        self.events.put((tenant, event.offset), Arc::clone(&event));
        let offset = event.offset;
        news.events.push(event);
        Ok(Appended { id, offset, sequence, duplicate: false })
    }

    fn erase(&mut self, tenant: Tenant, id: &EventId, news: &mut News) -> Result<Written, CommitError> {
        let event = self.find(tenant, id);
        let copy =
            self.copies.iter().map(|(_, copy)| copy).find(|copy| copy.tenant == tenant && copy.subject.id == *id);
        let Some(place) = event.as_ref().or(copy).map(|event| event.offset) else {
            return Err(CommitError::Refused(Refusal::NoSuchEvent));
        };
        if let Some(copy) = copy.map(|copy| Arc::new(copy.erased())) {
            self.copies.put((tenant, copy.offset), copy);
        }
        if let Some(erased) = event.map(|event| Arc::new(event.erased())) {
            self.events.put((tenant, erased.offset), Arc::clone(&erased));
            news.erased.push(erased);
        }
        Ok(Written::Erased(place))
    }

    fn put(&mut self, document: Document, expect: Expect) -> Result<Written, CommitError> {
        let key = document_key(document.kind, document.owner, &document.id);
        let current = self.documents.get(&key).map_or(0, |document| document.revision);
        let holds = match expect {
            Expect::Any => true,
            Expect::New => current == 0,
            Expect::Revision(revision) => current == revision,
        };
        if !holds {
            return Err(CommitError::Refused(Refusal::Revision));
        }
        let revision = current + 1;
        self.documents.put(key, Document { revision, ..document });
        Ok(Written::Put(revision))
    }

    fn settle(&mut self, now: Timestamp, settle: Settle) -> Result<Written, CommitError> {
        let Settle { subscription, tenant, changes, letters, attempts } = settle;
        if changes.dead.len() != letters.len() {
            return Err(Unavailable::Trouble("each dead delivery needs a letter".into()).into());
        }
        self.progress.put(subscription.clone(), Place { tenant, cursor: changes.cursor, acked: changes.acked });
        let dead: Vec<Offset> = changes.dead.iter().map(|dead| dead.offset).collect();
        for offset in changes.cleared.iter().chain(&dead) {
            self.rows.remove(&(subscription.clone(), *offset));
        }
        for row in changes.rows {
            let gone = changes.cleared.contains(&row.offset);
            if !gone && (row.state != RowState::Waiting || !dead.contains(&row.offset)) {
                self.rows.put((subscription.clone(), row.offset), row);
            }
        }
        for (dead, letter) in changes.dead.into_iter().zip(letters) {
            self.give_up(now, &subscription, tenant, dead, letter);
        }
        for attempt in attempts {
            let number = self.attempts.iter().next_back().map_or(1, |(number, _)| number + 1);
            self.attempts.put(number, (tenant, attempt));
        }
        Ok(Written::Done)
    }

    /// Keeps a delivery given up. One that is open already is the same: it stays, and tells the newest attempt.
    fn give_up(&mut self, now: Timestamp, subscription: &str, tenant: Tenant, dead: Dead, letter: Letter) {
        let same = |kept: &DeadLetter| {
            (&*kept.subscription, kept.offset) == (subscription, dead.offset) && kept.state == DeadState::Open
        };
        let open = self.letters.iter().map(|(_, kept)| kept).find(|kept| same(kept)).cloned();
        if let Some(open) = open {
            let told = DeadLetter { attempts: dead.attempts, reason: dead.reason, at: now, ..open };
            self.letters.put(told.id.clone(), told);
        } else if self.letters.get(&letter.id).is_none() {
            let kept = DeadLetter {
                id: letter.id.clone(),
                subscription: subscription.into(),
                tenant,
                offset: dead.offset,
                event_type: letter.event_type,
                attempts: dead.attempts,
                reason: dead.reason,
                at: now,
                state: DeadState::Open,
            };
            self.letters.put(letter.id, kept);
        }
    }

    /// Moves a slot's cursor. One that would go back does nothing: who follows it then would skip what is between.
    fn sweep(&mut self, sweep: Sweep) -> Written {
        let slot = (sweep.tenant, sweep.slot);
        if self.swept.get(&slot).is_some_and(|through| *through > sweep.through) {
            return Written::Done;
        }
        self.swept.put(slot, sweep.through);
        for subscription in sweep.current {
            self.progress.remove(&subscription);
            self.rows.sweep(|(whose, _), _| *whose == subscription);
        }
        Written::Done
    }

    fn close(&mut self, tenant: Tenant, ids: Vec<Box<str>>, state: &DeadState) -> Written {
        for id in ids {
            let open = |letter: &&DeadLetter| letter.tenant == tenant && letter.state == DeadState::Open;
            if let Some(letter) = self.letters.get(&id).filter(open).cloned() {
                self.letters.put(id, DeadLetter { state: state.clone(), ..letter });
            }
        }
        Written::Done
    }

    fn forget(&mut self, subscription: &str) -> Written {
        self.progress.remove(&subscription.into());
        self.rows.sweep(|(whose, _), _| &**whose == subscription);
        self.letters.sweep(|_, letter| &*letter.subscription == subscription);
        self.attempts.sweep(|_, (_, attempt)| &*attempt.subscription == subscription);
        Written::Done
    }

    /// Removes whole seals. The last removed one stays, without its leaves: the chain goes on from it.
    fn trim(&mut self, tenant: Tenant, through: Offset, news: &mut News) -> Written {
        let trimmed = self.trim_events(tenant, through, news);
        if let Written::Trimmed(first) = trimmed {
            self.letters
                .sweep(|_, letter| letter.tenant == tenant && letter.offset < first && letter.state != DeadState::Open);
        }
        trimmed
    }

    fn trim_events(&mut self, tenant: Tenant, through: Offset, news: &mut News) -> Written {
        let Some(mut log) = self.logs.get(&tenant).cloned() else { return Written::Trimmed(Offset(1)) };
        self.forget_history(tenant, log.extent.first);
        let boundary = self.seals.range((tenant, Offset(0))..=(tenant, through)).next_back();
        let Some(((_, boundary), _)) = boundary.filter(|((_, last), _)| *last >= log.extent.first) else {
            return Written::Trimmed(log.extent.first);
        };
        let boundary = *boundary;
        let needed = |offset| self.is_needed(tenant, offset);
        let gone = self.events.range((tenant, Offset(0))..=(tenant, boundary)).map(|(_, event)| Arc::clone(event));
        let gone: Vec<_> = gone.map(|event| (needed(event.offset), event)).collect();
        for (needed, event) in gone {
            self.events.remove(&(tenant, event.offset));
            self.ids.remove(&(tenant, event.subject.id.as_str().into()));
            if needed {
                self.copies.put((tenant, event.offset), event);
            }
        }
        let mut left = self.events.range((tenant, Offset(0))..=(tenant, Offset(u64::MAX)));
        log.extent.first = left.next().map_or(log.extent.head.next(), |((_, offset), _)| *offset);
        drop(left);
        self.seals.sweep(|(whose, last), _| *whose == tenant && *last < boundary);
        if let Some(last) = self.seals.get(&(tenant, boundary)).cloned() {
            self.seals.put((tenant, boundary), Sealed { leaves: Vec::new(), ..last });
        }
        news.trimmed.push((tenant, log.extent.first));
        let first = log.extent.first;
        self.logs.put(tenant, log);
        Written::Trimmed(first)
    }

    /// Drops the attempts of events that went with an earlier trim.
    fn forget_history(&mut self, tenant: Tenant, first: Offset) {
        let copies = &self.copies;
        self.attempts.sweep(|_, (whose, attempt)| {
            let gone = attempt.offset < first && copies.get(&(tenant, attempt.offset)).is_none();
            *whose == tenant && gone
        });
    }

    /// Whether a row or an open dead letter needs an event.
    fn is_needed(&self, tenant: Tenant, offset: Offset) -> bool {
        let open = |letter: &DeadLetter| letter.state == DeadState::Open;
        let mut rows = self.rows.iter().filter(|((_, at), _)| *at == offset);
        rows.any(|((name, _), _)| self.progress.get(name).is_some_and(|place| place.tenant == tenant))
            || self.letters.iter().any(|(_, kept)| open(kept) && (kept.tenant, kept.offset) == (tenant, offset))
    }

    fn drop_copies(&mut self) {
        let all: Vec<_> = self.copies.iter().map(|(key, _)| *key).collect();
        for (tenant, offset) in all {
            if !self.is_needed(tenant, offset) {
                self.copies.remove(&(tenant, offset));
            }
        }
    }

    fn begin_era(&mut self, tenant: Tenant) -> Result<Written, CommitError> {
        let mut log = self.log(tenant)?;
        let previous = log.extent.head;
        if log.extent.era > previous {
            // Nothing came since the last era began: there is no new past to tell from.
            return Ok(Written::Done);
        }
        let first = Offset(((previous.0 >> ERA_BITS) + 1) << ERA_BITS);
        if log.extent.first > previous {
            log.extent.first = first;
        }
        log.extent.head = Offset(first.0 - 1);
        log.extent.era = first;
        log.eras.push((first, previous));
        self.logs.put(tenant, log);
        Ok(Written::Done)
    }

    /// Seals what is not sealed yet: a log in memory need not wait for a run to fill.
    fn seal_all(&mut self) {
        let tenants: Vec<_> = self.logs.iter().map(|(tenant, _)| *tenant).collect();
        for tenant in tenants {
            let last = self.sealed(tenant);
            let (mut previous, through) = last.map_or((GENESIS, Offset(0)), |seal| (seal.hash, seal.last));
            let fresh = self.events.range((tenant, through.next())..=(tenant, Offset(u64::MAX)));
            let fresh: Vec<_> = fresh.map(|(_, event)| Arc::clone(event)).collect();
            // A seal does not span a jump of the offsets.
            let runs = fresh.chunk_by(|a, b| b.offset == a.offset.next()).flat_map(|run| run.chunks(SEAL_EVENTS_MAX));
            for run in runs {
                let (first, last) = (run[0].offset, run[run.len() - 1].offset);
                let leaves: Vec<u8> = run.iter().flat_map(|event| event.leaf()).collect();
                let seal = Seal { first, last, hash: chain::seal(&previous, first, last, &leaves) };
                self.seals.put((tenant, last), Sealed { seal, previous, leaves });
                previous = seal.hash;
            }
        }
    }
}
