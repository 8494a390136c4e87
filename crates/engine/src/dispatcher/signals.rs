//! What a lane waits for.

use std::future::pending;
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::{CommitError, Page, Pending, Unavailable, Written};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::Order;
use super::attempt::Answer;

pub(super) type Timer = Pin<Box<Sleep>>;

/// What a lane waits for.
pub(super) struct Signals {
    pub(super) told: watch::Receiver<Order>,
    pub(super) cancelled: bool,
    pub(super) head: watch::Receiver<Offset>,
    pub(super) answers: FuturesUnordered<Pending<Answer>>,
    pub(super) page: Option<Pending<Result<Page, Unavailable>>>,
    pub(super) commit: Option<Pending<Result<Vec<Written>, CommitError>>>,
    pub(super) flush: Option<(Pace, Timer)>,
    pub(super) due: Option<(Timestamp, Timer)>,
}

/// Why a commit is waited for; stronger ones last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    Lazily,
    Soon,
    /// After a commit that failed.
    Again,
}

/// What happened.
pub(super) enum Signal {
    Told(Order),
    Answer(Box<Answer>),
    Page(Result<Page, Unavailable>),
    Commit(Result<Vec<Written>, CommitError>),
    Flush(Pace),
    Due,
    Head,
    Turn,
}

impl Signals {
    /// What happens next; at once if it is the lane's own turn and nothing else does.
    pub(super) async fn next(&mut self, turn: bool) -> Signal {
        let Self { told, cancelled, head, answers, page, commit, flush, due } = self;
        tokio::select! {
            biased;
            // Nothing is stronger than to cancel, and what is not awaited need not be heard.
            order = told.changed(), if !*cancelled => {
                // Without a dispatcher there is nobody to run for.
                let order = if order.is_ok() { *told.borrow_and_update() } else { Order::Cancel };
                *cancelled = order == Order::Cancel;
                Signal::Told(order)
            }
            Some(answer) = answers.next(), if !answers.is_empty() => Signal::Answer(Box::new(answer)),
            result = take(commit) => Signal::Commit(result),
            result = take(page) => Signal::Page(result),
            pace = fire(flush) => Signal::Flush(pace),
            _ = fire(due) => Signal::Due,
            changed = head.changed() => if changed.is_ok() { Signal::Head } else { pending().await },
            () = tokio::task::yield_now(), if turn => Signal::Turn,
        }
    }
}

/// The result of what is under way, which then is no more.
async fn take<T>(slot: &mut Option<Pending<T>>) -> T {
    let Some(under_way) = slot else { return pending().await };
    let result = under_way.await;
    *slot = None;
    result
}

/// Waits for a timer, which then is no more.
async fn fire<T: Copy>(slot: &mut Option<(T, Timer)>) -> T {
    let Some((what, timer)) = slot else { return pending().await };
    timer.await;
    let what = *what;
    *slot = None;
    what
}
