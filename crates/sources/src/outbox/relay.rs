//! Moves rows of one source into the log, for as long as it is polled.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidings_core::time::Timestamp;
use tidings_log::Store;
use tokio::time::sleep;

use super::desk::{Desk, Settings};
use super::meter::{Meter, State};
use super::order::{self, Given, Orders};
use super::reader::{Batch, ReadError, Reader};

/// From one question to the next after rows came, for more are likely; it passes while those are committed.
const PAUSE_BUSY: Duration = Duration::from_millis(1);
/// The longest pause: what is committed is noticed within it.
const PAUSE_IDLE: Duration = Duration::from_millis(100);
/// The first pause after a failure; doubled with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest pause between tries.
const RETRY_LAST: Duration = Duration::from_secs(5);
/// How often relayed rows are cleared away, if there are any.
const CLEAR_EVERY: Duration = Duration::from_secs(10);

/// Time and chance.
#[derive(Clone, Copy)]
pub struct Env {
    /// The time.
    pub now: fn() -> Timestamp,
    /// Fills a buffer with chance.
    pub random: fn(&mut [u8]),
}

/// Why a source is not read for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Halt {
    /// Trying again may help.
    #[error("{0}")]
    Trouble(String),
    /// Another reader has it.
    #[error("{0}")]
    Taken(String),
    /// Nothing more can be put aside.
    #[error("its quarantine is full: replay or discard rows")]
    Full,
}

impl From<ReadError> for Halt {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Trouble(text) => Self::Trouble(text),
            ReadError::Taken(text) => Self::Taken(text),
        }
    }
}

/// Reads one source into the log.
pub struct Relay {
    store: Arc<dyn Store>,
    env: Env,
    settings: Settings,
    reader: Reader,
    orders: Given,
    meter: Arc<Meter>,
    /// Whether it has been opened since the start.
    opened: bool,
}

impl Relay {
    /// A relay that is not running yet, how it fares, and where it takes orders.
    pub fn new(store: Arc<dyn Store>, env: Env, settings: Settings, reader: Reader) -> (Self, Arc<Meter>, Orders) {
        let meter = Arc::new(Meter::with(reader.slot()));
        meter.started((env.now)());
        let (orders, given) = order::channel();
        let relay = Self { store, env, settings, reader, orders: given, meter: Arc::clone(&meter), opened: false };
        (relay, meter, orders)
    }

    /// Runs until another reader has taken the source. To stop it earlier, drop it: what is under way is committed whole
    /// or not at all.
    pub async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        loop {
            let polls = self.meter.measures((self.env.now)()).polls;
            let Err(halt) = self.session().await;
            let source = &self.settings.name;
            let state = match &halt {
                Halt::Trouble(_) => State::Failing,
                Halt::Full => State::Full,
                Halt::Taken(_) => State::Taken,
            };
            self.meter.set(state, Some(halt.to_string()));
            if state == State::Taken {
                tracing::error!(%source, reason = %halt, "outbox is not read any more");
                return;
            }
            // A session that got somewhere begins anew.
            let fared_well = self.meter.measures((self.env.now)()).polls > polls + 1;
            pause = if fared_well { RETRY_FIRST } else { (2 * pause).min(RETRY_LAST) };
            tracing::warn!(%source, reason = %halt, "outbox cannot be read; trying again");
            self.wait(pause).await;
        }
    }

    /// Waits, and carries out orders meanwhile: they need only what the log keeps.
    async fn wait(&mut self, pause: Duration) {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            let (order, answer) = tokio::select! {
                () = &mut over => return,
                Some(given) = self.orders.recv() => given,
            };
            let answered = match self.desk().await {
                Ok((mut desk, _)) => desk.order(order).await,
                Err(halt) => order::Answered::Unavailable(halt.to_string()),
            };
            // Who asked may have left.
            let _ = answer.send(answered);
        }
    }

    async fn desk(&self) -> Result<(Desk, Option<String>), Halt> {
        Desk::open(Arc::clone(&self.store), self.env, self.settings.clone(), Arc::clone(&self.meter)).await
    }

    /// From opening the source to whatever ends that.
    async fn session(&mut self) -> Result<std::convert::Infallible, Halt> {
        let (mut desk, kept) = self.desk().await?;
        let opened = self.reader.open(kept.as_deref(), !self.opened).await?;
        self.opened = true;
        let told = opened.reset.map(|reason| {
            tracing::warn!(source = %self.settings.name, reason, "outbox is read from its beginning again");
            self.meter.reset();
            desk.notice("tidings.source.reset", &json!({"source": self.settings.name, "reason": reason}))
        });
        desk.commit(&[], &opened.position, told).await?;
        let mut position = opened.position;
        let mut pause = PAUSE_BUSY;
        let mut cleared = (self.env.now)();
        loop {
            let asked = (self.env.now)();
            let batch = self.reader.poll(&position).await?;
            self.meter.polled();
            let rows = batch.rows.len();
            position = self.drain(&mut desk, batch).await?;
            self.meter.fresh(asked);
            pause = if rows > 0 { PAUSE_BUSY } else { (2 * pause).min(PAUSE_IDLE) };
            if asked.since(cleared) >= CLEAR_EVERY {
                position = self.reader.clear(&position).await?;
                cleared = asked;
            }
            tokio::select! {
                Some((order, answer)) = self.orders.recv() => {
                    // Who asked may have left.
                    let _ = answer.send(desk.order(order).await);
                }
                () = self.reader.woken(pause.saturating_sub((self.env.now)().since(asked))) => {}
            }
        }
    }

    /// Commits a batch, and those that follow it at once: the next is fetched while one is committed.
    async fn drain(&mut self, desk: &mut Desk, mut batch: Batch) -> Result<Box<str>, Halt> {
        loop {
            let commit = async {
                // A position that passes no row need not be kept.
                if batch.rows.is_empty() { Ok(()) } else { desk.commit(&batch.rows, &batch.position, None).await }
            };
            if !batch.more {
                commit.await?;
                return Ok(batch.position);
            }
            let (committed, next) = tokio::join!(commit, self.reader.poll(&batch.position));
            committed?;
            batch = next?;
            self.meter.polled();
        }
    }
}
