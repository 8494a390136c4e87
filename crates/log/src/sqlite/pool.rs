//! Threads that run what they are given, each with a state of its own.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::turns::{Line, Turns};

pub(crate) type Job<S> = Box<dyn FnOnce(&S) + Send>;

pub(crate) struct Pool<S> {
    jobs: Arc<Jobs<S>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Jobs<S> {
    /// And whether no more are taken.
    waiting: Mutex<(Turns<Job<S>>, bool)>,
    bell: Condvar,
}

impl<S: Send + 'static> Pool<S> {
    /// Starts a thread for each state.
    pub(crate) fn start(name: &str, states: Vec<S>) -> io::Result<Self> {
        let jobs = Arc::new(Jobs { waiting: Mutex::default(), bell: Condvar::new() });
        let mut threads = Vec::new();
        for state in states {
            let jobs = Arc::clone(&jobs);
            threads.push(Builder::new().name(name.to_owned()).spawn(move || jobs.work(&state))?);
        }
        Ok(Self { jobs, threads: Mutex::new(threads) })
    }

    /// Queues a job; false if too many wait or the pool has stopped. The job is dropped then.
    pub(crate) fn run(&self, line: Line, job: Job<S>) -> bool {
        let mut waiting = self.jobs.waiting.lock();
        let (turns, stopped) = &mut *waiting;
        let taken = !*stopped && turns.push(line, job);
        drop(waiting);
        if taken {
            self.jobs.bell.notify_one();
        }
        taken
    }

    /// Ends the threads after what is queued.
    pub(crate) fn stop(&self) {
        self.jobs.waiting.lock().1 = true;
        self.jobs.bell.notify_all();
        for thread in self.threads.lock().drain(..) {
            // A job that panicked has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl<S> Jobs<S> {
    fn work(&self, state: &S) {
        loop {
            let mut waiting = self.waiting.lock();
            let job = loop {
                match waiting.0.pop() {
                    Some(job) => break job,
                    None if waiting.1 => return,
                    None => self.bell.wait(&mut waiting),
                }
            };
            drop(waiting);
            job(state);
        }
    }
}
