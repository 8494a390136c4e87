//! The loop of one lane: read, send, commit, wait.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tidings_core::lane::{Lane, WINDOW_MAX};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::{CommitError, Event, Page, Store, Unavailable, Written};
use tokio::sync::watch;
use tokio::time::sleep;

use super::attempt::{Answer, Attempts};
use super::ledger::Ledger;
use super::reading::{self, Keys};
use super::signals::{Pace, Signal, Signals};
use super::{Env, LaneStatus, Order, Subscription};

/// An answer is committed after this at the latest (20 ms, less what a timer may be late).
const SOON: Duration = Duration::from_millis(15);
/// A cursor that moved without an attempt is committed after this,
const LAZILY: Duration = Duration::from_secs(1);
/// or when it has moved so far.
const LAZY_OFFSETS_MAX: u64 = 4096;
/// Answers that are worth a commit at once.
const BATCH: usize = 64;
/// Events looked at in the ring before something else gets its turn.
const CHUNK: usize = 256;
/// The pauses between tries of a read that fails, and before an attempt whose event could not be read.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// Runs a lane until it is told to end, or the log is fenced.
pub(super) async fn run(
    store: Arc<dyn Store>,
    env: Env,
    subscription: Subscription,
    mut told: watch::Receiver<Order>,
    status: Arc<Mutex<LaneStatus>>,
) {
    let keys = Keys::default();
    let (lane, dead) = loop {
        if *told.borrow_and_update() > Order::Run {
            return;
        }
        match reading::open(&*store, &subscription, &keys, (env.now)()).await {
            Ok(opened) => break opened,
            Err(error) => {
                tracing::warn!(subscription = &*subscription.id, %error, "a lane cannot start yet");
                if matches!(error, Unavailable::Fenced(_)) {
                    return;
                }
            }
        }
        tokio::select! {
            told = told.changed() => if told.is_err() { return },
            () = sleep(READ_PAUSE) => {}
        }
    };
    let Subscription { id, tenant, sink, .. } = &subscription;
    let attempts = Attempts { store: Arc::clone(&store), tenant: *tenant, sink: Arc::clone(sink), env };
    let ledger = Ledger::new(Arc::clone(&store), id.clone(), *tenant, lane.cursor());
    let head = store.tail().watch(*tenant);
    let mut runner = Runner {
        store,
        env,
        subscription,
        status,
        keys,
        lane,
        ledger,
        attempts,
        dead,
        order: Order::Run,
        behind: true,
        held: HashMap::default(),
        stalled: 0,
        signals: Signals {
            told,
            cancelled: false,
            head,
            answers: FuturesUnordered::new(),
            page: None,
            commit: None,
            flush: None,
            due: None,
        },
    };
    runner.run().await;
}

struct Runner {
    store: Arc<dyn Store>,
    env: Env,
    subscription: Subscription,
    status: Arc<Mutex<LaneStatus>>,
    keys: Keys,
    lane: Lane,
    ledger: Ledger,
    attempts: Attempts,
    dead: u64,
    order: Order,
    /// Whether the log may have more than the lane has seen.
    behind: bool,
    /// Attempts that could not be committed soon, for nothing else could: the cursor waits for a slow answer.
    stalled: usize,
    /// Events that were offered and not sent yet.
    held: HashMap<Offset, Arc<Event>>,
    signals: Signals,
}

impl Runner {
    async fn run(&mut self) {
        let mut flush = None;
        loop {
            let now = (self.env.now)();
            if self.order == Order::Run {
                self.read();
                self.send(now);
            }
            self.flush(now, flush);
            self.report();
            if self.order > Order::Run && self.is_done() {
                return;
            }
            self.set_timers(now);
            let turn = self.order == Order::Run && self.behind && self.signals.page.is_none() && self.may_read();
            let signal = self.signals.next(turn).await;
            flush = if let Signal::Flush(pace) = signal { Some(pace) } else { None };
            if !self.take(signal) {
                self.report();
                return;
            }
        }
    }

    /// Takes what happened; `false` ends the lane.
    fn take(&mut self, signal: Signal) -> bool {
        match signal {
            Signal::Told(order) => {
                self.order = order;
                self.signals.page = None;
                if order == Order::Cancel {
                    // Their outcomes are unknown now, not failures: what is not settled is sent again.
                    self.signals.answers.clear();
                }
            }
            Signal::Answer(answer) => self.settle(*answer),
            Signal::Page(page) => self.take_page(page),
            Signal::Commit(result) => return self.committed(result),
            Signal::Head => self.behind = true,
            Signal::Flush(_) | Signal::Due | Signal::Turn => {}
        }
        true
    }

    /// Whether there is room for what a read would bring; small pages from the disk cost as much as large ones.
    fn may_read(&self) -> bool {
        self.lane.wants() > 0 && self.lane.unsettled() <= WINDOW_MAX * 3 / 4
    }

    /// Offers the lane what the ring has, or begins to read from the disk.
    fn read(&mut self) {
        if !self.behind || self.signals.page.is_some() || !self.may_read() {
            return;
        }
        let (tenant, seen) = (self.subscription.tenant, self.lane.seen());
        let Some(events) = self.store.tail().after(tenant, seen, CHUNK) else {
            let first = self.store.extent(tenant).first;
            if seen.next() < first {
                let subscription = &*self.subscription.id;
                tracing::warn!(subscription, cursor = seen.0, first = first.0, "retention removed undelivered events");
                self.lane.pass(Offset(first.0 - 1));
            }
            let (after, limit) = (self.lane.seen(), self.lane.wants());
            self.signals.page = Some(reading::page(&*self.store, tenant, &self.subscription.filter, after, limit));
            return;
        };
        let more = events.len() == CHUNK;
        let taken = self.offer(events.into_iter(), false);
        self.behind = more || !taken;
    }

