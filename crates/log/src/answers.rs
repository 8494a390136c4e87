//! Answers reach a thread's askers together.
//!
//! Waking a task of another thread's runtime is a system call, every time. A thread that serves many askers therefore
//! has a desk: the writer lays a commit's answers there and rings once, and [`serve`] hands them out at home.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::store::{CommitError, Unavailable, Written};

pub(crate) type Outcome = Result<Vec<Written>, CommitError>;

thread_local! {
    static DESK: RefCell<Option<Arc<Desk>>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Desk {
    laid: Mutex<Vec<(oneshot::Sender<Outcome>, Outcome)>>,
    bell: Notify,
}

/// Takes the desk away, so that no answer waits where nobody comes.
struct Closing;

impl Drop for Closing {
    fn drop(&mut self) {
        // At the end of the thread the desk may be gone already.
        let _ = DESK.try_with(RefCell::take);
    }
}

/// Hands out the answers to whoever commits on this thread. Run it as a task of each current-thread runtime that serves
/// many askers; it never ends. Without it answers arrive all the same, each with a system call.
pub async fn serve() {
    let desk = Arc::new(Desk::default());
    DESK.set(Some(Arc::clone(&desk)));
    let _closing = Closing;
    loop {
        desk.bell.notified().await;
        let laid = std::mem::take(&mut *desk.laid.lock());
        for (asker, outcome) in laid {
            // The asker may have gone; what it asked for is kept all the same.
            let _ = asker.send(outcome);
        }
    }
}

/// Where one answer is awaited.
pub(crate) struct Asker {
    sender: oneshot::Sender<Outcome>,
    desk: Option<Arc<Desk>>,
}

impl Asker {
    /// An asker on this thread.
    pub(crate) fn here() -> (Self, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, desk: DESK.with_borrow(Option::clone) }, receiver)
    }

    /// Answers at once.
    pub(crate) fn refuse(self, reason: Unavailable) {
        // The asker may have gone; then nobody misses the answer.
        let _ = self.sender.send(Err(reason.into()));
    }
}

/// Delivers the answers of one commit.
pub(crate) fn deliver(answers: impl Iterator<Item = (Asker, Outcome)>) {
    let mut rung: Vec<Arc<Desk>> = Vec::new();
    for (asker, outcome) in answers {
        let Some(desk) = asker.desk else {
            let _ = asker.sender.send(outcome);
            continue;
        };
        desk.laid.lock().push((asker.sender, outcome));
        if !rung.iter().any(|other| Arc::ptr_eq(other, &desk)) {
            rung.push(desk);
        }
    }
    for desk in rung {
        desk.bell.notify_one();
    }
}
