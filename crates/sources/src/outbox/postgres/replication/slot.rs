//! The slot and the publication of an outbox: made, looked at, taken away.
//!
//! A slot makes its server keep the write-ahead log that it has not been read of, whatever becomes of its reader; only
//! `max_slot_wal_keep_size` caps that, and a slot that passes it is lost. The name of a slot says which database it is of
//! and when it was made, so that one that was made anew is another one.

use parking_lot::Mutex;
use tokio_postgres::Client;

use crate::outbox::ReadError;
use crate::outbox::postgres::access::Config;
use crate::outbox::postgres::session::{connect, told, trouble, within};

/// The publication's name.
pub(super) const PUBLICATION: &str = "tidings_outbox";
/// The oldest version whose `pgoutput` tells of messages.
const VERSION_MIN: i32 = 140_000;

/// The SQL that makes both, each statement in a transaction of its own. The last one waits until all transactions are over
/// that began before the slot was there: what they did the table shows, and the slot may not.
pub const MAKE: [&str; 3] = [
    "BEGIN;
CREATE PUBLICATION tidings_outbox FOR TABLE tidings.outbox WITH (publish = 'insert', publish_via_partition_root = true);
COMMIT;",
    "SELECT pg_create_logical_replication_slot(
  format('tidings_%s_%s', oid, (1000 * extract(epoch FROM clock_timestamp()))::bigint), 'pgoutput')
FROM pg_database WHERE datname = current_database();",
    "DO $$ DECLARE mine xid8 := pg_current_xact_id();
BEGIN WHILE pg_snapshot_xmin(pg_current_snapshot()) < mine LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;",
];

/// The SQL that takes the publication away, and that for the slot, which nobody may be reading.
pub const REMOVE: [&str; 2] = [
    "DROP PUBLICATION IF EXISTS tidings_outbox;",
    "SELECT pg_drop_replication_slot(s.slot_name) FROM pg_replication_slots s JOIN pg_database d ON d.datname = s.database
WHERE d.datname = current_database() AND starts_with(s.slot_name::text, format('tidings_%s_', d.oid));",
];

const FIND: &str = "
SELECT s.slot_name::text, s.wal_status, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::bigint,
       (SELECT nullif(setting, '-1')::bigint * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), s.active_pid
FROM pg_replication_slots s JOIN pg_database d ON d.datname = s.database
WHERE d.datname = current_database() AND starts_with(s.slot_name::text, format('tidings_%s_', d.oid)) ORDER BY 1";

const PUBLISHED: &str = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = 'tidings_outbox')";

const HOW: &str = "make it with `tidings outbox install --mode replication`";

/// A slot, by its server's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// `reserved`, `extended`, `unreserved` or `lost`, as `pg_replication_slots` has it.
    pub wal_status: String,
    /// Bytes of write-ahead log that are kept for it.
    pub retained_bytes: u64,
    /// Beyond so many it is lost; none: the disk is the bound.
    pub retained_bytes_max: Option<u64>,
    /// The process that it is read through, if it is read now.
    pub active: Option<i32>,
}

impl Slot {
    /// Whether what it was to tell is gone.
    pub fn is_lost(&self) -> bool {
        self.wal_status == "lost"
    }
}

/// What was last seen of a slot.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Watched(Mutex<Option<Slot>>);

impl Watched {
    pub(in crate::outbox) fn get(&self) -> Option<Slot> {
        self.0.lock().clone()
    }

    pub(super) fn set(&self, slot: Option<Slot>) {
        *self.0.lock() = slot;
    }
}

/// How the slot stands, if there is one.
pub async fn status(config: &Config) -> Result<Option<Slot>, ReadError> {
    find(&connect(config).await?).await
}

/// Makes the slot and the publication, unless both are there and the slot is not lost; whether it did.
pub async fn make(config: &Config) -> Result<(Slot, bool), ReadError> {
    let client = connect(config).await?;
    supported(&client).await?;
    let (found, published) = (find(&client).await?, published(&client).await?);
    match found {
        Some(slot) if published && !slot.is_lost() => return Ok((slot, false)),
        // What it has not told yet it could not: it needs the publication of that time.
        Some(slot) => drop_slot(&client, &slot).await?,
        None => {}
    }
    // Making a slot waits for the transactions that run, however long those take.
    for sql in MAKE.iter().skip(usize::from(published)) {
        client.batch_execute(sql).await.map_err(|error| told(&error))?;
    }
    let made = find(&client).await?.ok_or_else(|| trouble("the slot was made and is not there"))?;
    Ok((made, true))
}