    /// Offers events while the lane wants some; answers whether it took all.
    fn offer(&mut self, events: impl Iterator<Item = Arc<Event>>, match_all: bool) -> bool {
        for event in events {
            let offset = event.offset;
            if !match_all && !self.subscription.filter.matches(&event.subject) {
                self.lane.pass(offset);
                continue;
            }
            if self.lane.wants() == 0 {
                return false;
            }
            if self.lane.offer(offset, self.keys.of(&event)) {
                self.held.insert(offset, event);
            }
        }
        true
    }

    fn take_page(&mut self, page: Result<Page, Unavailable>) {
        match page {
            Ok(page) => {
                let before = self.lane.seen();
                if self.offer(page.events.into_iter(), true) {
                    self.lane.pass(page.reached);
                }
                // A page that brings nothing is no reason to ask for the next one at once.
                self.behind = page.more || self.lane.seen() > before;
            }
            Err(error) => {
                tracing::warn!(subscription = &*self.subscription.id, %error, "a lane cannot read the log");
                self.signals.page = Some(Box::pin(async move {
                    sleep(READ_PAUSE).await;
                    Ok(Page { more: true, ..Page::default() })
                }));
            }
        }
    }

    fn send(&mut self, now: Timestamp) {
        while let Some(turn) = self.lane.next(now) {
            let held = self.held.remove(&turn.offset);
            self.signals.answers.push(self.attempts.make(turn, held));
        }
    }

    fn settle(&mut self, mut answer: Answer) {
        let now = (self.env.now)();
        let offset = answer.turn.offset;
        match std::mem::replace(&mut answer.outcome, Err(Unavailable::Busy)) {
            Ok(outcome) => {
                self.ledger.note(&answer, &outcome, now);
                let jitter = self.jitter();
                self.lane.settle(offset, outcome, now, jitter);
            }
            Err(error) => {
                tracing::warn!(subscription = &*self.subscription.id, %offset, %error, "an event cannot be read");
                self.lane.postpone(offset, now.plus(READ_PAUSE));
            }
        }
    }

    fn jitter(&self) -> f64 {
        let mut random = [0; 4];
        (self.env.random)(&mut random);
        f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)
    }

    /// Begins a commit if it is time for one.
    fn flush(&mut self, now: Timestamp, fired: Option<Pace>) {
        if self.signals.commit.is_some() {
            return;
        }
        if self.ledger.is_taken() {
            if fired == Some(Pace::Again) || self.order == Order::Cancel {
                self.signals.commit = self.ledger.commit(now);
            }
            return;
        }
        let ending = self.order > Order::Run && self.signals.answers.is_empty();
        let full = self.ledger.attempts() >= BATCH || !self.may_read() || self.lane.uncommitted() >= LAZY_OFFSETS_MAX;
        if !ending && !full && fired.is_none() {
            return;
        }
        let changes = self.lane.take_changes();
        if changes.is_none() && (self.ledger.attempts() == 0 || !(ending || fired == Some(Pace::Lazily))) {
            self.stalled = self.ledger.attempts();
            return;
        }
        self.stalled = 0;
        for row in changes.iter().flat_map(|changes| &changes.waiting) {
            // It may wait for long: the log keeps the event, memory need not.
            self.held.remove(&row.offset);
        }
        self.ledger.take(changes);
        self.signals.flush = None;
        self.signals.commit = self.ledger.commit(now);
    }

    fn committed(&mut self, result: Result<Vec<Written>, CommitError>) -> bool {
        match result {
            Ok(_) => {
                self.dead += self.ledger.committed();
                self.lane.committed();
                true
            }
            Err(CommitError::Unavailable(Unavailable::Fenced(reason))) => {
                tracing::error!(subscription = &*self.subscription.id, %reason, "a lane ends: the log is fenced");
                false
            }
            Err(error) => {
                let pause = self.ledger.failed(&error);
                self.signals.flush = Some((Pace::Again, Box::pin(sleep(pause))));
                self.order < Order::Cancel
            }
        }
    }

    fn set_timers(&mut self, now: Timestamp) {
        if self.signals.commit.is_none() && !self.ledger.is_taken() {
            let idle = self.signals.flush.as_ref().map(|(pace, _)| *pace);
            let attempts = self.ledger.attempts();
            let pace = match idle {
                None | Some(Pace::Lazily) if attempts > self.stalled => Some((Pace::Soon, SOON)),
                None if attempts > 0 || self.lane.uncommitted() > 0 => Some((Pace::Lazily, LAZILY)),
                _ => None,
            };
            if let Some((pace, after)) = pace {
                self.signals.flush = Some((pace, Box::pin(sleep(after))));
            }
        }
        let due = self.lane.due().filter(|_| self.order == Order::Run);
        if due != self.signals.due.as_ref().map(|(due, _)| *due) {
            self.signals.due = due.map(|due| (due, Box::pin(sleep(due.since(now)))));
        }
    }

    fn is_done(&self) -> bool {
        self.signals.answers.is_empty() && self.signals.commit.is_none() && !self.ledger.is_taken()
    }

    fn report(&self) {
        *self.status.lock() = LaneStatus {
            cursor: self.lane.cursor(),
            in_flight: self.signals.answers.len(),
            waiting: self.lane.waiting(),
            dead: self.dead,
        };
    }
}
