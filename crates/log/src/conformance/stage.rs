//! An open store with a tenant, and short words for what the laws do to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidings_core::event::{AggregateId, Channel, Defaults, Draft, EventType};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;

use super::Engine;
use super::chance::Chance;
use crate::event::{Event, Tenant};
use crate::query::{Order, PAGE_EVENTS_MAX, Query};
use crate::store::{Append, Appended, CommitError, Pending, Prepared, Refusal, RequestKey, Store, Write, Written};

/// When the tests begin.
pub(super) const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

pub(super) struct Stage<'e> {
    pub(super) engine: &'e dyn Engine,
    store: Option<Arc<dyn Store>>,
    pub(super) tenant: Tenant,
    pub(super) now: Timestamp,
    pub(super) chance: Chance,
}

impl<'e> Stage<'e> {
    /// A fresh log with one tenant, `acme`.
    pub(super) async fn set(engine: &'e dyn Engine) -> Self {
        let store = Some(engine.open());
        let mut stage = Self { engine, store, tenant: Tenant::default(), now: START, chance: Chance::of(42) };
        stage.tenant = stage.add_tenant("acme").await;
        stage
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    /// Closes the store and opens it again.
    pub(super) fn reopen(&mut self) {
        self.shut();
        self.store = Some(self.engine.open());
    }

    pub(super) fn shut(&mut self) {
        if let Some(store) = self.store.take() {
            store.close();
            assert_eq!(Arc::strong_count(&store), 1, "somebody still has the store");
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
    }

    pub(super) async fn add_tenant(&self, name: &str) -> Tenant {
        let name = TenantName::parse(name).unwrap();
        let written = self.commit(vec![Write::Tenant(name)]).await.unwrap();
        let [Written::Tenant(tenant)] = written[..] else { panic!("{written:?}") };
        tenant
    }

    pub(super) fn commit(&self, writes: Vec<Write>) -> Pending<Result<Vec<Written>, CommitError>> {
        self.store().commit(self.now, writes)
    }

    pub(super) async fn one(&self, write: Write) -> Written {
        self.commit(vec![write]).await.unwrap().remove(0)
    }

    pub(super) fn prepare(&mut self, tenant: Tenant, draft: Draft) -> Prepared {
        prepare(tenant, draft, self.now, &mut self.chance)
    }

    /// An append of `drafts` to the tenant on stage.
    pub(super) fn appending(&mut self, drafts: Vec<Draft>) -> Write {
        self.appending_to(self.tenant, drafts, None)
    }

    pub(super) fn appending_to(&mut self, tenant: Tenant, drafts: Vec<Draft>, request: Option<RequestKey>) -> Write {
        let events = drafts.into_iter().map(|draft| self.prepare(tenant, draft)).collect();
        Write::Append(Append { tenant, events, request })
    }

    /// Begins an append; the answer is under way.
    pub(super) fn begin(&mut self, drafts: Vec<Draft>) -> Pending<Result<Vec<Written>, CommitError>> {
        let write = self.appending(drafts);
        self.commit(vec![write])
    }

    pub(super) async fn append(&mut self, drafts: Vec<Draft>) -> Vec<Appended> {
        appended(self.begin(drafts).await)
    }

    /// Appends one event.
    pub(super) async fn say(&mut self, draft: Draft) -> Appended {
        self.append(vec![draft]).await.remove(0)
    }

    pub(super) async fn refusal(&mut self, drafts: Vec<Draft>) -> Refusal {
        refusal(self.begin(drafts).await)
    }

    /// Appends `count` events that nobody looks for.
    pub(super) async fn fill(&mut self, count: usize) {
        let mut under_way = Vec::new();
        for begin in (0..count).step_by(500) {
            let batch = (begin..count.min(begin + 500)).map(|_| draft("filler.added")).collect();
            under_way.push(self.begin(batch));
        }
        for answer in under_way {
            appended(answer.await);
        }
    }

    /// Everything that `filter` takes of the tenant on stage, page by page.
    pub(super) async fn read(&self, filter: Filter) -> Vec<Arc<Event>> {
        self.read_of(self.tenant, filter).await
    }

    pub(super) async fn read_of(&self, tenant: Tenant, filter: Filter) -> Vec<Arc<Event>> {
        let mut all = Vec::new();
        let mut after = Offset::BEFORE_FIRST;
        loop {
            let order = Order::Ascending;
            let query = Query { tenant, filter: filter.clone(), after, through: None, order, limit: PAGE_EVENTS_MAX };
            let page = self.store().read(query).await.unwrap();
            after = page.reached;
            all.extend(page.events);
            if !page.more {
                return all;
            }
        }
    }

    /// The whole log of the tenant on stage.
    pub(super) async fn log(&self) -> Vec<Arc<Event>> {
        self.read(Filter::everything()).await
    }

    pub(super) async fn find(&self, id: &EventId) -> Option<Arc<Event>> {
        self.store().find(self.tenant, id).await.unwrap()
    }

    pub(super) fn assert_whole(&self) {
        let report = self.engine.verify();
        assert!(report.is_whole(), "{:#?}", report.findings);
    }
}

pub(super) fn prepare(tenant: Tenant, draft: Draft, now: Timestamp, chance: &mut Chance) -> Prepared {
    let random = chance.bytes();
    Prepared::new(tenant, draft.encode(&Defaults { now, source: "/conformance", random }))
}

/// An event with nothing but a type.
pub(super) fn draft(event_type: &str) -> Draft {
    Draft {
        id: None,
        event_type: EventType::parse(event_type).unwrap(),
        version: None,
        timestamp: None,
        source: None,
        aggregate: None,
        channels: Vec::new(),
        metadata: Vec::new(),
        data: Bytes::from_static(b"{\"n\":1}"),
        expected_sequence: None,
    }
}

pub(super) fn with_id(id: &str, draft: Draft) -> Draft {
    Draft { id: Some(EventId::parse(id).unwrap()), ..draft }
}

pub(super) fn about(aggregate: &str, draft: Draft) -> Draft {
    Draft { aggregate: Some(AggregateId::parse(aggregate).unwrap()), ..draft }
}

pub(super) fn to(channels: &[&str], draft: Draft) -> Draft {
    Draft { channels: self::channels(channels), ..draft }
}

pub(super) fn expecting(sequence: u64, draft: Draft) -> Draft {
    Draft { expected_sequence: Some(sequence), ..draft }
}

pub(super) fn saying(data: impl Into<Bytes>, draft: Draft) -> Draft {
    Draft { data: data.into(), ..draft }
}

pub(super) fn channels(names: &[&str]) -> Vec<Channel> {
    names.iter().map(|name| Channel::parse(name).unwrap()).collect()
}

pub(super) fn types(patterns: &[&str]) -> Filter {
    let types = patterns.iter().map(|pattern| TypePattern::parse(pattern).unwrap()).collect();
    Filter { types, ..Filter::default() }
}

/// The results of a commit that was one append.
pub(super) fn appended(answer: Result<Vec<Written>, CommitError>) -> Vec<Appended> {
    match answer.unwrap().pop() {
        Some(Written::Appended { results, .. }) => results,
        other => panic!("{other:?}"),
    }
}

pub(super) fn refusal(answer: Result<Vec<Written>, CommitError>) -> Refusal {
    match answer {
        Err(CommitError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

pub(super) fn offsets(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.offset.0).collect()
}
