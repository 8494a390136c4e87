//! Load that outlives the server: workers that keep their keys, their counters and their unsettled request through
//! every crash, and repeat a request whose outcome they do not know until they do.

use super::chance::Chance;
use super::clock;
use super::ledger::Ledger;
use super::worker::Worker;
use anyhow::{Result, ensure};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Keys of each worker; the next worker's follow.
pub(super) const KEYS_OF_A_WORKER: u32 = 8;

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
    /// Singles, and so long nothing after each.
    Paced(Duration),
}

/// What the workers are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing.
    Idle,
    /// Send.
    Load,
    /// Repeat what is unknown.
    Settle,
    /// End.
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

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, retry_after, content_type, excerpt } = self;
        write!(f, "{status}, Retry-After {retry_after:?}, {content_type:?}: {excerpt}")
    }
}

/// What the workers share, under the lock.
#[derive(Debug)]
pub(super) struct State {
    /// What to do.
    pub mode: Mode,
    /// Workers with a request under way.
    pub busy: usize,
    /// Acknowledgements so far.
    pub acks: u64,
    /// When the last one came.
    pub last_ack: Option<Instant>,
    /// When the newest connection was opened, and when its first acknowledgement came.
    pub first_ack_on: Option<(Instant, Instant)>,
    /// Refusals nobody has taken.
    pub refusals: Vec<Refusal>,
    /// What was sent and promised.
    pub ledger: Ledger,
}

/// What the workers share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told of every change.
    pub changed: Condvar,
}

impl Shared {
    /// Takes the lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workers. Idle at first; stopped when dropped.
#[derive(Debug)]
pub(super) struct Fleet {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// `workers` connections to `address`, whose keys start at `keys_from`.
    pub(super) fn new(
        address: SocketAddr,
        ledger: Ledger,
        workers: u32,
        keys_from: u32,
        mix: Mix,
        chance: &Chance,
    ) -> Self {
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
            let chance = chance.fork(u64::from(keys_from + no));
            let keys_from = keys_from + no * KEYS_OF_A_WORKER;
            let mut worker = Worker::new(Arc::clone(&shared), address, keys_from, mix, chance);
            thread::spawn(move || worker.run())
        });
        Self { address, shared: Arc::clone(&shared), threads: threads.collect() }
    }

    /// Where it sends to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
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
            let refused = state.refusals.last().map_or_else(|| "none".to_owned(), ToString::to_string);
            let unknown = state.ledger.unknown_requests();
            ensure!(!left.is_zero(), "{unknown} requests not answered within {within:?}; last refusal: {refused}");
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

    /// How many refusals there were since they were last taken.
    pub(super) fn refusals(&self) -> usize {
        self.shared.lock().refusals.len()
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
