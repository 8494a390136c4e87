//! The embedded engine: one SQLite file, one writer thread, two readers, a sealer.

mod append;
mod apply;
mod backfill;
pub(crate) mod block;
pub(crate) mod connection;
mod filter;
mod flush;
mod group;
mod growing;
mod heads;
mod history;
mod kept;
mod letters;
mod measures;
mod merge;
mod merging;
#[cfg(test)]
mod plans;
mod pool;
mod queue;
pub(crate) mod reader;
pub(crate) mod run;
mod seal;
mod search;
mod settle;
mod shared;
mod start;
mod trim;
mod turns;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use parking_lot::Mutex;
use rusqlite::Connection;
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tokio::sync::oneshot;

use backfill::Backfill;
pub use connection::OpenError;
pub use measures::{Measures, Watch};
use pool::Pool;
use queue::Unit;
use reader::Reader;
pub use seal::SEAL_EVENTS_MAX;
pub(crate) use shared::{Era, Shared, TenantState};
use turns::Line;
pub use turns::Party;
use writer::Writer;

use crate::answers::Asker;
use crate::event::{Event, Tenant};
use crate::query::{Frame, Framed, Page, Query};
use crate::store::{
    Attempt, Behind, CommitError, DeadCounts, DeadLetter, DeadQuery, Document, Extent, Kind, Owner, Pending, Progress,
    Seal, Store, Swept, Unavailable, Write, Written,
};
use crate::tail::Tail;

/// The file in the data folder.
pub const LOG_FILE: &str = "log.db";
/// Held while a process has the folder open.
const LOCK_FILE: &str = "lock";
const READERS: usize = 2;

/// Whether an acknowledgement waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// It does: law 1.
    #[default]
    Full,
    /// It does not: a power loss takes what was acknowledged. For throw-away data, and to prove that tests notice.
    Off,
}

impl Synchronous {
    pub(crate) fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Off => "OFF",
        }
    }
}

/// The log in a folder, as one party sees it: see [`SqliteStore::for_party`].
pub struct SqliteStore {
    engine: Arc<Engine>,
    party: Party,
}

struct Engine {
    shared: Arc<Shared>,
    readers: Pool<Reader>,
    writer: Mutex<Option<JoinHandle<Connection>>>,
    sealer: Mutex<Option<JoinHandle<()>>>,
    /// Released when the store is dropped.
    _lock: File,
    /// Open until no connection is left: see [`Backfill`].
    _file: Arc<File>,
}

/// The path of the log in a data folder.
pub fn log_path(folder: &Path) -> PathBuf {
    folder.join(LOG_FILE)
}

/// Takes the folder for this process alone.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(LOCK_FILE);
    let io = |cause: std::io::Error| OpenError::Io { path: path.display().to_string(), cause: cause.to_string() };
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| OpenError::InUse(folder.display().to_string()))?;
    Ok(file)
}

impl SqliteStore {
    /// Opens the log in `folder`, which exists, and makes it if there is none.
    pub fn open(folder: &Path, synchronous: Synchronous) -> Result<Self, OpenError> {
        let lock = lock(folder)?;
        let path = log_path(folder);
        let io = |cause: std::io::Error| OpenError::Io { path: path.display().to_string(), cause: cause.to_string() };
        connection::rewrite_wal(&path).map_err(io)?;
        let connection = connection::open_writer(&path, synchronous)?;
        // The names of new files are durable before anything in them is.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        let file = Arc::new(File::options().read(true).write(true).open(&path).map_err(io)?);
        let backfill = Backfill::open(&path, Arc::clone(&file), synchronous)?;
        let backfill = Pool::start("tidings-checkpoint", vec![backfill]).map_err(io)?;
        let helper = Pool::start("tidings-helper", vec![connection::open_reader(&path)?]).map_err(io)?;
        let shared = Arc::new(Shared::new(folder.to_path_buf(), helper, backfill));
        let found = start::load(&connection, &shared)?;
        let readers =
            (0..READERS).map(|_| Reader::open(&path, Arc::clone(&shared))).collect::<Result<Vec<_>, OpenError>>()?;
        let readers = Pool::start("tidings-reader", readers).map_err(io)?;
        let writer = Writer::new(connection, Arc::clone(&shared), found);
        let sealer = Reader::open(&path, Arc::clone(&shared))?;
        let writer = Builder::new().name("tidings-writer".to_owned()).spawn(move || writer.run()).map_err(io)?;
        let sealer = Builder::new()
            .name("tidings-sealer".to_owned())
            .spawn(move || seal::run(&Arc::clone(&sealer.shared), &sealer))
            .map_err(io)?;
        let (writer, sealer) = (Mutex::new(Some(writer)), Mutex::new(Some(sealer)));
        let engine = Engine { shared, readers, writer, sealer, _lock: lock, _file: file };
        Ok(Self { engine: Arc::new(engine), party: Party::default() })
    }

