//! The one thread that writes: it commits whatever has queued, syncs once, and answers all.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use rusqlite::Connection;
use tidings_core::time::Timestamp;

use super::Shared;
use super::backfill::Running;
use super::block;
use super::connection::{BUSY_TIMEOUT, classify};
use super::flush::Flush;
use super::group::Group;
use super::heads::HeadCache;
use super::measures::Timed;
use super::merging::Merging;
use super::queue::{Task, Unit, Work};
use super::reader;
use super::start::Found;
use crate::answers::{self, Asker, Outcome};
use crate::event::Tenant;
use crate::store::{CommitError, Refusal, Unavailable, Write, Written};

/// How long the writer waits before it uses the quiet for the index.
const IDLE: Duration = Duration::from_millis(250);
/// A checkpoint is made when about so much was written since the last.
const CHECKPOINT_BYTES: usize = 4 << 20;
/// With so much in the WAL that is not in the file, the writer waits for the checkpoint.
const WAL_BYTES_MAX: usize = 8 * CHECKPOINT_BYTES;
/// What a commit writes beside its rows: the pages at the right edges.
const COMMIT_BYTES: usize = 3 * 4096;
/// Appends are refused when less than this, or 5 % of a small disk, is free: what is being delivered needs room.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
/// How many commits pass between two looks at the disk.
const COMMITS_PER_LOOK: u32 = 32;

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) shared: Arc<Shared>,
    pub(crate) next_position: u64,
    pub(crate) heads: HeadCache,
    pub(crate) flush: Flush,
    pub(crate) merging: Merging,
    next_run: u64,
    /// The time of the newest unit.
    pub(crate) now: Timestamp,
    pub(crate) requests_swept: Timestamp,
    /// How far each tenant's history was looked through for what may go.
    pub(crate) history_walked: HashMap<Tenant, i64>,
    unchecked_bytes: usize,
    pub(crate) backfill: Option<Running>,
    commits: u32,
    pub(crate) disk_full: bool,
    failing: bool,
    /// Something was erased, and the WAL may still hold it.
    erased: bool,
}

/// A writer that panics leaves nobody waiting.
struct PanicWatch(Arc<Shared>);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fence(&Unavailable::Fenced("the writer stopped".into()));
            self.0.refuse_queued();
        }
    }
}

/// Why a unit of a group, or the whole group, goes no further.
pub(crate) enum Stop {
    /// The unit contradicts what is there; its neighbours go on.
    Refused(Refusal),
    /// The unit cannot be served now; its neighbours go on.
    Declined(Unavailable),
    /// SQLite failed; the group is rolled back.
    Failed(rusqlite::Error),
    /// A row is not what it was.
    Damaged(String),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        match reader::damaged(&error) {
            // Met before the unit wrote anything that a savepoint does not undo: the neighbours go on.
            Some(offset) => Self::Declined(Unavailable::Damaged(offset)),
            None if block::is_damaged(&error) => Self::Declined(Unavailable::Trouble(error.to_string().into())),
            None => Self::Failed(error),
        }
    }
}

type Answers = Vec<(Asker, Outcome)>;

impl Writer {
    pub(crate) fn new(connection: Connection, shared: Arc<Shared>, found: Found) -> Self {
        Self {
            connection,
            shared,
            next_position: found.next_position,
            heads: HeadCache::default(),
            flush: Flush::default(),
            merging: Merging::new(found.orphans),
            next_run: found.next_run,
            now: Timestamp::from_millis(0),
            requests_swept: Timestamp::from_millis(0),
            history_walked: HashMap::default(),
            unchecked_bytes: 0,
            backfill: None,
            commits: 0,
            disk_full: false,
            failing: false,
            erased: false,
        }
    }

    /// Runs until the queue is closed and empty, or the store is fenced. Gives the connection back: the last to close is
    /// the one that can fold the WAL into the file.
    pub(crate) fn run(mut self) -> Connection {
        let _watch = PanicWatch(Arc::clone(&self.shared));
        self.look_at_disk();
        loop {
            let wait = self.index_wait();
            let outcome = match self.shared.queue.take(wait.unwrap_or(IDLE)) {
                Work::Tasks(tasks) => self.commit(tasks),
                Work::Idle if wait.is_some() => self.go_on(),
                Work::Idle => self.idle(),
                Work::Closed => break,
            };
            if let Err(unavailable @ Unavailable::Fenced(_)) = outcome {
                self.shared.fence(&unavailable);
                break;
            }
        }
        self.shared.refuse_queued();
        self.connection
    }

