//! The same outbox read by logical replication, PostgreSQL 14 or later: what is committed is told, in the order of commits.
//!
//! A slot tells rows of the table and messages of `pg_logical_emit_message(true, 'tidings', …)`. Before it is read for the
//! first time the table is, as [`super::Reader`] does: until a snapshot that was taken after the slot was made; what the slot
//! tells of transactions that this snapshot shows is skipped. That is the way from polling to replication, to a slot that
//! was made anew, and after whatever makes a source another one. The snapshot moves on while the slot is read, so that the
//! way back is to poll from there: what comes again is known by its id.

mod decode;
mod pgoutput;
pub mod slot;
mod stream;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use self::decode::Decoder;
use self::slot::{Slot, Watched};
use self::stream::Stream;
use self::wire::Wire;
use super::position::{At, Place, Position};
use super::session::{trouble, within};
use super::snapshot::Snapshot;
use crate::outbox::reader::{Batch, Opened};
use crate::outbox::{ReadError, Row};

/// Rows in one batch, at most.
const BATCH_ROWS_MAX: usize = 2_000;
/// Bytes of one batch, but for its last row.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Between two looks at the slot, and at most between two words to the server.
const LOOK: Duration = Duration::from_secs(10);
/// The server hears something so many times before it gives its reader up.
const WORDS: u32 = 3;

/// Reads one outbox.
pub struct Reader {
    table: super::Reader,
    slot: String,
    watched: Arc<Watched>,
    /// Looks at the slot while there is a session.
    watching: JoinSet<()>,
    stream: Option<Stream>,
    /// Behind the last two batches.
    given: [Place; 2],
    /// What the snapshot shows lies before the place in the write-ahead log.
    horizon: Option<(Snapshot, u64)>,
}

impl Reader {
    /// A reader by replication of what `table` would read.
    pub fn new(table: super::Reader) -> Self {
        let (slot, watched, watching) = (String::new(), Arc::default(), JoinSet::new());
        Self { table, slot, watched, watching, stream: None, given: [Place::default(); 2], horizon: None }
    }

    pub(in crate::outbox) fn slot(&self) -> Arc<Watched> {
        Arc::clone(&self.watched)
    }

    pub(in crate::outbox) async fn open(&mut self, position: Option<&str>, take: bool) -> Result<Opened, ReadError> {
        (self.stream, self.horizon, self.given) = (None, None, [Place::default(); 2]);
        self.watching.abort_all();
        let (mut position, reset) = self.table.begin(position, take).await?;
        let client = &self.table.session()?.client;
        let slot = slot::ready(client, &self.watched).await?;
        // Whoever has it is another Tidings that has just lost the outbox, or was this one.
        slot::free(client, &slot).await?;
        let (client, watched) = (Arc::clone(client), Arc::clone(&self.watched));
        self.watching.spawn(async move {
            loop {
                sleep(LOOK).await;
                // What ends the connection is told by the question under way.
                if let Ok(found) = slot::find(&client).await {
                    watched.set(found);
                }
            }
        });
        self.warn_of(&slot);
        self.slot = slot.name;
        position.at = position.at.filter(|at| at.slot == self.slot);
        if position.at.is_none() {
            // What is given here is kept, so a table that has nothing to give is not read again after a kill.
            let batch = self.poll_table(position.clone()).await?;
            if batch.rows.is_empty() {
                position = Position::parse(&batch.position)?;
            }
        }
        Ok(Opened { position: position.text(), reset })
    }

    /// Once for each slot.
    fn warn_of(&self, slot: &Slot) {
        if self.slot != slot.name && slot.retained_bytes_max.is_none() {
            let text = "max_slot_wal_keep_size is unlimited: while it is not read, the write-ahead log grows until the disk is full";
            tracing::warn!(slot = slot.name, "{text}");
        }
    }

    pub(in crate::outbox) async fn poll(&mut self, position: &str) -> Result<Batch, ReadError> {
        let mut position = Position::parse(position)?;
        let Some(at) = &mut position.at else { return self.poll_table(position).await };
        let stream = match &mut self.stream {
            Some(_) if at.place != self.given[1] => return Err(trouble("a slot is not read twice")),
            Some(stream) => stream,
            none => {
                self.given[1] = at.place;
                none.insert(start(&self.table, &self.slot, &position.identity.system, at.place).await?)
            }
        };
        // What was given before the last batch is kept, or passes no row.
        stream.confirm(self.given[0]);
        let (items, place, more) = stream.next(&self.table.session()?.client).await?;
        at.place = at.place.max(place);
        self.given = [self.given[1], at.place];
        let unread = |transaction: Option<u64>| !transaction.is_some_and(|id| position.seen.shows(id));
        let rows: Vec<Row> = items.into_iter().filter(|item| unread(item.transaction)).map(|item| item.row).collect();
        self.table.rows_since_mark |= !rows.is_empty();
        Ok(Batch { rows, position: position.text(), more })
    }

    /// The table is read whole before the slot is.
    async fn poll_table(&mut self, position: Position) -> Result<Batch, ReadError> {
        let mut batch = self.table.poll(&position.text()).await?;
        if !batch.more {
            let mut position = Position::parse(&batch.position)?;
            position.at = Some(At { slot: self.slot.clone(), place: Place::default() });
            batch.position = position.text();
            // The slot may have told of messages before.
            batch.more = true;
        }
        Ok(batch)
    }

    pub(in crate::outbox) async fn clear(&mut self, position: &str) -> Result<Box<str>, ReadError> {
        let mut position = Position::parse(position)?;
        let Some(at) = &position.at else { return self.table.clear(&position.text()).await };
        let commit = at.place.commit;
        if let Some((seen, _)) = self.horizon.take_if(|(_, behind)| *behind <= commit) {
            position.seen = seen;
            self.table.mark(&mut position).await?;
        }
        if self.horizon.is_none() && self.table.rows_since_mark {
            self.horizon = Some(self.table.session()?.horizon().await?);
            self.table.rows_since_mark = false;
        }
        Ok(position.text())
    }

    pub(in crate::outbox) async fn woken(&mut self, pause: Duration) {
        match &self.stream {
            Some(stream) => stream.told(pause).await,
            None => self.table.woken(pause).await,
        }
    }
}

/// Begins to read a slot behind a place.
async fn start(table: &super::Reader, slot: &str, system: &str, done: Place) -> Result<Stream, ReadError> {
    let sql = "SELECT session_user::text, current_database()::text,
               (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout')";
    let who = within(table.session()?.client.query_one(sql, &[])).await?;
    let mut wire = Wire::open(&table.config, who.get(0), who.get(1)).await?;
    if wire.system().await? != system {
        return Err(trouble("the URL names several clusters: name one"));
    }
    let (frames, out) = wire.start(slot, slot::PUBLICATION).await?;
    // In milliseconds; 0: it never gives up.
    let patience = u64::try_from(who.get::<_, i64>(2)).ok().filter(|millis| *millis > 0).map(Duration::from_millis);
    let every = patience.map_or(LOOK, |patience| LOOK.min(patience / WORDS));
    Ok(Stream::new(frames, out, Decoder::new(system.to_owned(), done), every))
}