    /// The same log for somebody else. Whoever asks the readers for something waits in a line with what the same party asks
    /// about the same tenant, and all lines are served in turn; only requests are refused as `Busy` when too many wait.
    #[must_use]
    pub fn for_party(&self, party: Party) -> Self {
        Self { engine: Arc::clone(&self.engine), party }
    }

    /// For who watches the engine.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.engine.shared))
    }

    /// Runs `read`, which is about a tenant if anybody knows, on a reader thread.
    fn ask<T: Send + 'static>(
        &self,
        tenant: Option<Tenant>,
        read: impl FnOnce(&Reader) -> Result<T, Unavailable> + Send + 'static,
    ) -> Pending<Result<T, Unavailable>> {
        let (sender, receiver) = oneshot::channel();
        let job = move |reader: &Reader| {
            // Whoever asked may be gone.
            let _ = sender.send(read(reader));
        };
        let closed = self.engine.shared.is_closed();
        let accepted = self.engine.readers.run(Line { party: self.party, tenant }, Box::new(job));
        Box::pin(async move {
            match receiver.await {
                Ok(answer) => answer,
                Err(_) if closed => Err(Unavailable::Trouble("the log is closed".into())),
                Err(_) if !accepted => Err(Unavailable::Busy),
                Err(_) => Err(Unavailable::Trouble("a reader stopped".into())),
            }
        })
    }
}

impl Store for SqliteStore {
    fn commit(&self, now: Timestamp, writes: Vec<Write>) -> Pending<Result<Vec<Written>, CommitError>> {
        let (asker, receiver) = Asker::here();
        self.engine.shared.queue.push(Unit { now, writes, asker });
        let shared = Arc::clone(&self.engine.shared);
        Box::pin(async move { receiver.await.unwrap_or_else(|_| Err(shared.fenced_reason().into())) })
    }

    fn tenant(&self, name: &TenantName) -> Option<Tenant> {
        self.engine.shared.tenant(name)
    }

    fn tenants(&self) -> Vec<(Tenant, TenantName)> {
        self.engine.shared.tenant_names()
    }

    fn extent(&self, tenant: Tenant) -> Extent {
        self.engine.shared.end(tenant).extent
    }

    fn replaced_by(&self, tenant: Tenant, cursor: Offset) -> Option<Offset> {
        self.engine.shared.replaced_by(tenant, cursor)
    }

    fn tail(&self) -> &Tail {
        &self.engine.shared.tail
    }

    fn read(&self, query: Query) -> Pending<Result<Page, Unavailable>> {
        self.ask(Some(query.tenant), move |reader| reader.read(&query))
    }

    fn frame(&self, query: Query, bytes_max: usize, frame: Frame) -> Pending<Result<Framed, Unavailable>> {
        self.ask(Some(query.tenant), move |reader| reader.frame(&query, bytes_max, &frame))
    }

    fn event(&self, tenant: Tenant, offset: Offset) -> Pending<Result<Option<Arc<Event>>, Unavailable>> {
        match self.engine.shared.tail.get(tenant, offset) {
            Some(event) => Box::pin(std::future::ready(Ok(Some(event)))),
            None => self.ask(Some(tenant), move |reader| reader.event_or_copy(tenant, offset)),
        }
    }

