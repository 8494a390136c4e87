//! What a lane waits for.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tidings_core::lane::Follow;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::store::DeadLetter;
use tidings_log::{CommitError, Page, Pending, Unavailable, Written};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Sleep;

use super::attempt::Attempted;
use super::entry::Told;
use super::orders::Ordered;

pub(super) type Timer = Pin<Box<Sleep>>;
/// Dead letters that are open, and the keys of those events that the log still has.
pub(super) type Letters = (Vec<DeadLetter>, HashMap<Offset, Option<u64>>);
/// Events for a replay, and those of them whose dead letters are closed meanwhile.
pub(super) type Replayed = (Page, HashSet<Offset>);

/// What waited for an event, as the log has it.
#[derive(Default)]
pub(super) struct Followed {
    pub(super) offsets: Vec<Offset>,
    /// How far it was read.
    pub(super) reached: Offset,
    /// Where the log began then; zero if that is not known.
    pub(super) first: Offset,
}

/// What a lane waits for.
pub(super) struct Signals {
    pub(super) told: watch::Receiver<Told>,
    pub(super) cancelled: bool,
    pub(super) bell: Arc<Notify>,
    pub(super) orders: mpsc::UnboundedReceiver<Ordered>,
    pub(super) answers: FuturesUnordered<Pending<Attempted>>,
    pub(super) page: Option<Pending<Result<Page, Unavailable>>>,
    /// Events that waited for another one of their aggregate.
    pub(super) follow: Option<(Follow, Pending<Result<Followed, Unavailable>>)>,
    /// Dead letters of which something is to become.
    pub(super) letters: Option<Pending<Result<Letters, Unavailable>>>,
    /// Events for a replay.
    pub(super) replay: Option<Pending<Result<Replayed, Unavailable>>>,
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
    Told(Told),
    Answer(Box<Attempted>),
    Page(Result<Page, Unavailable>),
    Followed(Follow, Result<Followed, Unavailable>),
    Letters(Result<Letters, Unavailable>),
    Replay(Result<Replayed, Unavailable>),
    Order(Box<Ordered>),
    Commit(Result<Vec<Written>, CommitError>),
    Flush(Pace),
    Due,
    Bell,
    Turn,
}

impl Signals {
    /// Nothing is under way yet.
    pub(super) fn new(
        told: watch::Receiver<Told>,
        orders: mpsc::UnboundedReceiver<Ordered>,
        bell: Arc<Notify>,
    ) -> Self {
        Self {
            told,
            cancelled: false,
            bell,
            orders,
            answers: FuturesUnordered::new(),
            page: None,
            follow: None,
            letters: None,
            replay: None,
            commit: None,
            flush: None,
            due: None,
        }
    }

    /// What happens next; at once if it is the lane's own turn and nothing else does.
    pub(super) async fn next(&mut self, turn: bool) -> Signal {
        let Self { told, cancelled, bell, orders, answers, page, follow, letters, replay, commit, flush, due } = self;
        tokio::select! {
            biased;
            // Nothing is stronger than to cancel, and what is not awaited need not be heard.
            order = told.changed(), if !*cancelled => {
                // Without a dispatcher there is nobody to run for.
                let order = if order.is_ok() { *told.borrow_and_update() } else { Told::Cancel };
                *cancelled = order == Told::Cancel;
                Signal::Told(order)
            }
            Some(answer) = answers.next(), if !answers.is_empty() => Signal::Answer(Box::new(answer)),
            result = take(commit) => Signal::Commit(result),
            result = take(page) => Signal::Page(result),
            (what, result) = take_with(follow) => Signal::Followed(what, result),
            result = take(letters) => Signal::Letters(result),
            result = take(replay) => Signal::Replay(result),
            Some(order) = orders.recv() => Signal::Order(Box::new(order)),
            pace = fire(flush) => Signal::Flush(pace),
            _ = fire(due) => Signal::Due,
            () = bell.notified() => Signal::Bell,
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

async fn take_with<W: Copy, T>(slot: &mut Option<(W, Pending<T>)>) -> (W, T) {
    let Some((what, under_way)) = slot else { return pending().await };
    let (what, result) = (*what, under_way.await);
    *slot = None;
    (what, result)
}

/// Waits for a timer, which then is no more.
async fn fire<T: Copy>(slot: &mut Option<(T, Timer)>) -> T {
    let Some((what, timer)) = slot else { return pending().await };
    timer.await;
    let what = *what;
    *slot = None;
    what
}
