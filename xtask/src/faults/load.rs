//! Load that outlives the server: workers that keep their keys, their counters and their unsettled request through
//! every crash, and repeat a request whose outcome they do not know until they do.

use super::answer::{self, Answer};
use super::chance::Chance;
use super::clock;
use super::event::Mark;
use super::http::{Client, Reply};
use super::ledger::{Ack, Ledger, Naming, Request, Shape};
use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const KEYS_OF_A_WORKER: u32 = 8;
const BUSY_REPEATS_MAX: u32 = 2_000;

/// What the workers send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mix {
    /// Singles, NDJSON of 50, arrays of 2 to 40.
    Everything,
    /// Only NDJSON of `lines` events, until `events` are planned.
    Bulk {
        /// Events a request.
        lines: u32,
        /// Events a worker.
        events: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Idle,
    Load,
    Settle,
    Quit,
}

/// An answer that was not a yes.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The status code.
    pub status: u16,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The start of the body.
    pub excerpt: String,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    busy: usize,
    acks: u64,
    last_ack: Option<Instant>,
    first_ack_on: Option<(Instant, Instant)>,
    refusals: Vec<Refusal>,
    ledger: Ledger,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workers. Idle at first; stopped when dropped.
#[derive(Debug)]
pub(super) struct Fleet {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// `workers` connections to `address`, whose keys start at `keys_from`.
    pub(super) fn new(address: SocketAddr, ledger: Ledger, workers: u32, keys_from: u32, mix: Mix, chance: &Chance) -> Self {
        let state = State {
            mode: Mode::Idle,
            busy: 0,
            acks: 0,
            last_ack: None,
            first_ack_on: None,
            refusals: Vec::new(),
            ledger,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let threads = (0..workers).map(|no| {
            let shared = Arc::clone(&shared);
            let mut worker = Worker {
                shared,
                client: Client::new(address),
                chance: chance.fork(u64::from(keys_from + no)),
                keys: (0..KEYS_OF_A_WORKER).map(|k| (keys_from + no * KEYS_OF_A_WORKER + k, 0)).collect(),
                mix,
                planned: 0,
                pending: None,
                last: None,
                busy_repeats: 0,
                was_unknown: false,
            };
            thread::spawn(move || worker.run())
        });
        Self { shared: Arc::clone(&shared), threads: threads.collect() }
    }

    /// Sends at full speed.
    pub(super) fn load(&self) {
        self.set(Mode::Load);
    }

    /// Stops sending; returns when no request is under way. Unknown outcomes stay unknown.
    pub(super) fn rest(&self) {
        self.set(Mode::Idle);
        let mut state = self.shared.lock();
        while state.busy > 0 {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Plans nothing new and repeats what is unknown until it is known. An error if that takes longer than `within`.
    pub(super) fn settle(&self, within: Duration) -> Result<()> {
        self.set(Mode::Settle);
        let until = clock::now() + within;
        let mut state = self.shared.lock();
        while state.ledger.unknown_requests() > 0 {
            let left = until.saturating_duration_since(clock::now());
            let refused = state.refusals.last().cloned();
            let unknown = state.ledger.unknown_requests();
            ensure!(!left.is_zero(), "{unknown} requests not answered within {within:?}; last refusal: {refused:?}");
            let waited = self.shared.changed.wait_timeout(state, left.min(Duration::from_millis(50)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.rest();
        Ok(())
    }

    /// Sends until at least `events` are planned; for [`Mix::Bulk`].
    pub(super) fn load_until_planned(&self, events: u32) -> Result<()> {
        self.load();
        let mut state = self.shared.lock();
        let planned = |state: &State| state.ledger.requests.iter().map(|request| request.marks.len()).sum::<usize>();
        while planned(&state) < events as usize {
            ensure!(state.ledger.violations.is_empty(), "{}", state.ledger.violations.join("; "));
            let waited = self.shared.changed.wait_timeout(state, Duration::from_millis(50));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Waits for the first acknowledgement over a connection opened after `started`: how long after `started` it came.
    pub(super) fn first_ack_after(&self, started: Instant, within: Duration) -> Option<Duration> {
        let until = clock::now() + within;
        let mut state = self.shared.lock();
        loop {
            if let Some((connected, acked)) = state.first_ack_on
                && connected >= started
            {
                return Some(acked - started);
            }
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Acknowledgements so far, and when the last one came.
    pub(super) fn acks(&self) -> (u64, Option<Instant>) {
        let state = self.shared.lock();
        (state.acks, state.last_ack)
    }

    /// The refusals so far; forgotten by this.
    pub(super) fn take_refusals(&self) -> Vec<Refusal> {
        std::mem::take(&mut self.shared.lock().refusals)
    }

    /// The ledger as it is.
    pub(super) fn ledger(&self) -> Ledger {
        self.shared.lock().ledger.clone()
    }

    /// Ends the workers.
    pub(super) fn end(mut self) -> Ledger {
        self.quit();
        self.ledger()
    }

    fn quit(&mut self) {
        self.set(Mode::Quit);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    fn set(&self, mode: Mode) {
        self.shared.lock().mode = mode;
        self.shared.changed.notify_all();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.quit();
    }
}

#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    client: Client,
    chance: Chance,
    keys: Vec<(u32, u32)>,
    mix: Mix,
    planned: u32,
    pending: Option<Request>,
    last: Option<Request>,
    busy_repeats: u32,
    was_unknown: bool,
}

impl Worker {
    fn run(&mut self) {
        while let Some(mode) = self.next_turn() {
            let request = self.pending.take().or_else(|| if mode == Mode::Load { self.plan() } else { None });
            let pause = match request {
                Some(request) => self.turn(request),
                None => Duration::from_millis(2),
            };
            self.shared.lock().busy -= 1;
            self.shared.changed.notify_all();
            thread::sleep(pause);
        }
    }

    /// Waits for leave to work; `None` is the end.
    fn next_turn(&mut self) -> Option<Mode> {
        let mut state = self.shared.lock();
        loop {
            match state.mode {
                Mode::Quit => return None,
                Mode::Idle => {}
                mode => {
                    state.busy += 1;
                    return Some(mode);
                }
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn plan(&mut self) -> Option<Request> {
        let (shape, events) = match self.mix {
            Mix::Everything => match self.chance.below(5) {
                0 => (Shape::Lines, 50),
                1 => (Shape::Array, 2 + self.chance.below(39)),
                _ => (Shape::Single, 1),
            },
            Mix::Bulk { events, .. } if self.planned >= events => return None,
            Mix::Bulk { lines, events } => (Shape::Lines, u64::from(lines.min(events - self.planned))),
        };
        let naming = if self.chance.one_in(2) { Naming::OwnIds } else { Naming::IdempotencyKey };
        let mut marks = Vec::new();
        for _ in 0..events {
            let at = self.chance.index(self.keys.len());
            let (key, n) = &mut self.keys[at];
            *n += 1;
            marks.push(Mark { key: *key, n: *n });
        }
        self.planned = self.planned.saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
        Some(self.shared.lock().ledger.plan(shape, naming, marks))
    }

    /// Sends one request. After a crash it also repeats the one acknowledged before it, and now and then the one just
    /// acknowledged. Returns how long to rest.
    fn turn(&mut self, request: Request) -> Duration {
        let before = self.last.take();
        let rest = self.send(request);
        let after_crash = std::mem::replace(&mut self.was_unknown, self.pending.is_some());
        if self.pending.is_some() {
            self.last = before;
        } else if let Some(before) = before.filter(|_| after_crash) {
            self.echo(&before);
        } else if let Some(last) = self.last.clone().filter(|_| self.chance.one_in(64)) {
            self.echo(&last);
        }
        rest
    }

    fn send(&mut self, request: Request) -> Duration {
        let Ok(reply) = self.post(&request) else {
            self.pending = Some(request);
            return Duration::from_millis(2);
        };
        match answer::read(&request, &reply) {
            Answer::Yes(numbers) => {
                self.busy_repeats = 0;
                self.note_ack(&request, numbers);
                self.last = Some(request);
                Duration::ZERO
            }
            Answer::NotNow => {
                self.note_refusal(&reply);
                self.busy_repeats += 1;
                if reply.status == 409 && self.busy_repeats > BUSY_REPEATS_MAX {
                    self.violation(&request, &reply, "is still refused as running");
                }
                self.pending = Some(request);
                Duration::from_millis(10)
            }
            Answer::Wrong(why) => {
                self.violation(&request, &reply, &why);
                self.pending = Some(request);
                Duration::from_millis(200)
            }
        }
    }

    /// Repeats an acknowledged request, as after a lost answer: it must be told as a repetition, with the same numbers.
    fn echo(&mut self, request: &Request) {
        let Ok(reply) = self.post(request) else { return };
        match answer::read(request, &reply) {
            Answer::Yes(numbers) => {
                if let Some(why) = answer::not_told_as_repetition(request, &reply) {
                    self.violation(request, &reply, why);
                }
                let ack = Ack { at: clock::wall(), numbers };
                self.shared.lock().ledger.acked(request.no, ack);
            }
            Answer::NotNow => {}
            Answer::Wrong(why) => self.violation(request, &reply, &why),
        }
    }

    fn post(&mut self, request: &Request) -> std::io::Result<Reply> {
        let (body, key) = {
            let state = self.shared.lock();
            (state.ledger.run.clone(), state.ledger.run.idempotency_key(request.no))
        };
        let body = request.body(&body);
        let kind = if request.shape == Shape::Lines { "application/x-ndjson" } else { "application/json" };
        let mut headers = vec![format!("Content-Type: {kind}")];
        if request.naming == Naming::IdempotencyKey {
            headers.push(format!("Idempotency-Key: {key}"));
        }
        self.client.post("/events", &headers, &body)
    }

    fn note_ack(&self, request: &Request, numbers: Vec<super::ledger::Numbers>) {
        let (at, now) = (clock::wall(), clock::now());
        let mut state = self.shared.lock();
        state.acks += 1;
        state.last_ack = Some(now);
        let connected = self.client.connected();
        if let Some(connected) = connected
            && state.first_ack_on.is_none_or(|(earlier, _)| connected > earlier)
        {
            state.first_ack_on = Some((connected, now));
        }
        state.ledger.acked(request.no, Ack { at, numbers });
    }

    fn note_refusal(&self, reply: &Reply) {
        self.shared.lock().refusals.push(Refusal {
            status: reply.status,
            retry_after: reply.header("retry-after").map(str::to_owned),
            content_type: reply.header("content-type").map(str::to_owned),
            excerpt: reply.excerpt(),
        });
    }

    fn violation(&self, request: &Request, reply: &Reply, why: &str) {
        let (no, shape, naming) = (request.no, request.shape, request.naming);
        let what = format!("{shape:?} request {no} ({naming:?}) {why}: {} {}", reply.status, reply.excerpt());
        self.shared.lock().ledger.violations.push(what);
    }
}
