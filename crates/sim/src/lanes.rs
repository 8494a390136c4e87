//! The dispatcher as the simulation sees it. SCRATCH: a simple shell over the lane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::circuit::Standing;
use tidings_core::filter::Filter;
use tidings_core::lane::{Acks, Attempted, Lane, Notice, Outcome, Send as Turn, Settings};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{
    Append, Attempt, DeadQuery, DeadState, Document, Expect, Kind, Letter, Owner, Prepared, Settle,
};
use tidings_log::{Event, Query, Store, Tenant, Write};
use tidings_sinks::{Parcel, Sink};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::world::Order;

#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) name: Box<str>,
    pub(crate) tenant: Tenant,
    pub(crate) filter: Filter,
    pub(crate) settings: Settings,
    pub(crate) sink: Arc<dyn Sink>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) active: bool,
    pub(crate) rest: bool,
    pub(crate) parked: usize,
    pub(crate) in_flight: usize,
}

enum Told {
    Order(Order, oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
    Cancel,
}

pub(crate) struct Lanes {
    store: Arc<dyn Store>,
    running: Mutex<BTreeMap<Box<str>, (mpsc::UnboundedSender<Told>, watch::Receiver<Seen>)>>,
}

impl Lanes {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, running: Mutex::default() }
    }

    pub(crate) fn start(&self, spec: Spec) {
        let (tell, told) = mpsc::unbounded_channel();
        let (status, seen) = watch::channel(Seen::default());
        let former = self.running.lock().insert(spec.name.clone(), (tell, seen));
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            if let Some((former, _)) = former {
                let (done, ended) = oneshot::channel();
                let _ = former.send(Told::Stop(done));
                let _ = ended.await;
            }
            Shell::open(store, spec, status).await.run(told).await;
        });
    }

    pub(crate) async fn order(&self, name: &str, order: Order) -> bool {
        let Some(tell) = self.running.lock().get(name).map(|(tell, _)| tell.clone()) else { return false };
        let (done, confirmed) = oneshot::channel();
        tell.send(Told::Order(order, done)).is_ok() && confirmed.await.is_ok()
    }

    pub(crate) async fn shutdown(&self, patience: Duration) -> bool {
        let all: Vec<_> = std::mem::take(&mut *self.running.lock()).into_values().collect();
        let mut ends = Vec::new();
        for (tell, _) in &all {
            let (done, ended) = oneshot::channel();
            let _ = tell.send(Told::Stop(done));
            ends.push(ended);
        }
        let wait = async {
            for end in &mut ends {
                let _ = end.await;
            }
        };
        if tokio::time::timeout(patience, wait).await.is_ok() {
            return true;
        }
        for (tell, _) in &all {
            let _ = tell.send(Told::Cancel);
        }
        for (tell, _) in all {
            tell.closed().await;
        }
        false
    }

    pub(crate) fn status(&self, name: &str) -> Option<Seen> {
        self.running.lock().get(name).map(|(_, seen)| *seen.borrow())
    }
}

struct Shell {
    store: Arc<dyn Store>,
    spec: Spec,
    status: watch::Sender<Seen>,
    lane: Lane,
    attempts: Vec<Attempt>,
    flying: JoinSet<(Turn, Timestamp, Timestamp, Outcome, bool)>,
    letters: u64,
    closes: Vec<(Box<str>, DeadState)>,
}

fn key(event: &Event) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let aggregate = event.subject.aggregate.as_ref()?;
    let mut hasher = DefaultHasher::new();
    aggregate.hash(&mut hasher);
    Some(hasher.finish())
}

impl Shell {
    async fn open(store: Arc<dyn Store>, spec: Spec, status: watch::Sender<Seen>) -> Self {
        let progress = store.progress(&spec.name).await.unwrap().unwrap_or_default();
        let owner = Owner::Tenant(spec.tenant);
        let standing = store.get(Kind::Standing, owner, &spec.name).await.unwrap();
        let standing: Standing = standing.map(|d| serde_json::from_slice(&d.body).unwrap()).unwrap_or_default();
        let mut rows = Vec::new();
        for row in progress.rows {
            let event = store.event(spec.tenant, row.offset).await.unwrap().unwrap();
            rows.push((row, key(&event)));
        }
        let acks = Acks::from_bytes(progress.cursor, &progress.acked);
        let lane = Lane::new(spec.settings.clone(), standing, progress.cursor, acks, rows, clock::now());
        Self { store, spec, status, lane, attempts: Vec::new(), flying: JoinSet::new(), letters: 0, closes: Vec::new() }
    }

