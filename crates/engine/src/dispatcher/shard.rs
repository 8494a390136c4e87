//! A thread's part of all subscriptions: who they are, who runs, what waits for them.

mod known;
mod lanes;
mod panics;
mod part;
mod sweeping;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use foldhash::HashMap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tidings_core::circuit::Standing;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::{Behind, Swept};
use tidings_log::{Event, Store, Tenant};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};

use super::entry::{Entry, Live, Running, Told, inbox_max};
use super::meter::Meter;
use super::orders::Ordered;
use super::room::Room;
use super::shelf::Shelf;
use super::{Env, LaneStatus, Subscription, Totals, runner, slot};
use known::{Kept, Known};
use part::Part;
pub(super) use sweeping::CURRENT_MAX;

/// Lanes of a shard that read at once where they begin.
const OPENINGS_MAX: usize = 64;

pub(super) struct Shard {
    pub(super) store: Arc<dyn Store>,
    pub(super) env: Env,
    pub(super) room: Room,
    pub(super) shelf: Shelf,
    pub(super) meter: Meter,
    runtime: Handle,
    state: Mutex<State>,
    /// Lanes that read where they begin.
    pub(super) openings: Semaphore,
    /// How far the shard's own life is.
    phase: watch::Sender<Phase>,
    /// Until then attempts are counted before they are made, in milliseconds since 1970.
    careful_until: AtomicI64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Subscriptions are being added; nothing is swept yet.
    Loading,
    Running,
    Shut,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<u32, Entry>,
    by_id: HashMap<Box<str>, u32>,
    parts: BTreeMap<Tenant, Part>,
    known: Known,
    next: u32,
}

impl Shard {
    pub(super) fn new(store: Arc<dyn Store>, env: Env, runtime: Handle, places: usize) -> Arc<Self> {
        let (room, phase) = (Room::new(places), watch::Sender::new(Phase::Loading));
        let (turns, mut shut) = (room.clone(), phase.subscribe());
        runtime.spawn(async move {
            tokio::select! {
                () = turns.take_turns() => {}
                _ = shut.wait_for(|phase| *phase == Phase::Shut) => {}
            }
        });
        Arc::new(Self {
            shelf: Shelf::new(Arc::clone(&store)),
            store,
            env,
            room,
            meter: Meter::default(),
            runtime,
            state: Mutex::default(),
            openings: Semaphore::new(OPENINGS_MAX),
            phase,
            careful_until: AtomicI64::new(i64::MIN),
        })
    }

    pub(super) fn remember_swept(&self, swept: Swept) {
        self.state.lock().known.remember_swept(swept);
    }

    pub(super) fn remember_behind(&self, behind: Behind) {
        let extent = self.store.extent(behind.tenant);
        self.state.lock().known.remember_behind(behind, extent);
    }

    pub(super) fn remember_dead(&self, id: Box<str>, count: u64) {
        self.state.lock().known.dead.insert(id, count);
    }

    pub(super) fn remember_replay(&self, id: Box<str>) {
        self.state.lock().known.replays.insert(id);
    }

    pub(super) fn remember_standing(&self, id: Box<str>, standing: Standing) {
        self.state.lock().known.standings.insert(id, standing);
    }

    pub(super) fn begin(&self) {
        self.phase.send_if_modified(|phase| {
            let begins = *phase == Phase::Loading;
            if begins {
                *phase = Phase::Running;
            }
            begins
        });
    }

    pub(super) fn be_careful(&self, until: Timestamp) {
        self.careful_until.store(until.as_millis(), Ordering::Relaxed);
    }

