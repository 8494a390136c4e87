//! The baseline's log: one thread that appends whatever has queued, syncs once, and answers all of it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use tokio::sync::oneshot;

/// Requests that may wait for the thread; far more than connections of any run, for a full queue blocks a core.
const QUEUE_MAX: usize = 4096;

/// A handle to the thread; clones share it, and it ends with the last of them.
#[derive(Clone)]
pub(crate) struct Appender {
    queue: mpsc::SyncSender<Job>,
}

struct Job {
    bytes: Bytes,
    done: oneshot::Sender<()>,
}

impl Appender {
    /// Creates `file` and starts the thread; an error of the disk ends the process, for nothing may be acked after it.
    pub(crate) fn start(file: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(file)?;
        let (queue, jobs) = mpsc::sync_channel(QUEUE_MAX);
        thread::Builder::new().name("appender".to_owned()).spawn(move || {
            if let Err(error) = append_all(file, &jobs) {
                eprintln!("appending failed: {error}");
                std::process::exit(1);
            }
        })?;
        Ok(Self { queue })
    }

    /// Returns once `bytes` and a line break are on disk.
    pub(crate) async fn append(&self, bytes: Bytes) -> io::Result<()> {
        let (done, synced) = oneshot::channel();
        self.queue.send(Job { bytes, done }).map_err(|_| io::ErrorKind::BrokenPipe)?;
        synced.await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn append_all(mut file: File, jobs: &mpsc::Receiver<Job>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1 << 20);
    let mut waiting = Vec::with_capacity(256);
    while let Ok(first) = jobs.recv() {
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            buffer.extend_from_slice(&job.bytes);
            if !job.bytes.ends_with(b"\n") {
                buffer.push(b'\n');
            }
            waiting.push(job.done);
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
        buffer.clear();
        for done in waiting.drain(..) {
            // A client that hung up meanwhile no longer waits.
            let _ = done.send(());
        }
    }
    Ok(())
}
