//! The loop of one lane: take what waits, send, settle, commit, wait.

mod committing;
mod fetching;
mod following;
mod ordering;
mod sending;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tidings_core::circuit::{Repute, Standing};
use tidings_core::lane::Lane;
use tidings_core::offset::Offset;
use tidings_core::rate::Bucket;
use tidings_core::time::Timestamp;
use tidings_log::{Event, Page, Unavailable, query::PAGE_EVENTS_MAX};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use super::attempt::Attempts;
use super::entry::{End, Live, Told};
use super::ledger::Ledger;
use super::orders::Ordered;
use super::replay::Replay;
use super::room::Ticket;
use super::shard::{Phase, Shard};
use super::signals::{Pace, Signal, Signals};
use super::{Subscription, reading};
use committing::Committing;

/// A lane that has had nothing to do for so long ends.
const LINGER: Duration = Duration::from_secs(2);
/// Events looked at in the ring before something else gets its turn.
const CHUNK: usize = 256;
/// The pauses between tries of a read that fails, and before an attempt whose event could not be read.
const READ_PAUSE: Duration = Duration::from_secs(1);
/// Who waits for room asks again after this, should nobody ring.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// What a lane begins with.
pub(super) struct Opening {
    pub(super) shard: Arc<Shard>,
    pub(super) number: u32,
    pub(super) subscription: Arc<Subscription>,
    /// How it stands; `None`: the log says.
    pub(super) standing: Option<Standing>,
    pub(super) bucket: Option<Bucket>,
    /// Its cursor; `None`: what the log keeps of it says.
    pub(super) at: Option<Offset>,
    /// The same, if the log is to say it and keeps nothing.
    pub(super) from: Offset,
    pub(super) own: bool,
    /// It was there when the process started.
    pub(super) loaded: bool,
    /// The log keeps replays of it that are under way.
    pub(super) replays: bool,
    pub(super) bell: Arc<Notify>,
    pub(super) live: Arc<Mutex<Live>>,
}

/// Runs a lane until it has nothing to do, is told to end, or the log is fenced.
pub(super) async fn run(opening: Opening, mut told: watch::Receiver<Told>, orders: mpsc::UnboundedReceiver<Ordered>) {
    let Opening { shard, number, subscription, standing, bucket, at, from, own, loaded, replays, bell, live } = opening;
    // Once all are known; and a few at a time: thousands that are behind at a start would fill the queue of readers.
    // An error says that nobody is left to begin.
    let _ = shard.phase().wait_for(|phase| *phase > Phase::Loading).await;
    // Who comes back after a pause has nothing to read, and passes them.
    let turn = if at.is_none() || loaded { shard.openings.acquire().await.ok() } else { None };
    let open = async || {
        let (store, now) = (&*shard.store, (shard.env.now)());
        let (lane, in_doubt) = reading::open(store, &subscription, standing.clone(), (at, from, loaded), now).await?;
        let under_way = if replays { ordering::replays(&shard, &subscription).await? } else { Vec::new() };
        Ok((lane, in_doubt, under_way))
    };
    let (mut lane, in_doubt, under_way) = loop {
        let opened = if *told.borrow_and_update() > Told::Run {
            None
        } else {
            match open().await {
                Ok(opened) => break opened,
                Err(error) => Some(error),
            }
        };
        let Some(error) = opened.filter(|error| !matches!(error, Unavailable::Fenced(_))) else {
            let committed = at.unwrap_or(Offset(u64::MAX));
            let recall = standing.is_none();
            let standing = standing.unwrap_or_default();
            return shard.finish(number, End { standing, bucket, own, committed, replays, recall });
        };
        tracing::warn!(subscription = &*subscription.id, %error, "a lane cannot start yet");
        tokio::select! {
            told = told.changed() => if told.is_err() { return },
            () = sleep(READ_PAUSE) => {}
        }
    };
    drop(turn);
    if let Some(bucket) = bucket {
        lane.refill(bucket);
    }
    let (store, env) = (Arc::clone(&shard.store), shard.env);
    let attempts = Attempts { store, tenant: subscription.tenant, sink: Arc::clone(&subscription.sink), env };
    let mut ledger = Ledger::new(Arc::clone(&subscription), env, lane.cursor(), lane.acked());
    for event in &in_doubt {
        ledger.remember(event);
    }
    for lost in lane.in_doubt() {
        lane.lost(lost.offset, (env.now)(), env.jitter());
    }
    attempts.sink.listen(&bell);
    let erasures = shard.store.tail().erasures();
    let mut runner = Runner {
        shard,
        number,
        subscription,
        ticket: Ticket::new(Arc::clone(&bell)),
        live,
        lane,
        attempts,
        committing: Committing::new(ledger, own),
        told: Told::Run,
        attached: false,
        behind: true,
        crowded: false,
        held: HashMap::default(),
        erasures,
        orders: VecDeque::new(),
        replays: under_way,
        signals: Signals::new(told, orders, bell),
    };
    runner.run().await;
}