    pub(super) fn is_careful(&self, now: Timestamp) -> bool {
        now.as_millis() < self.careful_until.load(Ordering::Relaxed)
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn start(self: &Arc<Self>, subscription: Arc<Subscription>) {
        let mut state = self.state.lock();
        let phase = *self.phase.borrow();
        if phase == Phase::Shut {
            return;
        }
        if let Some(&number) = state.by_id.get(&subscription.id) {
            state.renew(number, subscription);
            return;
        }
        let (id, tenant, slot) = (subscription.id.clone(), subscription.tenant, slot(&subscription.id));
        let number = state.next;
        state.next += 1;
        // One that was made since the log was asked begins with what was committed with it.
        let kept = match state.known.take_behind(&id) {
            Kept::Nothing if phase == Phase::Running && subscription.fresh => Kept::Cursor(subscription.start),
            Kept::Nothing if phase == Phase::Running => Kept::More(subscription.start),
            kept => kept,
        };
        let stopped = state.known.take_stopped(&id).filter(|_| !subscription.fresh);
        let before = if phase == Phase::Running { stopped } else { state.known.swept(tenant, slot) };
        let since = before.unwrap_or(subscription.start);
        let place = self.part(&mut state, tenant);
        let entry = Entry {
            slot,
            standing: state.known.standings.remove(&id).unwrap_or_default(),
            dead: state.known.dead.remove(&id).unwrap_or(0),
            replays: state.known.replays.remove(&id) || stopped.is_some(),
            loaded: phase == Phase::Loading,
            recall: stopped.is_some(),
            since: kept.cursor().unwrap_or(since),
            own: kept != Kept::Nothing,
            committed: kept.committed(),
            bucket: None,
            lane: None,
            renewed: false,
            subscription: Arc::clone(&subscription),
        };
        let (active, since, replays) = (entry.standing.is_active(), entry.since, entry.replays);
        state.by_id.insert(id, number);
        state.entries.insert(number, entry);
        state.count(number);
        if active && (kept.is_more() || replays) {
            self.spawn(&mut state, number, None, VecDeque::new());
        } else if active {
            state.interest(number, true);
            if since < place {
                // Nothing was swept for it so far.
                self.spawn(&mut state, number, (kept == Kept::Nothing).then_some(since), VecDeque::new());
            }
        }
        state.track(number);
    }

    /// The place of a tenant's part, which is made if there is none.
    fn part(self: &Arc<Self>, state: &mut State, tenant: Tenant) -> Offset {
        if let Some(part) = state.parts.get(&tenant) {
            return part.place;
        }
        let (swept, place) = (state.known.slots(tenant), state.known.place(tenant, self.store.extent(tenant).head));
        let (alive, sweeper) = watch::channel(());
        state.parts.insert(tenant, Part::new(place, swept, sweeper));
        let shard = Arc::clone(self);
        self.runtime.spawn(async move {
            let _alive = alive;
            shard.sweep(tenant).await;
        });
        place
    }

    /// Begins a lane: from what the log keeps of it, or at a cursor.
    fn spawn(self: &Arc<Self>, state: &mut State, number: u32, at: Option<Offset>, inbox: VecDeque<Arc<Event>>) {
        if *self.phase.borrow() == Phase::Shut {
            return;
        }
        let Some(entry) = state.entries.get_mut(&number) else { return };
        let (told_sender, told) = watch::channel(Told::Run);
        let (orders_sender, orders) = mpsc::unbounded_channel();
        let (alive, ended) = watch::channel(());
        // What is shown until it is read what more there is: something.
        let cursor = at.unwrap_or(if entry.own { entry.committed.min(entry.since) } else { entry.since });
        let pending = usize::from(at.is_none());
        let live = Live { cursor, clear: cursor, own: entry.own, pending, ..Live::default() };
        let live = Arc::new(Mutex::new(live));
        let running = Running {
            told: told_sender,
            orders: orders_sender,
            bell: Arc::default(),
            attached: !inbox.is_empty(),
            inbox,
            inbox_max: inbox_max(entry.standing.circuit.repute()),
            live: Arc::clone(&live),
            ended,
        };
        let opening = runner::Opening {
            shard: Arc::clone(self),
            number,
            subscription: Arc::clone(&entry.subscription),
            standing: (!std::mem::take(&mut entry.recall)).then(|| entry.standing.clone()),
            bucket: entry.bucket,
            at,
            own: entry.own,
            from: entry.since,
            loaded: std::mem::take(&mut entry.loaded),
            replays: entry.replays,
            bell: Arc::clone(&running.bell),
            live,
        };
        entry.lane = Some(Box::new(running));
        state.track(number);
        let shard = Arc::clone(self);
        self.runtime.spawn(async move {
            let _alive = alive;
            shard.run(opening, told, orders).await;
        });
    }

    pub(super) fn order(self: &Arc<Self>, id: &str, ordered: Ordered) -> bool {
        let mut state = self.state.lock();
        let Some(&number) = state.by_id.get(id) else { return false };
        if *self.phase.borrow() == Phase::Shut {
            return true;
        }
        let Some(entry) = state.entries.get(&number) else { return false };
        if entry.lane.is_none() {
            let place = state.parts.get(&entry.subscription.tenant).map(|part| part.place.max(entry.since));
            let at = place.filter(|_| !entry.own);
            self.spawn(&mut state, number, at, VecDeque::new());
        }
        if let Some(lane) = state.entries.get(&number).and_then(|entry| entry.lane.as_ref()) {
            // A lane that ended meanwhile drops it, and who asked is told so.
            let _ = lane.orders.send(ordered);
            lane.bell.notify_one();
        }
        true
    }

    pub(super) async fn stop(&self, id: &str) {
        let lane = {
            let mut state = self.state.lock();
            let Some(number) = state.by_id.remove(id) else { return };
            state.interest(number, false);
            state.untrack(number);
            let Some(entry) = state.entries.remove(&number) else { return };
            let place = state.parts.get(&entry.subscription.tenant).map_or(Offset(0), |part| part.place);
            let settled = |lane: &Running| lane.live.lock().clear;
            let through = entry.lane.as_deref().map_or(entry.since.max(place), settled);
            state.known.remember_stopped(id.into(), through);
            entry.lane
        };
        if let Some(mut lane) = lane {
            lane.tell(Told::Settle);
            lane.ended().await;
        }
    }

    pub(super) fn status(&self, id: &str) -> Option<LaneStatus> {
        let state = self.state.lock();
        let entry = state.entries.get(state.by_id.get(id)?)?;
        let place = state.parts.get(&entry.subscription.tenant).map_or(Offset(0), |part| part.place);
        Some(entry.status(place, self.store.extent(entry.subscription.tenant).head))
    }

    pub(super) fn totals(&self) -> Totals {
        let state = self.state.lock();
        let (attempts, panics) = (self.meter.attempts(), self.meter.panics());
        let mut totals = Totals { attempts, panics, ..Totals::default() };
        totals.recent = self.meter.recent((self.env.now)());
        for entry in state.entries.values() {
            let tenant = entry.subscription.tenant;
            let place = state.parts.get(&tenant).map_or(Offset(0), |part| part.place);
            entry.add_to(&mut totals, place, self.store.extent(tenant).head);
        }
        totals
    }

    pub(super) async fn shutdown(&self, patience: Duration) {
        self.phase.send_replace(Phase::Shut);
        let (mut lanes, mut sweepers) = {
            let mut state = self.state.lock();
            let lanes: Vec<_> = state.entries.values_mut().filter_map(|entry| entry.lane.take()).collect();
            let sweepers: Vec<_> = state.parts.values().map(|part| part.sweeper.clone()).collect();
            (lanes, sweepers)
        };
        for lane in &lanes {
            lane.tell(Told::Settle);
        }
        if tokio::time::timeout(patience, join_all(lanes.iter_mut().map(|lane| lane.ended()))).await.is_err() {
            for lane in &lanes {
                lane.tell(Told::Cancel);
            }
            join_all(lanes.iter_mut().map(|lane| lane.ended())).await;
        }
        for sweeper in &mut sweepers {
            while sweeper.changed().await.is_ok() {}
        }
    }
}

impl State {
    /// Gives a subscription other settings; its lane ends first.
    fn renew(&mut self, number: u32, subscription: Arc<Subscription>) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        entry.subscription = subscription;
        if let Some(lane) = &entry.lane {
            entry.renewed = true;
            lane.tell(Told::Settle);
        }
        let wanted = entry.standing.is_active() && entry.lane.as_ref().is_none_or(|lane| lane.attached);
        self.interest(number, false);
        self.interest(number, wanted);
    }

    /// Has events put to a subscription, or no longer.
    fn interest(&mut self, number: u32, wanted: bool) {
        let Some(entry) = self.entries.get(&number) else { return };
        let Some(part) = self.parts.get_mut(&entry.subscription.tenant) else { return };
        part.interest.remove(number);
        if wanted {
            part.interest.insert(number, Arc::clone(&entry.subscription.filter));
        }
    }
}
