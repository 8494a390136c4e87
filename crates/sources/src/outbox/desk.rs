//! Where rows become events: judged, appended together with the position behind them, or put aside.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use serde_json::{Value, json};
use tidings_core::event::{Defaults, Draft, EventLimits, Operational};
use tidings_core::problem::{Rule, Violation};
use tidings_core::tenant::TenantName;
use tidings_log::store::{Document, Expect, Kind, Owner, Prepared, Refusal};
use tidings_log::{Append, CommitError, Store, Tenant, Unavailable, Write, Written};

use super::meter::Meter;
use super::quarantine::{self, Fault, QUARANTINED_MAX, Quarantined};
use super::relay::{Env, Halt};
use super::row::Row;

/// What a source is called and what its rows become.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Unique; names its position and its quarantine.
    pub name: Box<str>,
    /// Whose events its rows are.
    pub tenant: TenantName,
    /// Bounds of an event.
    pub limits: EventLimits,
    /// The source of events whose row names none.
    pub source: Box<str>,
}

/// Turns rows of one source into commits. Nobody else writes the source's position and quarantine.
pub(super) struct Desk {
    pub(super) store: Arc<dyn Store>,
    pub(super) env: Env,
    pub(super) settings: Settings,
    pub(super) meter: Arc<Meter>,
    pub(super) tenant: Tenant,
    /// Aggregates that wait for an earlier row.
    pub(super) blocked: HashSet<Box<str>>,
    /// Rows in quarantine, by id.
    pub(super) held: HashSet<Box<str>>,
    /// Of the position's document; 0: there is none yet.
    revision: u64,
}

/// What becomes of a batch.
#[derive(Default)]
struct Plan {
    events: Vec<Prepared>,
    /// The row of each event.
    rows: Vec<u64>,
    aside: Vec<Quarantined>,
    blocked: HashSet<Box<str>>,
}

