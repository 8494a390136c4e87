//! What other threads tell a shard: orders, and that something it waits for has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;
use tidings_log::Tenant;

use crate::streams::guest::Guest;
use crate::streams::voice::Word;

/// What a shard is asked to do.
pub(in crate::streams) enum Order {
    Admit(Box<Guest>),
    /// Tell the WebSocket that has this number, if its serial number is this.
    Word {
        stream: u32,
        serial: u64,
        word: Word,
    },
    /// End all streams, and those that come.
    Drain,
    /// End the thread.
    Stop,
}

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// A tenant's log grew.
    News(Tenant),
    /// The read with this number has an answer.
    Read(u32),
}

/// What other threads tell a shard.
pub(in crate::streams) struct Inbox {
    orders: Mutex<Vec<Order>>,
    rung: Mutex<Vec<Ring>>,
    waker: mio::Waker,
    /// It was woken and has not looked yet: one system call, however much comes.
    woken: AtomicBool,
}

struct Bell {
    ring: Ring,
    inbox: Arc<Inbox>,
}

impl Inbox {
    pub(super) fn new(waker: mio::Waker) -> Self {
        Self { orders: Mutex::default(), rung: Mutex::default(), waker, woken: AtomicBool::new(false) }
    }

    pub(in crate::streams) fn order(&self, order: Order) {
        self.orders.lock().push(order);
        self.wake();
    }

    /// A waker of futures that leaves `ring` here.
    pub(super) fn bell(self: &Arc<Self>, ring: Ring) -> Waker {
        Arc::new(Bell { ring, inbox: Arc::clone(self) }).into()
    }

    /// What was ordered; from here on the shard is woken again.
    pub(super) fn orders(&self) -> Vec<Order> {
        self.woken.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.orders.lock())
    }

    pub(super) fn rung(&self) -> Vec<Ring> {
        std::mem::take(&mut *self.rung.lock())
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake a thread of streams");
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.inbox.rung.lock().push(self.ring);
        self.inbox.wake();
    }
}
