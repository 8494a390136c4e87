//! Checkpoints beside the writer: a thread of its own takes what is committed from the WAL into the file and syncs it, while
//! the writer goes on. What little came meanwhile the writer takes over itself, so that the WAL can be used anew.
//!
//! A pass is held back from what it must not do by a reader, the pin: SQLite takes over nothing after what the pin reads, and
//! does not use the WAL anew while it reads. So the WAL keeps all that is in the file and not synced there yet, and no sync
//! of the WAL is needed: what a reader sees was synced by the commit.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use rusqlite::{Connection, OpenFlags};

use super::Synchronous;
use super::connection::{OpenError, classify, close_without_checkpoint, open_reader};
use super::turns::Line;
use super::writer::Writer;
use crate::store::Unavailable;

/// Passes of one run. The second has only what was committed during the first: it leaves the writer next to nothing.
const PASSES: usize = 2;

/// What the thread works with.
pub(crate) struct Backfill {
    pin: Connection,
    connection: Connection,
    /// SQLite's own syncs would be of the WAL too. Closing it takes away all locks that the process has on the file, so
    /// it lives until no connection is left.
    file: Arc<File>,
    synchronous: Synchronous,
}

impl Backfill {
    pub(crate) fn open(path: &Path, file: Arc<File>, synchronous: Synchronous) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "synchronous", Synchronous::Off.pragma())?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        close_without_checkpoint(&connection);
        Ok(Self { pin: open_reader(path)?, connection, file, synchronous })
    }

    /// Errors: `Fenced` if the file may have lost what it was to keep. Whatever else goes wrong, the next run does it.
    fn run(&self) -> Result<(), Unavailable> {
        (0..PASSES).try_for_each(|_| self.pass())
    }

    fn pass(&self) -> Result<(), Unavailable> {
        let taken = self.pinned(|| {
            let checkpoint = "PRAGMA wal_checkpoint(PASSIVE)";
            self.connection.query_row(checkpoint, [], |_| Ok(())).map_err(|error| classify(&error))?;
            match self.synchronous {
                Synchronous::Full => self
                    .file
                    .sync_data()
                    .map_err(|error| Unavailable::Fenced(format!("a sync failed ({error})").into())),
                Synchronous::Off => Ok(()),
            }
        });
        match taken {
            Err(fatal @ Unavailable::Fenced(_)) => Err(fatal),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Does `work` while the pin reads what is committed now.
    fn pinned(&self, work: impl FnOnce() -> Result<(), Unavailable>) -> Result<(), Unavailable> {
        let pin = self.pin.unchecked_transaction().map_err(|error| classify(&error))?;
        // A transaction reads nothing, and holds nothing, before its first statement.
        pin.query_row("SELECT value FROM mark LIMIT 1", [], |_| Ok(())).map_err(|error| classify(&error))?;
        work()
    }
}

impl Writer {
    /// Has the other thread take over what is committed: one run at a time.
    pub(crate) fn backfill_begin(&mut self) {
        let (sender, receiver) = channel();
        let shared = Arc::clone(&self.shared);
        let run = move |backfill: &Backfill| {
            let taken = backfill.run();
            if let Err(fatal) = &taken {
                // At once: nothing more is committed, whatever the writer is about.
                shared.fence(fatal);
            }
            // The writer may have ended.
            let _ = sender.send(taken);
        };
        self.shared.backfill.run(Line::default(), Box::new(run));
        self.backfill = Some(receiver);
    }

    /// Whether what was begun is over; waits for it if `wait`.
    pub(crate) fn backfill_ended(&mut self, wait: bool) -> Result<bool, Unavailable> {
        let Some(running) = &self.backfill else { return Ok(false) };
        let ended = if wait { running.recv().map_err(|_| TryRecvError::Disconnected) } else { running.try_recv() };
        match ended {
            Err(TryRecvError::Empty) => return Ok(false),
            Ok(taken) => taken?,
            // The thread is gone: the writer does all of it.
            Err(TryRecvError::Disconnected) => {}
        }
        self.backfill = None;
        Ok(true)
    }
}

/// A run under way.
pub(crate) type Running = Receiver<Result<(), Unavailable>>;

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::sqlite::{SqliteStore, log_path};

    #[test]
    fn a_file_that_cannot_be_synced_fences() {
        let folder = tempfile::tempdir().expect("a folder");
        let _store = SqliteStore::open(folder.path(), Synchronous::Full).expect("a log");
        let path = log_path(folder.path());
        // A pipe takes no sync.
        let (_reader, writer) = std::io::pipe().expect("a pipe");
        let file = Arc::new(File::from(OwnedFd::from(writer)));
        let run = |synchronous| Backfill::open(&path, Arc::clone(&file), synchronous).expect("connections").run();
        assert!(matches!(run(Synchronous::Full), Err(Unavailable::Fenced(reason)) if reason.contains("sync failed")));
        assert_eq!(run(Synchronous::Off), Ok(()));
    }
}