struct Runner {
    shard: Arc<Shard>,
    number: u32,
    subscription: Arc<Subscription>,
    /// Its place where it waits for room.
    ticket: Arc<Ticket>,
    live: Arc<Mutex<Live>>,
    lane: Lane,
    attempts: Attempts,
    committing: Committing,
    told: Told,
    /// Whether the sweeper puts events to it.
    attached: bool,
    /// Whether there may be more to take.
    behind: bool,
    /// It could send, but for the room.
    crowded: bool,
    /// Events that were offered and not sent yet.
    held: HashMap<Offset, Arc<Event>>,
    /// Erasures that `held` knows of.
    erasures: u64,
    /// Waiting for their commit.
    orders: VecDeque<Ordered>,
    replays: Vec<Replay>,
    signals: Signals,
}

impl Runner {
    async fn run(&mut self) {
        let mut fired = None;
        loop {
            let now = (self.shard.env.now)();
            if self.told == Told::Run {
                self.lane.be_careful(self.shard.is_careful(now));
                self.read();
                self.follow();
                self.send(now);
                self.feed(now);
            }
            self.flush(now, fired);
            self.report();
            if self.is_over(fired) {
                return;
            }
            self.set_timers(now);
            let turn = self.told == Told::Run && self.may_read();
            let signal = self.signals.next(turn).await;
            fired = if let Signal::Flush(pace) = signal { Some(pace) } else { None };
            if !self.take(signal) {
                self.report();
                return self.shard.finish(self.number, self.end());
            }
        }
    }

    /// Takes what happened; `false` ends the lane.
    fn take(&mut self, signal: Signal) -> bool {
        match signal {
            Signal::Told(told) => {
                self.told = told;
                self.lane.hold();
                self.signals.page = None;
                self.let_workers_be();
                if told == Told::Cancel {
                    // Their outcomes are unknown now, not failures: what is not settled is sent again.
                    self.signals.answers.clear();
                    self.signals.letters = None;
                    self.orders.clear();
                }
            }
            Signal::Answer(answer) => {
                self.settle(*answer);
                // Those that came with it share the rest of the turn.
                while let Some(Some(answer)) = self.signals.answers.next().now_or_never() {
                    self.settle(answer);
                }
            }
            Signal::Page(page) => self.take_page(page),
            Signal::Followed(follow, read) => self.take_followed(follow, read),
            Signal::Letters(letters) => self.take_letters(letters),
            Signal::Replay(page) => self.take_replay(page),
            Signal::Order(order) => self.orders.push_back(*order),
            Signal::Commit(result) => return self.committed(result),
            Signal::Bell => self.behind = true,
            Signal::Flush(_) | Signal::Due | Signal::Turn => {}
        }
        true
    }

    fn repute(&self) -> Repute {
        self.lane.standing().circuit.repute()
    }

    /// Whether there may be something that it should take now: what is put to it, or else a page that is worth a read.
    fn may_read(&self) -> bool {
        let wants = if self.attached { self.lane.wants() > 0 } else { self.lane.is_hungry() };
        self.behind && self.signals.page.is_none() && wants
    }

    /// Takes what the sweeper put, or reads for itself, until it has caught up with the sweeper.
    fn read(&mut self) {
        if !self.may_read() {
            return;
        }
        let drained = self.shard.drain(self.number, self.lane.wants(), self.repute());
        self.attached = drained.attached;
        self.offer(drained.events.into_iter(), true);
        if let Some(reached) = drained.reached {
            self.lane.pass(reached);
        }
        if drained.attached {
            self.behind = !drained.empty;
            return;
        }
        if drained.empty && self.lane.is_hungry() {
            self.read_log();
        }
    }