    fn commit(&mut self, tasks: Vec<Task>) -> Result<(), Unavailable> {
        let mut group = Group::default();
        let mut answers = Vec::with_capacity(tasks.len());
        let position = self.next_position;
        let outcome = self.transact(&mut group, tasks, &mut answers);
        if let Err(unavailable) = &outcome {
            self.next_position = position;
            self.note_failure(unavailable);
            answers::deliver(answers.into_iter().map(|(asker, _)| (asker, Err(unavailable.clone().into()))));
            return outcome;
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("commits succeed again");
        }
        self.publish(&group);
        answers::deliver(answers.into_iter());
        self.after_commit()
    }

    /// Says once that commits fail, and once that they succeed again.
    fn note_failure(&mut self, unavailable: &Unavailable) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(error = %unavailable, "commits fail");
        }
        self.shared.meter.failed();
        self.shared.lose_seals();
    }

    fn transact(&mut self, group: &mut Group, tasks: Vec<Task>, answers: &mut Answers) -> Result<(), Unavailable> {
        let _timed = Timed::begin(&self.shared, tasks.len());
        let mut failed = self.run_cached("BEGIN IMMEDIATE").map_err(|error| classify(&error)).err();
        for task in tasks {
            match task {
                Task::Unit(unit) if failed.is_some() => {
                    answers.push((unit.asker, Ok(Vec::new())));
                }
                Task::Unit(unit) => {
                    let (asker, outcome) = self.unit(group, unit);
                    match outcome {
                        Ok(written) => answers.push((asker, Ok(written))),
                        Err(Stop::Refused(refusal)) => answers.push((asker, Err(CommitError::Refused(refusal)))),
                        Err(Stop::Declined(reason)) => answers.push((asker, Err(reason.into()))),
                        Err(Stop::Failed(error)) => {
                            answers.push((asker, Ok(Vec::new())));
                            failed = Some(classify(&error));
                        }
                        Err(Stop::Damaged(text)) => {
                            answers.push((asker, Ok(Vec::new())));
                            failed = Some(Unavailable::Trouble(text.into()));
                        }
                    }
                }
                Task::Seal(seal) if failed.is_none() => {
                    failed = self.seal(group, seal).map_err(|error| classify(&error)).err();
                }
                Task::Seal(_) => {}
            }
        }
        if failed.is_none() {
            failed = self.insert(group).map_err(|error| classify(&error)).err();
        }
        if failed.is_none() {
            failed = self.release(group).map_err(|error| classify(&error)).err();
        }
        if failed.is_none() {
            failed = self.index_slice().map_err(|error| classify(&error)).err();
        }
        if failed.is_none() {
            // Another thread's sync may have failed meanwhile.
            let commit = || self.run_cached("COMMIT").map_err(|error| classify(&error));
            failed = self.shared.unfenced().and_then(|()| commit()).err();
        }
        let Some(failed) = failed else {
            self.index_committed();
            return Ok(());
        };
        self.index_failed();
        if !self.connection.is_autocommit() {
            // A rollback that fails changes nothing: the group was not committed either way.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        Err(failed)
    }

    fn run_cached(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.raw_execute().map(|_| ())
    }

    /// Applies one unit. It decides before it writes where it can; where it cannot, a savepoint undoes it.
    fn unit(&mut self, group: &mut Group, unit: Unit) -> (Asker, Result<Vec<Written>, Stop>) {
        self.now = self.now.max(unit.now);
        let mark = group.mark();
        let position = self.next_position;
        let guarded = unit.writes.len() > 1;
        let outcome = self.writes(group, unit.now, unit.writes, guarded);
        if matches!(outcome, Err(Stop::Refused(_) | Stop::Declined(_))) {
            group.back_to(&mark);
            self.next_position = position;
            if guarded && let Err(error) = self.connection.execute_batch("ROLLBACK TO unit; RELEASE unit") {
                return (unit.asker, Err(error.into()));
            }
        }
        (unit.asker, outcome)
    }

    fn writes(
        &mut self,
        group: &mut Group,
        now: Timestamp,
        writes: Vec<Write>,
        guarded: bool,
    ) -> Result<Vec<Written>, Stop> {
        if guarded {
            self.connection.execute_batch("SAVEPOINT unit")?;
        }
        let mut written = Vec::with_capacity(writes.len());
        for write in writes {
            written.push(self.write(group, now, write)?);
        }
        if guarded {
            self.connection.execute_batch("RELEASE unit")?;
        }
        Ok(written)
    }

    fn publish(&mut self, group: &Group) {
        {
            let mut index = self.shared.index.write();
            for fresh in &group.fresh {
                index.add(fresh.position, (fresh.event.tenant, fresh.event.offset), &fresh.postings, fresh.head());
                self.unchecked_bytes += fresh.event.envelope().len() + 96;
            }
        }
        let events: Vec<_> = group.fresh.iter().map(|fresh| Arc::clone(&fresh.event)).collect();
        self.shared.tail.publish(&events);
        self.erased |= !group.erased.is_empty();
        for event in &group.erased {
            self.shared.tail.replace(Arc::clone(event));
        }
        self.shared.apply(group);
        if !group.trimmed.is_empty() {
            self.merging.look();
        }
        for (tenant, first) in &group.trimmed {
            self.shared.tail.forget(*tenant, *first);
        }
        self.shared.wake(&events);
        self.unchecked_bytes += COMMIT_BYTES;
    }

    fn after_commit(&mut self) -> Result<(), Unavailable> {
        self.commits = self.commits.wrapping_add(1);
        if self.commits.is_multiple_of(COMMITS_PER_LOOK) || self.disk_full {
            self.look_at_disk();
        }
        self.flush_pace();
        self.shorten_wal()
    }

    /// Has what is in the WAL taken into the file when it is much, by another thread but for the end. Nothing else touches
    /// the file meanwhile: what fails to be synced must not be synced again.
    fn shorten_wal(&mut self) -> Result<(), Unavailable> {
        let ended = self.backfill_ended(self.unchecked_bytes >= WAL_BYTES_MAX)?;
        if self.backfill.is_some() {
            return Ok(());
        }
        if self.erased {
            return self.empty_wal();
        }
        if ended {
            return self.checkpoint();
        }
        if self.unchecked_bytes >= CHECKPOINT_BYTES {
            self.unchecked_bytes = 0;
            self.backfill_begin();
        }
        Ok(())
    }

    /// Takes what was erased out of the WAL too. A reader in the middle of it puts that off to the next commit.
    fn empty_wal(&mut self) -> Result<(), Unavailable> {
        self.unchecked_bytes = 0;
        let truncate = || -> rusqlite::Result<bool> {
            self.connection.busy_timeout(Duration::ZERO)?;
            let busy = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            self.connection.busy_timeout(BUSY_TIMEOUT)?;
            Ok(busy)
        };
        match truncate().map_err(|error| classify(&error)) {
            Ok(busy) => self.erased = busy,
            Err(fatal @ Unavailable::Fenced(_)) => return Err(fatal),
            Err(_) => {}
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Unavailable> {
        self.look_at_disk();
        self.flush_begin(1);
        self.go_on()
    }

    /// Uses a moment without tasks for the index, and for what other threads have done.
    fn go_on(&mut self) -> Result<(), Unavailable> {
        self.shorten_wal()?;
        self.flush_receive();
        self.merging.idled();
        self.merging.receive(self.next_position);
        if self.index_pending() { self.commit(Vec::new()) } else { Ok(()) }
    }

    fn checkpoint(&mut self) -> Result<(), Unavailable> {
        self.unchecked_bytes = 0;
        let result = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(0));
        match result.map_err(|error| classify(&error)) {
            Err(fatal @ Unavailable::Fenced(_)) => Err(fatal),
            // A full disk or a busy reader: the next one does it.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn look_at_disk(&mut self) {
        if let Ok(disk) = rustix::fs::statvfs(&self.shared.folder) {
            let reserve = RESERVE_BYTES_MAX.min(disk.f_blocks * disk.f_frsize / 20);
            self.disk_full = disk.f_bavail * disk.f_frsize < reserve;
        }
    }

    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.unchecked_bytes += bytes;
    }

    pub(crate) fn take_run_number(&mut self) -> u64 {
        let number = self.next_run;
        self.next_run += 1;
        number
    }
}