impl Desk {
    /// Reads what is kept of a source; the tenant is made if it is new.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        env: Env,
        settings: Settings,
        meter: Arc<Meter>,
    ) -> Result<(Self, Option<String>), Halt> {
        let tenant = match store.tenant(&settings.tenant) {
            Some(tenant) => tenant,
            None => match store.commit((env.now)(), vec![Write::Tenant(settings.tenant.clone())]).await?[..] {
                [Written::Tenant(tenant)] => tenant,
                _ => return Err(Halt::Trouble("the tenant could not be made".to_owned())),
            },
        };
        let kept = store.get(Kind::Position, Owner::Operator, &settings.name).await?;
        let revision = kept.as_ref().map_or(0, |document| document.revision);
        let position = kept.map(|document| String::from_utf8_lossy(&document.body).into_owned());
        let rows = quarantine::all(&*store, tenant, &settings.name).await?;
        let blocked = rows.iter().filter_map(|kept| kept.row.aggregate_id.clone()).map(Box::from).collect();
        meter.quarantined(rows.len());
        let held = rows.iter().map(Quarantined::id).collect();
        let mut desk = Self { store, env, settings, meter, tenant, blocked, held, revision };
        // A release that was cut off: those that wait have nobody left to wait for.
        let rejected: HashSet<_> =
            rows.iter().filter(|kept| !kept.waits()).map(|kept| &kept.row.aggregate_id).collect();
        for kept in rows.iter().filter(|kept| kept.waits() && !rejected.contains(&kept.row.aggregate_id)) {
            if let Some(aggregate) = &kept.row.aggregate_id {
                desk.release(aggregate).await?;
            }
        }
        Ok((desk, position))
    }

    /// Commits what `rows` become, and the position behind them.
    pub(super) async fn commit(&mut self, rows: &[Row], position: &str, told: Option<Prepared>) -> Result<(), Halt> {
        let mut refused = HashMap::default();
        loop {
            let plan = self.plan(rows, &refused);
            if self.held.len() + plan.aside.len() > QUARANTINED_MAX {
                return Err(Halt::Full);
            }
            let rejected = plan.aside.iter().filter(|kept| !kept.waits()).count();
            let Plan { events, rows: places, aside: put, blocked } = plan;
            let mut writes: Vec<_> = put.iter().map(|kept| kept.put(self.tenant)).collect();
            let notices = put.iter().filter(|kept| !kept.waits()).map(|kept| self.rejection(kept));
            let events: Vec<_> = events.into_iter().chain(notices).chain(told.clone()).collect();
            if !events.is_empty() {
                writes.push(Write::Append(Append { tenant: self.tenant, events, request: None }));
            }
            writes.push(self.position(position));
            match self.store.commit((self.env.now)(), writes).await {
                Ok(written) => {
                    self.moved(&written);
                    self.blocked.extend(blocked);
                    self.held.extend(put.iter().map(Quarantined::id));
                    self.meter.quarantined(self.held.len());
                    self.meter.relayed(fresh(&written, places.len()));
                    self.meter.rejected(rejected);
                    return Ok(());
                }
                Err(CommitError::Refused(Refusal::IdTaken { index })) if index < places.len() => {
                    refused.insert(places[index], id_taken());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn plan(&self, rows: &[Row], refused: &HashMap<u64, Violation>) -> Plan {
        let mut plan = Plan::default();
        // A row that is there already was read again from the beginning.
        let held =
            |row: &Row| !self.held.is_empty() && self.held.contains(&quarantine::id_of(&self.settings.name, row));
        for row in rows.iter().filter(|row| !held(row)) {
            let aggregate = row.aggregate_id.as_deref();
            if aggregate.is_some_and(|key| self.blocked.contains(key) || plan.blocked.contains(key)) {
                plan.aside.push(self.quarantine(row, &[]));
                continue;
            }
            let judged = match refused.get(&row.number) {
                Some(violation) => Err(vec![violation.clone()]),
                None => row.draft(&self.settings.limits),
            };
            match judged {
                Ok(draft) => {
                    plan.rows.push(row.number);
                    plan.events.push(self.prepare(draft));
                }
                Err(violations) => {
                    plan.blocked.extend(aggregate.map(Box::from));
                    plan.aside.push(self.quarantine(row, &violations));
                }
            }
        }
        plan
    }

    pub(super) fn quarantine(&self, row: &Row, violations: &[Violation]) -> Quarantined {
        let (source, at_ms) = (self.settings.name.clone(), (self.env.now)().as_millis());
        Quarantined { source, at_ms, faults: violations.iter().map(Fault::from).collect(), row: row.clone() }
    }

    pub(super) fn prepare(&self, draft: Draft) -> Prepared {
        let mut random = [0; 26];
        (self.env.random)(&mut random);
        let defaults = Defaults { now: (self.env.now)(), source: &self.settings.source, random };
        Prepared::new(self.tenant, draft.encode(&defaults))
    }

    /// The operational event that tells of a rejected row.
    pub(super) fn rejection(&self, kept: &Quarantined) -> Prepared {
        let data = json!({
            "source": kept.source,
            "id": kept.id(),
            "row": kept.row.number,
            "eventType": kept.row.event_type,
            "aggregateId": kept.row.aggregate_id,
            "faults": kept.faults,
        });
        self.notice("tidings.source.rejected", &data)
    }

    pub(super) fn notice(&self, event_type: &'static str, data: &Value) -> Prepared {
        notice(self.env, self.tenant, event_type, data)
    }

    fn position(&self, position: &str) -> Write {
        let document = Document {
            kind: Kind::Position,
            owner: Owner::Operator,
            id: self.settings.name.clone(),
            revision: 0,
            body: position.as_bytes().to_vec(),
        };
        Write::Put(document, Expect::Revision(self.revision))
    }

    fn moved(&mut self, written: &[Written]) {
        if let Some(Written::Put(revision)) = written.last() {
            self.revision = *revision;
        }
    }
}

/// The operational event that tells of something.
pub(super) fn notice(env: Env, tenant: Tenant, event_type: &'static str, data: &Value) -> Prepared {
    let (now, mut random) = ((env.now)(), [0; 26]);
    (env.random)(&mut random);
    let data = Bytes::from(data.to_string());
    let told = Operational { event_type, about: None, actor: None, data }.encode(now, random);
    // The names are written here, and right.
    Prepared::new(tenant, told.unwrap_or_else(|error| unreachable!("{event_type}: {error}")))
}

/// How many of the first `count` events of a commit are new.
fn fresh(written: &[Written], count: usize) -> usize {
    let appended = written.iter().find_map(|written| match written {
        Written::Appended { results, .. } => Some(&results[..count.min(results.len())]),
        _ => None,
    });
    appended.unwrap_or_default().iter().filter(|result| !result.duplicate).count()
}

pub(super) fn id_taken() -> Violation {
    let message =
        "another event of this tenant has this id and other content: give each event its own, or leave it out";
    Violation::new("/eventId", Rule::Invalid, message)
}

impl From<CommitError> for Halt {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Refused(Refusal::Revision) => {
                Self::Trouble("somebody else has moved the position of this source".to_owned())
            }
            other => Self::Trouble(other.to_string()),
        }
    }
}

impl From<Unavailable> for Halt {
    fn from(error: Unavailable) -> Self {
        Self::Trouble(error.to_string())
    }
}