    fn read_log(&mut self) {
        let (tenant, seen) = (self.subscription.tenant, self.lane.seen());
        if self.shard.attach(self.number, seen) {
            self.attached = true;
            return;
        }
        let Some(events) = self.shard.store.tail().after(tenant, seen, CHUNK) else {
            let limit = self.lane.wants().min(PAGE_EVENTS_MAX);
            let (shard, subscription, repute) =
                (Arc::clone(&self.shard), Arc::clone(&self.subscription), self.repute());
            self.signals.page =
                Some(Box::pin(
                    async move { shard.shelf.page(tenant, (repute, &subscription.filter), seen, limit).await },
                ));
            return;
        };
        if events.is_empty() {
            // The sweeper has seen more than the ring shows: that is a moment.
            self.behind = true;
        }
        self.offer(events.into_iter(), false);
    }

    /// Offers events while the lane wants some.
    fn offer(&mut self, events: impl Iterator<Item = Arc<Event>>, match_all: bool) -> bool {
        for event in events {
            let offset = event.offset;
            if !match_all && !self.subscription.filter.matches(&event.subject) {
                self.lane.pass(offset);
                continue;
            }
            if self.lane.wants() == 0 && !match_all {
                return false;
            }
            if self.lane.offer(offset, reading::key(&event)) {
                self.held.insert(offset, event);
            }
        }
        true
    }

    fn take_page(&mut self, page: Result<Page, Unavailable>) {
        match page {
            Ok(page) => {
                let (seen, first) = (self.lane.seen(), page.first);
                if seen.next() < first {
                    let subscription = &*self.subscription.id;
                    tracing::warn!(
                        subscription,
                        cursor = seen.0,
                        first = first.0,
                        "retention removed undelivered events"
                    );
                    self.lane.lose(Offset(first.0 - 1));
                }
                self.offer(page.events.into_iter(), true);
                self.lane.pass(page.reached);
            }
            Err(error) => {
                tracing::warn!(subscription = &*self.subscription.id, %error, "a lane cannot read the log");
                let seen = self.lane.seen();
                self.signals.page = Some(Box::pin(async move {
                    sleep(READ_PAUSE).await;
                    Ok(Page { more: true, reached: seen, ..Page::default() })
                }));
            }
        }
    }

    fn set_timers(&mut self, now: Timestamp) {
        self.committing_timer();
        let lane = self.lane.wake_at(now).filter(|at| *at > now);
        let room = self.crowded.then(|| now.plus(ROOM_PAUSE));
        let due = [lane, room, self.replay_at(now)].into_iter().flatten().min().filter(|_| self.told == Told::Run);
        if due != self.signals.due.as_ref().map(|(due, _)| *due) {
            self.signals.due = due.map(|due| (due, Box::pin(sleep(due.since(now)))));
        }
    }

    fn report(&self) {
        let mut live = self.live.lock();
        if live.standing.as_ref() != Some(self.lane.standing()) {
            live.standing = Some(self.lane.standing().clone());
        }
        live.cursor = self.lane.cursor();
        live.clear = self.lane.clear();
        live.seen = self.lane.seen();
        live.own = self.committing.own;
        live.attached = self.attached;
        live.in_flight = self.signals.answers.len();
        live.pending = self.lane.pending();
        live.parked = self.lane.parked();
    }

    fn end(&self) -> End {
        let committed = if self.committing.own { self.committing.ledger.cursor() } else { self.lane.cursor() };
        let (standing, bucket) = (self.lane.standing().clone(), self.lane.bucket());
        let replays = !self.replays.is_empty();
        End { standing, bucket, own: self.committing.own, committed, replays, recall: false }
    }

    /// Whether the lane is over: it was told to end and has committed all, or nothing is left to do.
    fn is_over(&mut self, fired: Option<Pace>) -> bool {
        let busy = !self.signals.answers.is_empty()
            || self.signals.commit.is_some()
            || self.committing.ledger.is_taken()
            || !self.orders.is_empty();
        if busy {
            return false;
        }
        if self.told > Told::Run {
            self.shard.finish(self.number, self.end());
            return true;
        }
        let dormant = !self.lane.standing().is_active();
        let idle = self.attached && fired == Some(Pace::Lazily) && self.lane.is_current() && self.replays.is_empty();
        if !dormant && !idle {
            return false;
        }
        let orders = &self.signals.orders;
        self.shard.leave(self.number, self.end(), || orders.is_empty())
    }
}
