//! The outbox of a PostgreSQL database, 13 or later, read by the difference of two snapshots.
//!
//! A row carries the id of its transaction. What is new since the last look is what that snapshot did not show and this
//! one does: rows whose transaction was then running, or had not begun. So a row is found whatever order transactions
//! commit in, and a transaction that runs for hours holds back its own rows only. If one transaction waited for
//! another's lock, every snapshot that shows it shows the other too; so rows by number within a difference, and
//! differences one after the other, keep the order of each aggregate.

mod access;
mod identity;
pub mod install;
mod position;
pub mod replication;
mod session;
mod snapshot;
mod statements;
mod values;
mod wake;
pub mod watch;

use std::time::Duration;

use tokio::time::sleep;

use super::reader::{Batch, Opened, ReadError};
pub use access::{Config, config};
use position::Position;
use session::Session;
use snapshot::Snapshot;

/// Time to connect, and for each answer.
const ANSWER: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// A half of the outbox is written to for so long, or until it has so many bytes; then relayed rows in the other go.
const HALF_AGE: Duration = Duration::from_hours(1);
const HALF_BYTES: i64 = 256 * 1024 * 1024;

/// Reads one outbox.
pub struct Reader {
    config: Config,
    /// What this installation of Tidings is called in the source.
    name: Box<str>,
    session: Option<Session>,
    half_bytes: i64,
    half_age: Duration,
    /// The mark that stands in the source, and whether rows came since.
    rows_since_mark: bool,
}

impl Reader {
    /// A reader that has not connected yet.
    pub fn new(config: Config, name: &str) -> Self {
        let (half_bytes, half_age) = (HALF_BYTES, HALF_AGE);
        Self { config, name: name.into(), session: None, half_bytes, half_age, rows_since_mark: false }
    }

    /// Turns the halves of the outbox earlier.
    #[must_use]
    pub fn turning_after(mut self, age: Duration, bytes: i64) -> Self {
        (self.half_age, self.half_bytes) = (age, bytes);
        self
    }

    pub(super) async fn open(&mut self, position: Option<&str>, take: bool) -> Result<Opened, ReadError> {
        let (mut position, reset) = self.begin(position, take).await?;
        if position.at.take().is_some() {
            replication::slot::is_gone(&self.session()?.client).await?;
        }
        Ok(Opened { position: position.text(), reset })
    }

    /// Connects, and finds out where to go on, and why from the beginning if it was read before.
    async fn begin(&mut self, position: Option<&str>, take: bool) -> Result<(Position, Option<String>), ReadError> {
        self.session = None;
        let session = Session::connect(&self.config).await?;
        let found = session.identity().await?;
        let known = position.map(Position::parse).transpose()?;
        // One that was made anew has no reader yet.
        let take = take || known.as_ref().is_some_and(|known| known.identity.install != found.install);
        if !take && found.reader.as_deref() != Some(&*self.name) {
            return Err(ReadError::taken(found.reader.as_deref()));
        }
        let reset = known.as_ref().and_then(|known| found.differs(known, &self.name));
        let era = known.as_ref().map_or(0, |known| known.identity.era);
        let (mut position, era) = match (known, &reset) {
            (Some(known), None) => (known, era),
            // Should this not be committed, the source's era differs from the kept one, and it begins again.
            _ => (Position::beginning(), era + 1),
        };
        position.identity = found.identity(era);
        position.identity.mark =
            session.mark(&self.name, take, &position).await?.ok_or_else(|| ReadError::taken(None))?;
        self.session = Some(session);
        Ok((position, reset))
    }

    pub(super) async fn poll(&mut self, position: &str) -> Result<Batch, ReadError> {
        let mut position = Position::parse(position)?;
        let session = self.session()?;
        let batch = match position.page.take() {
            None => session.tail(position).await?,
            Some(page) => session.page(position, page).await?,
        };
        self.rows_since_mark |= !batch.rows.is_empty();
        Ok(batch)
    }

    pub(super) async fn clear(&mut self, position: &str) -> Result<Box<str>, ReadError> {
        let mut position = Position::parse(position)?;
        if self.rows_since_mark {
            self.mark(&mut position).await?;
            self.rows_since_mark = false;
        }
        Ok(position.text())
    }

    /// Tells the source what is relayed, and clears that away if it is time.
    async fn mark(&self, position: &mut Position) -> Result<(), ReadError> {
        let session = self.session()?;
        let mark = session.mark(&self.name, false, position).await?;
        // Why that is, connecting again will tell.
        position.identity.mark = mark.ok_or_else(|| ReadError::Trouble("it has another reader".to_owned()))?;
        session.turn(&position.seen, self.half_age, self.half_bytes).await?;
        Ok(())
    }

    fn session(&self) -> Result<&Session, ReadError> {
        self.session.as_ref().ok_or_else(|| ReadError::Trouble("not connected".to_owned()))
    }

    pub(super) async fn woken(&mut self, pause: Duration) {
        match &mut self.session {
            Some(session) => session.rest(pause).await,
            None => sleep(pause).await,
        }
    }
}
