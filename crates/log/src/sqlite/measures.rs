//! What the engine tells of itself in numbers, to whoever watches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::{LOG_FILE, Shared};
use crate::meter::{Counted, Histogram};

/// Counted by the writer.
#[derive(Default)]
pub(crate) struct Meter {
    transactions: Histogram,
    tasks: AtomicU64,
    events: AtomicU64,
    failures: AtomicU64,
}

/// Times one transaction, however it ends.
pub(crate) struct Timed {
    shared: Arc<Shared>,
    began: Instant,
}

/// The engine in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measures {
    /// Transactions since the start, failed ones too.
    pub transactions: Counted,
    /// What these were made of: commits asked for, and seals.
    pub tasks: u64,
    /// Events appended since the start.
    pub events: u64,
    /// Transactions that failed.
    pub failures: u64,
    /// What waits for the writer, and its bytes.
    pub queued: (usize, usize),
    /// The offsets of the newest events of all tenants, added up.
    pub heads: u64,
    /// Events that are kept, gaps of eras included.
    pub kept: u64,
    /// Bytes of the log's files.
    pub file_bytes: u64,
    /// Bytes that the disk has free for them.
    pub free_bytes: u64,
}

/// Watches an engine from outside.
#[derive(Clone)]
pub struct Watch(pub(super) Arc<Shared>);

impl Meter {
    pub(crate) fn committed(&self, events: usize) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl Timed {
    pub(crate) fn begin(shared: &Arc<Shared>, tasks: usize) -> Self {
        shared.meter.tasks.fetch_add(tasks as u64, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), began: Instant::now() }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.shared.meter.transactions.record(self.began.elapsed());
    }
}

impl Watch {
    /// The numbers of this moment. Looks at the disk: not for a thread that serves others.
    pub fn measures(&self) -> Measures {
        let Shared { meter, folder, .. } = &*self.0;
        let extents = self.0.extents();
        let size =
            |suffix: &str| std::fs::metadata(folder.join(format!("{LOG_FILE}{suffix}"))).map_or(0, |file| file.len());
        Measures {
            transactions: meter.transactions.read(),
            tasks: meter.tasks.load(Ordering::Relaxed),
            events: meter.events.load(Ordering::Relaxed),
            failures: meter.failures.load(Ordering::Relaxed),
            queued: self.0.queue.waiting(),
            heads: extents.iter().map(|extent| extent.head.0).sum(),
            kept: extents.iter().map(|extent| (extent.head.0 + 1).saturating_sub(extent.first.0)).sum(),
            file_bytes: size("") + size("-wal") + size("-shm"),
            free_bytes: rustix::fs::statvfs(folder).map_or(0, |disk| disk.f_bavail * disk.f_frsize),
        }
    }
}
