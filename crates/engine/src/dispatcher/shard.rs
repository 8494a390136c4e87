//! A thread's part of all subscriptions: who they are, who runs, what waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tidings_core::circuit::Standing;
use tidings_core::offset::Offset;
use tidings_log::store::{Sweep, Swept};
use tidings_log::{Event, Store, Tenant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::entry::{Drained, End, Entry, INBOX_MAX, Live, Running, Told};
use super::meter::Meter;
use super::orders::Ordered;
use super::room::{ATTEMPTS_MAX, Room};
use super::{Env, LaneStatus, Subscription, Totals, runner, slot, sweeper};
use crate::interest::Interest;

/// Subscriptions that one sweep makes current.
const CURRENT_MAX: usize = 1_024;

pub(super) struct Shard {
    pub(super) store: Arc<dyn Store>,
    pub(super) env: Env,
    pub(super) room: Room,
    pub(super) meter: Meter,
    runtime: Handle,
    state: Mutex<State>,
    /// How far the shard's own life is.
    phase: watch::Sender<Phase>,
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

/// What the log keeps of subscriptions that are not started yet.
#[derive(Default)]
struct Known {
    behind: HashSet<Box<str>>,
    dead: HashMap<Box<str>, u64>,
    replays: HashSet<Box<str>>,
    standings: HashMap<Box<str>, Standing>,
    swept: BTreeMap<(Tenant, u8), Offset>,
}

/// A tenant's part of a shard.
struct Part {
    interest: Interest,
    /// Through here every event was put to those who want it.
    place: Offset,
    /// As committed, or being committed, by slot.
    swept: BTreeMap<u8, Offset>,
    sweeper: watch::Receiver<()>,
}

impl Shard {
    pub(super) fn new(store: Arc<dyn Store>, env: Env, runtime: Handle, count: usize) -> Arc<Self> {
        Arc::new(Self {
            store,
            env,
            room: Room::new(ATTEMPTS_MAX.div_ceil(count)),
            meter: Meter::default(),
            runtime,
            state: Mutex::default(),
            phase: watch::Sender::new(Phase::Loading),
        })
    }

    pub(super) fn remember_swept(&self, swept: Swept) {
        self.state.lock().known.swept.insert((swept.tenant, swept.slot), swept.through);
    }

    pub(super) fn remember_behind(&self, id: Box<str>) {
        self.state.lock().known.behind.insert(id);
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
        let own = state.known.behind.remove(&id) || phase == Phase::Running;
        let swept = state.known.swept.get(&(tenant, slot)).copied();
        let entry = Entry {
            slot,
            standing: state.known.standings.remove(&id).unwrap_or_default(),
            dead: state.known.dead.remove(&id).unwrap_or(0),
            replays: state.known.replays.remove(&id),
            since: swept.unwrap_or(subscription.start),
            own,
            committed: Offset(0),
            bucket: None,
            lane: None,
            renewed: false,
            subscription: Arc::clone(&subscription),
        };
        let place = self.part(&mut state, tenant);
        let (active, since) = (entry.standing.is_active(), entry.since);
        state.by_id.insert(id, number);
        state.entries.insert(number, entry);
        if active && own {
            self.spawn(&mut state, number, None, VecDeque::new());
        } else if active {
            state.interest(number, true);
            if since < place {
                self.spawn(&mut state, number, Some(since), VecDeque::new());
            }
        }
    }

    /// The place of a tenant's part, which is made if there is none.
    fn part(self: &Arc<Self>, state: &mut State, tenant: Tenant) -> Offset {
        if let Some(part) = state.parts.get(&tenant) {
            return part.place;
        }
        let swept: BTreeMap<u8, Offset> =
            state.known.swept.range((tenant, 0)..=(tenant, u8::MAX)).map(|((_, slot), at)| (*slot, *at)).collect();
        let place = swept.values().min().copied().unwrap_or_else(|| self.store.extent(tenant).head);
        let (alive, sweeper) = watch::channel(());
        state.parts.insert(tenant, Part { interest: Interest::default(), place, swept, sweeper });
        let shard = Arc::clone(self);
        self.runtime.spawn(async move {
            let _alive = alive;
            sweeper::run(&shard, tenant).await;
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
        let cursor = at.unwrap_or(entry.since);
        let live = Arc::new(Mutex::new(Live { cursor, clear: cursor, own: entry.own, ..Live::default() }));
        let running = Running {
            told: told_sender,
            orders: orders_sender,
            bell: Arc::default(),
            attached: !inbox.is_empty(),
            inbox,
            live: Arc::clone(&live),
            ended,
        };
        let opening = runner::Opening {
            shard: Arc::clone(self),
            number,
            subscription: Arc::clone(&entry.subscription),
            standing: entry.standing.clone(),
            bucket: entry.bucket,
            at,
            own: entry.own,
            replays: entry.replays,
            bell: Arc::clone(&running.bell),
            live,
        };
        entry.lane = Some(running);
        self.runtime.spawn(async move {
            let _alive = alive;
            runner::run(opening, told, orders).await;
        });
    }

    /// Puts swept events to those who want them.
    pub(super) fn put(self: &Arc<Self>, tenant: Tenant, events: &[Arc<Event>]) {
        let mut state = self.state.lock();
        let mut found = Vec::new();
        let mut rung = Vec::new();
        for event in events {
            let Some(part) = state.parts.get(&tenant) else { return };
            part.interest.find(&event.subject, &mut found);
            for &number in &found {
                let Some(entry) = state.entries.get_mut(&number).filter(|entry| event.offset > entry.since) else {
                    continue;
                };
                match &mut entry.lane {
                    Some(lane) if lane.attached => {
                        lane.attached = lane.inbox.len() < INBOX_MAX;
                        if lane.attached {
                            lane.inbox.push_back(Arc::clone(event));
                        }
                        if rung.last() != Some(&number) {
                            rung.push(number);
                        }
                    }
                    // It reads for itself until it has caught up.
                    Some(_) => {}
                    None => {
                        let at = Offset(event.offset.0 - 1);
                        self.spawn(&mut state, number, Some(at), VecDeque::from([Arc::clone(event)]));
                    }
                }
            }
        }
        if let (Some(part), Some(last)) = (state.parts.get_mut(&tenant), events.last()) {
            part.place = part.place.max(last.offset);
        }
        rung.sort_unstable();
        rung.dedup();
        for lane in rung.iter().filter_map(|number| state.entries.get(number)?.lane.as_ref()) {
            lane.bell.notify_one();
        }
    }

    /// Moves a tenant's place over events that nobody is left to want.
    pub(super) fn pass(&self, tenant: Tenant, through: Offset) {
        if let Some(part) = self.state.lock().parts.get_mut(&tenant) {
            part.place = part.place.max(through);
        }
    }

    /// A tenant's place, and whether anybody wants events.
    pub(super) fn place(&self, tenant: Tenant) -> (Offset, bool) {
        let state = self.state.lock();
        state.parts.get(&tenant).map_or((Offset(0), false), |part| (part.place, !part.interest.is_empty()))
    }

    /// What a sweep has to commit for a tenant: a write for each slot that moved.
    pub(super) fn sweeps(&self, tenant: Tenant) -> Vec<Sweep> {
        let mut state = self.state.lock();
        let State { entries, parts, .. } = &mut *state;
        // A shard that is shut has given its lanes away: they only look idle.
        let part = parts.get_mut(&tenant).filter(|_| *self.phase.borrow() != Phase::Shut);
        let Some(part) = part else { return Vec::new() };
        let mut through: BTreeMap<u8, Offset> = BTreeMap::new();
        for entry in entries.values().filter(|entry| entry.subscription.tenant == tenant) {
            let through = through.entry(entry.slot).or_insert(part.place);
            // What a lane without a row of its own has not settled, the slot must not pass.
            if let Some(cursor) = entry.uncommitted() {
                *through = cursor.min(*through);
            }
        }
        let mut sweeps: Vec<_> = through
            .into_iter()
            .map(|(slot, through)| Sweep { tenant, slot, through, current: Vec::new() })
            .filter(|sweep| part.swept.get(&sweep.slot).is_none_or(|before| *before < sweep.through))
            .collect();
        let mut left = CURRENT_MAX;
        for entry in entries.values_mut().filter(|entry| entry.subscription.tenant == tenant && entry.is_idle()) {
            let sweep = sweeps.iter_mut().find(|sweep| sweep.slot == entry.slot);
            let Some(sweep) = sweep.filter(|sweep| left > 0 && entry.committed <= sweep.through) else { continue };
            entry.own = false;
            entry.since = entry.since.max(sweep.through);
            sweep.current.push(entry.subscription.id.clone());
            left -= 1;
        }
        part.swept.extend(sweeps.iter().map(|sweep| (sweep.slot, sweep.through)));
        sweeps
    }

    /// Takes back what [`Shard::sweeps`] told: it could not be committed.
    pub(super) fn unswept(&self, tenant: Tenant, sweeps: &[Sweep]) {
        let mut state = self.state.lock();
        let State { entries, parts, by_id, .. } = &mut *state;
        for sweep in sweeps {
            if let Some(part) = parts.get_mut(&tenant) {
                part.swept.remove(&sweep.slot);
            }
            for entry in sweep.current.iter().filter_map(|id| by_id.get(id)) {
                if let Some(entry) = entries.get_mut(entry) {
                    entry.own = true;
                }
            }
        }
    }

    /// What waits for a lane, up to `limit` events.
    pub(super) fn drain(&self, number: u32, limit: usize) -> Drained {
        let mut state = self.state.lock();
        let State { entries, parts, .. } = &mut *state;
        let Some(entry) = entries.get_mut(&number) else { return Drained::default() };
        let place = parts.get(&entry.subscription.tenant).map(|part| part.place);
        let Some(lane) = &mut entry.lane else { return Drained::default() };
        let count = limit.min(lane.inbox.len());
        let events = lane.inbox.drain(..count).collect();
        let empty = lane.inbox.is_empty();
        Drained { events, attached: lane.attached, empty, reached: place.filter(|_| lane.attached && empty) }
    }

    /// Has the sweeper put events to a lane again, if it has seen all that were put to others.
    pub(super) fn attach(&self, number: u32, seen: Offset) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get(&number) else { return false };
        if state.parts.get(&entry.subscription.tenant).is_none_or(|part| seen < part.place) {
            return false;
        }
        state.interest(number, true);
        match state.entries.get_mut(&number).and_then(|entry| entry.lane.as_mut()) {
            Some(lane) => {
                lane.attached = true;
                true
            }
            None => false,
        }
    }

    /// Has a lane read for itself: its cursor was moved.
    pub(super) fn detach(&self, number: u32) {
        let mut state = self.state.lock();
        if let Some(lane) = state.entries.get_mut(&number).and_then(|entry| entry.lane.as_mut()) {
            lane.attached = false;
            lane.inbox.clear();
        }
    }

    /// Ends a lane that has nothing to do; false if something came meanwhile.
    pub(super) fn leave(&self, number: u32, end: End, quiet: impl FnOnce() -> bool) -> bool {
        let mut state = self.state.lock();
        let State { entries, parts, .. } = &mut *state;
        let Some(entry) = entries.get_mut(&number) else { return true };
        let dormant = !end.standing.is_active();
        let Some(lane) = &entry.lane else { return true };
        if !quiet() || entry.renewed || (!dormant && (!lane.attached || !lane.inbox.is_empty())) {
            return false;
        }
        entry.end(end);
        if let Some(part) = parts.get(&entry.subscription.tenant).filter(|_| !dormant) {
            entry.since = part.place;
        }
        if dormant {
            state.interest(number, false);
        }
        true
    }

    /// Notes that a lane was ended, or ended because it must.
    pub(super) fn finish(self: &Arc<Self>, number: u32, end: End) {
        let mut state = self.state.lock();
        let shut = *self.phase.borrow() == Phase::Shut;
        let Some(entry) = state.entries.get_mut(&number) else { return };
        let own = end.own;
        let cursor = end.committed;
        entry.end(end);
        if std::mem::take(&mut entry.renewed) && !shut && entry.standing.is_active() {
            let at = (!own).then_some(cursor);
            self.spawn(&mut state, number, at, VecDeque::new());
        }
    }

    pub(super) fn note_dead(&self, number: u32, more: u64, less: u64) {
        if let Some(entry) = self.state.lock().entries.get_mut(&number) {
            entry.dead = (entry.dead + more).saturating_sub(less);
        }
    }

    pub(super) fn order(self: &Arc<Self>, id: &str, ordered: Ordered) -> bool {
        let mut state = self.state.lock();
        let Some(&number) = state.by_id.get(id) else { return false };
        if *self.phase.borrow() == Phase::Shut {
            return true;
        }
        let Some(entry) = state.entries.get(&number) else { return false };
        if entry.lane.is_none() {
            let at = (!entry.own).then(|| state.parts.get(&entry.subscription.tenant).map(|part| part.place)).flatten();
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
            state.entries.remove(&number).and_then(|entry| entry.lane)
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
        let mut totals = Totals { attempts: self.meter.attempts(), ..Totals::default() };
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
        lanes.iter().for_each(|lane| lane.tell(Told::Settle));
        if tokio::time::timeout(patience, join_all(lanes.iter_mut().map(Running::ended))).await.is_err() {
            lanes.iter().for_each(|lane| lane.tell(Told::Cancel));
            join_all(lanes.iter_mut().map(Running::ended)).await;
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
            part.interest.insert(number, entry.subscription.filter.clone());
        }
    }
}