    fn jitter(&self) -> f64 {
        let mut b = [0; 1];
        clock::random(&mut b);
        f64::from(b[0]) / 255.0
    }

    async fn run(mut self, mut told: mpsc::UnboundedReceiver<Told>) {
        let mut head = self.store.tail().watch(self.spec.tenant);
        let mut stop: Option<oneshot::Sender<()>> = None;
        loop {
            head.borrow_and_update();
            if stop.is_none() {
                self.read().await;
                self.follow().await;
                let now = clock::now();
                while let Some(turn) = self.lane.next(now) {
                    self.send(turn);
                }
            }
            self.commit().await;
            let at_rest = self.flying.is_empty() && self.attempts.is_empty() && self.lane.pending() == 0;
            self.status.send_replace(Seen {
                active: self.lane.standing().is_active(),
                rest: at_rest && self.lane.seen() >= self.store.extent(self.spec.tenant).head,
                parked: self.lane.parked(),
                in_flight: self.lane.in_flight(),
            });
            if &*self.spec.name == "wh_1" && std::env::var("DBG").is_ok() { println!("DBG {} fly {} att {} pending {} seen {} head {} {:?}", clock::now().as_millis() - clock::START.as_millis(), self.flying.len(), self.attempts.len(), self.lane.pending(), self.lane.seen(), self.store.extent(self.spec.tenant).head, self.lane); }
            if stop.is_some() && self.flying.is_empty() {
                return;
            }
            let wake = self.lane.wake_at(clock::now()).filter(|_| stop.is_none());
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep(at.since(clock::now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                order = told.recv() => match order {
                    Some(Told::Order(order, done)) => { self.order(order).await; let _ = done.send(()); }
                    Some(Told::Stop(done)) => stop = Some(done),
                    Some(Told::Cancel) | None => return,
                },
                Some(ended) = self.flying.join_next(), if !self.flying.is_empty() => self.landed(ended.unwrap()),
                () = timer => {}
                _ = head.changed(), if stop.is_none() => {}
            }
        }
    }

    async fn read(&mut self) {
        loop {
            let wants = self.lane.wants();
            if wants == 0 {
                return;
            }
            let seen = self.lane.seen();
            let page = self.store.read(Query::after(self.spec.tenant, seen, wants.min(100))).await.unwrap();
            for event in &page.events {
                if self.spec.filter.matches(&event.subject) {
                    self.lane.offer(event.offset, key(event));
                }
            }
            self.lane.pass(page.reached);
            if !page.more {
                return;
            }
        }
    }

    async fn follow(&mut self) {
        while let Some(follow) = self.lane.follow() {
            let of = self.store.event(self.spec.tenant, follow.of).await.unwrap().unwrap();
            let mut filter = self.spec.filter.clone();
            filter.aggregate = of.subject.aggregate.clone();
            let query = Query { filter, through: Some(follow.through), ..Query::after(self.spec.tenant, follow.after, 3) };
            let page = self.store.read(query).await.unwrap();
            let offsets: Vec<Offset> = page.events.iter().map(|e| e.offset).collect();
            self.lane.followed(follow, &offsets, page.reached);
        }
    }

    fn send(&mut self, turn: Turn) {
        let (store, tenant, sink) = (Arc::clone(&self.store), self.spec.tenant, Arc::clone(&self.spec.sink));
        self.flying.spawn(async move {
            let event = store.event(tenant, turn.offset).await.unwrap().unwrap();
            let began = clock::now();
            let parcel = Parcel {
                id: &event.subject.id,
                event_type: &event.subject.event_type,
                header: &event.header,
                data: event.bytes(),
                envelope: None,
                attempt: turn.attempt,
                replay: turn.replay.as_deref(),
            };
            let outcome = sink.deliver(&[parcel]).await.pop().unwrap();
            let operational = event.subject.event_type.is_operational();
            (turn, began, clock::now(), outcome, operational)
        });
    }

    fn landed(&mut self, (turn, began, ended, outcome, operational): (Turn, Timestamp, Timestamp, Outcome, bool)) {
        self.attempts.push(Attempt {
            subscription: self.spec.name.clone(),
            offset: turn.offset,
            number: turn.attempt,
            at: began,
            latency_ms: ended.since(began).as_millis() as u32,
            status: outcome.answer().status,
            reason: outcome.reason().map(Into::into),
            answer: None,
            replay: turn.replay.is_some(),
        });
        let jitter = self.jitter();
        self.lane.settle(Attempted { offset: turn.offset, began, ended, operational }, outcome, jitter);
    }

    fn take(&mut self) -> Option<tidings_core::lane::Changes> {
        let changes = self.lane.take_changes();
        if changes.is_some() || self.closes.is_empty() { return changes; }
        let cursor = self.lane.cursor();
        panic!("closes without changes at {cursor}");
    }

    async fn commit(&mut self) {
        while let Some(changes) = self.take() {
            let closes = std::mem::take(&mut self.closes);
            let tenant = self.spec.tenant;
            let (standing, notices) = (changes.standing.clone(), changes.notices.clone());
            let attempts = std::mem::take(&mut self.attempts);
            let mut letters = Vec::new();
            let mut told: Vec<(String, String)> = Vec::new();
            for dead in &changes.dead {
                self.letters += 1;
                let event = self.store.event(tenant, dead.offset).await.unwrap().unwrap();
                let id = format!("dl_{:016}_{:04}_{}", clock::now().as_millis(), self.letters, self.spec.name);
                if !event.subject.event_type.is_operational() {
                    told.push(("tidings.delivery.dead_lettered".into(), format!("{{\"webhook\":\"{}\"}}", self.spec.name)));
                }
                letters.push(Letter { id: id.into(), event_type: event.subject.event_type.as_str().into() });
            }
            for notice in &notices {
                let kind = match notice {
                    Notice::Failing { .. } => "failing",
                    Notice::Recovered { .. } => "recovered",
                    Notice::Deactivated { .. } => "deactivated",
                    Notice::Gap { .. } => "gap",
                };
                told.push((format!("tidings.webhook.{kind}"), format!("{{\"id\":\"{}\"}}", self.spec.name)));
            }
            loop {
                let settle = Settle {
                    subscription: self.spec.name.clone(),
                    tenant,
                    changes: changes.clone(),
                    letters: letters.clone(),
                    attempts: attempts.clone(),
                };
                let mut writes = vec![Write::Settle(settle)];
                for (id, state) in &closes {
                    writes.push(Write::Close(tenant, vec![id.clone()], state.clone()));
                }
                if let Some(standing) = &standing {
                    let body = serde_json::to_vec(standing).unwrap();
                    let owner = Owner::Tenant(tenant);
                    let document = Document { kind: Kind::Standing, owner, id: self.spec.name.clone(), revision: 0, body };
                    writes.push(Write::Put(document, Expect::Any));
                }
                if !told.is_empty() {
                    let events = told.iter().map(|(kind, data)| {
                        let mut draft = crate::world::event(0, "x", None, kind, &[]);
                        draft.id = None;
                        draft.data = data.clone().into();
                        let mut random = [0; 26];
                        clock::random(&mut random);
                        let defaults = tidings_core::event::Defaults { now: clock::now(), source: "/tidings", random };
                        Prepared::new(tenant, draft.encode(&defaults))
                    });
                    writes.push(Write::Append(Append { tenant, events: events.collect(), request: None }));
                }
                match self.store.commit(clock::now(), writes).await {
                    Ok(_) => break,
                    Err(_) => tokio::time::sleep(Duration::from_millis(250)).await,
                }
            }
            self.lane.committed();
        }
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::Pause => self.lane.pause(clock::now()),
            Order::Resume => self.lane.resume(),
            Order::Activate => self.lane.activate(),
            Order::ReplayDead | Order::Discard => {
                let query = DeadQuery {
                    tenant: self.spec.tenant,
                    subscription: Some(self.spec.name.clone()),
                    event_type: None,
                    since: None,
                    open: true,
                    before: None,
                    limit: 1000,
                };
                for letter in self.store.dead_letters(query).await.unwrap().into_iter().rev() {
                    let event = self.store.event(self.spec.tenant, letter.offset).await.unwrap().unwrap();
                    let at = clock::now();
                    let state = if order == Order::Discard {
                        DeadState::Discarded { at, reason: "x".into() }
                    } else {
                        if !self.lane.revive(letter.offset, key(&event), Some("rp".into())) {
                            continue;
                        }
                        DeadState::Replayed { at }
                    };
                    self.closes.push((letter.id.clone(), state));
                    if order == Order::Discard && !self.lane.release(letter.offset) { self.closes.pop(); let w = Write::Close(self.spec.tenant, vec![letter.id.clone()], DeadState::Discarded { at, reason: "x".into() }); let _ = self.store.commit(at, vec![w]).await; }
                }
            }
            _ => {}
        }
        self.commit().await;
    }
}
