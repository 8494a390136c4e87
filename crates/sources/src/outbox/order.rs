//! What people decide about rows in quarantine, carried out between two batches by the relay itself.

use bytes::Bytes;
use foldhash::HashMap;
use tidings_core::event::Draft;
use tidings_core::problem::Violation;
use tidings_log::store::{Prepared, Refusal};
use tidings_log::{Append, CommitError, Write};
use tokio::sync::{mpsc, oneshot};

use super::desk::{Desk, id_taken};
use super::quarantine::{self, Fault, Quarantined};
use super::relay::Halt;

/// Orders that wait at most.
const WAITING_MAX: usize = 16;
/// Rows that are released in one commit.
const RELEASED_ROWS_MAX: usize = 500;

/// What to do with a rejected row.
#[derive(Debug)]
pub struct Order {
    /// The row's id in quarantine.
    pub id: Box<str>,
    /// To discard it; else it is tried again.
    pub discard: bool,
    /// An event to take in its place, JSON as it is published.
    pub instead: Option<Bytes>,
    /// What is committed together with it: who ordered it.
    pub told: Vec<Write>,
}

/// What came of an [`Order`].
#[derive(Debug, PartialEq, Eq)]
pub enum Answered {
    /// Done; so many rows that waited behind it have become events.
    Done {
        /// How many.
        released: usize,
    },
    /// There is no such row in quarantine.
    Unknown,
    /// It waits for an earlier row: deal with that.
    Waits {
        /// Which.
        behind: Box<str>,
    },
    /// It still cannot become an event.
    StillWrong(Vec<Violation>),
    /// The log or the source's relay cannot answer now.
    Unavailable(String),
}

/// Where orders are given.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<(Order, oneshot::Sender<Answered>)>);

pub(super) type Given = mpsc::Receiver<(Order, oneshot::Sender<Answered>)>;

pub(super) fn channel() -> (Orders, Given) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Orders(sender), receiver)
}

impl Orders {
    /// Has an order carried out.
    pub async fn give(&self, order: Order) -> Answered {
        let gone = || Answered::Unavailable("this source is not being read".to_owned());
        let (answer, answered) = oneshot::channel();
        match self.0.send((order, answer)).await {
            Ok(()) => answered.await.unwrap_or_else(|_| gone()),
            Err(_) => gone(),
        }
    }
}

impl Desk {
    pub(super) async fn order(&mut self, order: Order) -> Answered {
        self.carry_out(order).await.unwrap_or_else(|halt| Answered::Unavailable(halt.to_string()))
    }

    async fn carry_out(&mut self, order: Order) -> Result<Answered, Halt> {
        let rows = quarantine::all(&*self.store, self.tenant, &self.settings.name).await?;
        let Some(kept) = rows.iter().find(|kept| kept.id() == order.id) else { return Ok(Answered::Unknown) };
        let aggregate = kept.row.aggregate_id.as_deref();
        if kept.waits() {
            let head = rows.iter().find(|other| !other.waits() && other.row.aggregate_id.as_deref() == aggregate);
            return Ok(Answered::Waits { behind: head.map_or(order.id, Quarantined::id) });
        }
        let mut writes = vec![kept.remove(self.tenant)];
        if !order.discard {
            let draft = match &order.instead {
                Some(text) => Draft::parse(text, &self.settings.limits),
                None => kept.row.draft(&self.settings.limits),
            };
            match draft {
                Ok(draft) => writes.push(self.append(vec![self.prepare(draft)])),
                Err(violations) => return Ok(Answered::StillWrong(violations)),
            }
        }
        writes.extend(order.told);
        match self.store.commit((self.env.now)(), writes).await {
            Err(CommitError::Refused(Refusal::IdTaken { .. })) => return Ok(Answered::StillWrong(vec![id_taken()])),
            other => drop(other?),
        }
        self.left(std::slice::from_ref(kept));
        let released = match aggregate {
            Some(aggregate) => self.release(aggregate).await?,
            None => 0,
        };
        Ok(Answered::Done { released })
    }

    /// Makes events of the rows that wait for nobody any more, in order, until one is rejected itself.
    pub(super) async fn release(&mut self, aggregate: &str) -> Result<usize, Halt> {
        let mut refused = HashMap::default();
        let mut released = 0;
        loop {
            let rows = quarantine::all(&*self.store, self.tenant, &self.settings.name).await?;
            let waiting = rows.into_iter().filter(|kept| kept.row.aggregate_id.as_deref() == Some(aggregate));
            let waiting: Vec<_> = waiting.take(RELEASED_ROWS_MAX).collect();
            if waiting.is_empty() {
                self.blocked.remove(aggregate);
                return Ok(released);
            }
            let (events, rejected) = self.judge(&waiting, &refused);
            let done = events.len();
            let mut writes: Vec<_> = waiting[..done].iter().map(|kept| kept.remove(self.tenant)).collect();
            let told = rejected.iter().map(|kept| self.rejection(kept));
            writes.push(self.append(events.into_iter().chain(told).collect()));
            writes.extend(rejected.iter().map(|kept| kept.put(self.tenant)));
            match self.store.commit((self.env.now)(), writes).await {
                Err(CommitError::Refused(Refusal::IdTaken { index })) if index < done => {
                    refused.insert(waiting[index].row.number, id_taken());
                    continue;
                }
                other => drop(other?),
            }
            self.left(&waiting[..done]);
            released += done;
            if rejected.is_some() {
                self.meter.rejected(1);
                return Ok(released);
            }
        }
    }

    /// The events of the first rows that can become some, and the row that follows if it cannot.
    fn judge(
        &self,
        waiting: &[Quarantined],
        refused: &HashMap<u64, Violation>,
    ) -> (Vec<Prepared>, Option<Quarantined>) {
        let mut events = Vec::new();
        for kept in waiting {
            let judged = match refused.get(&kept.row.number) {
                Some(violation) => Err(vec![violation.clone()]),
                None => kept.row.draft(&self.settings.limits),
            };
            match judged {
                Ok(draft) => events.push(self.prepare(draft)),
                Err(violations) => {
                    let faults = violations.iter().map(Fault::from).collect();
                    return (events, Some(Quarantined { faults, ..kept.clone() }));
                }
            }
        }
        (events, None)
    }

    fn append(&self, events: Vec<Prepared>) -> Write {
        Write::Append(Append { tenant: self.tenant, events, request: None })
    }

    /// These rows are in quarantine no more.
    fn left(&mut self, rows: &[Quarantined]) {
        for kept in rows {
            self.held.remove(&kept.id());
        }
        self.meter.quarantined(self.held.len());
    }
}