    fn find(&self, tenant: Tenant, id: &EventId) -> Pending<Result<Option<Arc<Event>>, Unavailable>> {
        let id = id.clone();
        self.ask(Some(tenant), move |reader| reader.find(tenant, &id))
    }

    fn before(&self, tenant: Tenant, time: Timestamp) -> Pending<Result<Offset, Unavailable>> {
        self.ask(Some(tenant), move |reader| reader.before(tenant, time))
    }

    fn sealed(&self, tenant: Tenant) -> Option<Seal> {
        let seal = self.engine.shared.last_seal(tenant);
        (seal.last > Offset(0)).then_some(seal)
    }

    fn get(&self, kind: Kind, owner: Owner, id: &str) -> Pending<Result<Option<Document>, Unavailable>> {
        let id = id.to_owned();
        self.ask(tenant_of(owner), move |reader| reader.get(kind, owner, &id))
    }

    fn list(
        &self,
        kind: Kind,
        owner: Option<Owner>,
        after: &str,
        limit: usize,
    ) -> Pending<Result<Vec<Document>, Unavailable>> {
        let after = after.to_owned();
        self.ask(owner.and_then(tenant_of), move |reader| reader.list(kind, owner, &after, limit))
    }

    fn progress(&self, subscription: &str) -> Pending<Result<Option<Progress>, Unavailable>> {
        let subscription = subscription.to_owned();
        self.ask(None, move |reader| reader.progress(&subscription))
    }

    fn behind(&self, after: &str, limit: usize) -> Pending<Result<Vec<Behind>, Unavailable>> {
        let after = after.to_owned();
        self.ask(None, move |reader| reader.behind(&after, limit))
    }

    fn swept(&self) -> Pending<Result<Vec<Swept>, Unavailable>> {
        self.ask(None, Reader::swept)
    }

    fn attempts(&self, tenant: Tenant, offset: Offset, limit: usize) -> Pending<Result<Vec<Attempt>, Unavailable>> {
        self.ask(Some(tenant), move |reader| reader.attempts(tenant, offset, limit))
    }

    fn history(
        &self,
        subscription: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<Result<Vec<(u64, Attempt)>, Unavailable>> {
        let subscription = subscription.to_owned();
        self.ask(None, move |reader| reader.history(&subscription, before, limit))
    }

    fn dead_letter(&self, tenant: Tenant, id: &str) -> Pending<Result<Option<DeadLetter>, Unavailable>> {
        let id = id.to_owned();
        self.ask(Some(tenant), move |reader| reader.dead_letter(tenant, &id))
    }

    fn dead_letters(&self, query: DeadQuery) -> Pending<Result<Vec<DeadLetter>, Unavailable>> {
        self.ask(Some(query.tenant), move |reader| reader.dead_letters(&query))
    }

    fn dead_counts(&self) -> Pending<Result<DeadCounts, Unavailable>> {
        self.ask(None, Reader::dead_counts)
    }

    fn fenced(&self) -> Pending<String> {
        let mut watch = self.engine.shared.fence_watch();
        Box::pin(async move {
            let reason = watch.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            match reason {
                Some(reason) => reason.to_string(),
                // The store is gone, and with it what could fail.
                None => std::future::pending().await,
            }
        })
    }

    fn close(&self) {
        self.engine.close();
    }
}

impl Engine {
    fn close(&self) {
        self.shared.close();
        // A thread that panicked has been reported by the panic hook.
        let connection = self.writer.lock().take().and_then(|writer| writer.join().ok());
        let _ = self.sealer.lock().take().map(JoinHandle::join);
        self.readers.stop();
        self.shared.helper.stop();
        self.shared.backfill.stop();
        if let Some(connection) = connection.as_ref().filter(|_| self.shared.unfenced().is_err()) {
            connection::close_without_checkpoint(connection);
        }
        // The last connection to close, and the only one that may write, folds the WAL into the file.
        drop(connection);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn tenant_of(owner: Owner) -> Option<Tenant> {
    match owner {
        Owner::Operator => None,
        Owner::Tenant(tenant) => Some(tenant),
    }
}
