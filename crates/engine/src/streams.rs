//! Live streams: a cursor that a client holds.
//!
//! [`Shard`]s hold the sockets: who wants the same forms a [`group`] that shares its [`frames`], and who falls behind goes
//! through pages of the log. [`sse`] and [`websocket`] frame events; a WebSocket is a [`talk`] too, whose operations are
//! done elsewhere and answered by a [`voice`].

pub mod frames;
mod framing;
mod group;
pub mod guest;
mod line;
mod open;
pub mod resume;
mod shard;
pub mod sse;
mod talk;
pub mod voice;
pub mod websocket;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidings_log::Store;

use guest::Guest;
use shard::Handle;
pub use shard::{Env, Shard};

/// How long a client waits at least before it comes back, in milliseconds.
pub const RETRY_MS: u64 = 500;
/// The times of clients are spread over this, so that a restart is not followed by all at once.
pub const RETRY_SPREAD_MS: u64 = 2_500;

/// The way to the shards.
pub struct Streams {
    shards: Vec<Handle>,
    next: AtomicUsize,
}

impl Streams {
    /// `count` shards and the way to them; each is to be run by a thread.
    ///
    /// Errors: the system gives no more file descriptors.
    pub fn new(store: &Arc<dyn Store>, env: Env, count: usize) -> io::Result<(Self, Vec<Shard>)> {
        let made: io::Result<Vec<_>> = (0..count.max(1)).map(|_| Shard::new(Arc::clone(store), env)).collect();
        let (shards, threads) = made?.into_iter().unzip();
        Ok((Self { shards, next: AtomicUsize::new(0) }, threads))
    }

    /// Gives a guest to a shard, in turn.
    pub fn admit(&self, guest: Guest) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.shards[turn % self.shards.len()].admit(guest);
    }

    /// Ends all streams, and those that come from now on: each is told to come back, at times that are spread.
    pub fn drain(&self) {
        self.shards.iter().for_each(Handle::drain);
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.shards.iter().for_each(Handle::stop);
    }
}