/// Takes both away; whether there was a slot. Who reads it has to stop.
pub async fn remove(config: &Config) -> Result<bool, ReadError> {
    let client = connect(config).await?;
    // Without it nobody begins to read again.
    within(client.batch_execute(REMOVE[0])).await?;
    let found = find(&client).await?;
    if let Some(slot) = &found {
        drop_slot(&client, slot).await?;
    }
    Ok(found.is_some())
}

async fn drop_slot(client: &Client, slot: &Slot) -> Result<(), ReadError> {
    free(client, slot).await?;
    within(client.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&slot.name])).await?;
    Ok(())
}

/// Ends the connection that reads a slot, if there is one: a slot has one reader.
pub(super) async fn free(client: &Client, slot: &Slot) -> Result<(), ReadError> {
    if let Some(process) = slot.active {
        within(client.execute("SELECT pg_terminate_backend($1, 5000)", &[&process])).await?;
    }
    Ok(())
}

/// The slot, if there is one.
pub(super) async fn find(client: &Client) -> Result<Option<Slot>, ReadError> {
    let found = within(client.query(FIND, &[])).await?;
    let slots = found.iter().map(|row| Slot {
        name: row.get(0),
        wal_status: row.get::<_, Option<String>>(1).unwrap_or_default(),
        retained_bytes: row.get::<_, i64>(2).try_into().unwrap_or(0),
        retained_bytes_max: row.get::<_, Option<i64>>(3).and_then(|bytes| bytes.try_into().ok()),
        active: row.get(4),
    });
    match &mut slots.collect::<Vec<_>>()[..] {
        [] => Ok(None),
        [slot] => Ok(Some(slot.clone())),
        several => {
            let names: Vec<_> = several.iter().map(|slot| slot.name.as_str()).collect();
            let text = "drop all but the newest with pg_drop_replication_slot";
            Err(ReadError::Trouble(format!("several slots of one outbox, {}: {text}", names.join(", "))))
        }
    }
}

/// The slot, if it can be read. The error says what to do.
pub(super) async fn ready(client: &Client, watched: &Watched) -> Result<Slot, ReadError> {
    supported(client).await?;
    let found = find(client).await?;
    watched.set(found.clone());
    let slot = found.ok_or_else(|| ReadError::Trouble(format!("the outbox has no replication slot: {HOW}")))?;
    if slot.is_lost() {
        return Err(ReadError::Trouble(format!(
            "the slot {} is lost, for it kept more than max_slot_wal_keep_size: {HOW}; rows are then read from the table, \
             messages that had not been read are gone",
            slot.name
        )));
    }
    if !published(client).await? {
        let text = format!("the publication {PUBLICATION} is gone, and with it what the slot {} tells", slot.name);
        return Err(ReadError::Trouble(format!("{text}: {HOW}")));
    }
    Ok(slot)
}

/// That nobody has to read a slot any more: one that is there keeps its server's log for ever.
pub(in crate::outbox::postgres) async fn is_gone(client: &Client) -> Result<(), ReadError> {
    match find(client).await? {
        None => Ok(()),
        Some(slot) => Err(ReadError::Trouble(format!(
            "this outbox was read by the slot {}, which keeps the write-ahead log for ever if nobody reads it: take it away \
             with `tidings outbox install --mode polling`, or go on with mode = \"replication\"",
            slot.name
        ))),
    }
}

async fn published(client: &Client) -> Result<bool, ReadError> {
    Ok(within(client.query_one(PUBLISHED, &[])).await?.get(0))
}

async fn supported(client: &Client) -> Result<(), ReadError> {
    let version = within(client.query_one("SELECT current_setting('server_version_num')::integer", &[])).await?;
    if version.get::<_, i32>(0) < VERSION_MIN {
        return Err(trouble("mode replication takes PostgreSQL 14 or later; leave it out"));
    }
    Ok(())
}
