//! Threads that run what they are given, each with a state of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use parking_lot::Mutex;

/// What may wait for the threads of a pool.
const JOBS_MAX: usize = 4_096;

pub(crate) type Job<S> = Box<dyn FnOnce(&S) + Send>;

pub(crate) struct Pool<S> {
    sender: Mutex<Option<Sender<Job<S>>>>,
    waiting: Arc<AtomicUsize>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<S: Send + 'static> Pool<S> {
    /// Starts a thread for each state.
    pub(crate) fn start(name: &str, states: Vec<S>) -> io::Result<Self> {
        let (sender, receiver) = channel::<Job<S>>();
        let receiver = Arc::new(Mutex::new(receiver));
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for state in states {
            let (receiver, waiting) = (Arc::clone(&receiver), Arc::clone(&waiting));
            let run = move || work(&receiver, &waiting, &state);
            threads.push(Builder::new().name(name.to_owned()).spawn(run)?);
        }
        Ok(Self { sender: Mutex::new(Some(sender)), waiting, threads: Mutex::new(threads) })
    }

    /// Queues a job; false if too many wait or the pool has stopped. The job is dropped then.
    pub(crate) fn run(&self, job: Job<S>) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= JOBS_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.sender.lock().as_ref().is_some_and(|sender| sender.send(job).is_ok())
    }

    /// Ends the threads after what is queued.
    pub(crate) fn stop(&self) {
        self.sender.lock().take();
        for thread in self.threads.lock().drain(..) {
            // A job that panicked has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn work<S>(receiver: &Mutex<Receiver<Job<S>>>, waiting: &AtomicUsize, state: &S) {
    loop {
        let job = receiver.lock().recv();
        let Ok(job) = job else { return };
        waiting.fetch_sub(1, Ordering::Relaxed);
        job(state);
    }
}
