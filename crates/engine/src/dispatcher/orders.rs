//! What a subscription is told from outside.

use tidings_core::offset::Offset;
use tidings_log::store::DeadLetter;
use tidings_log::{CommitError, Write};
use tokio::sync::oneshot;

use super::replay::Job;

/// Something to do to a subscription.
#[derive(Clone, Debug)]
pub enum Order {
    /// Send nothing more until it is resumed.
    Pause,
    /// End a pause.
    Resume,
    /// End a pause or a deactivation; with an offset, go on after it, and record what is jumped over as skipped.
    Activate(Option<Offset>),
    /// Send the events of open dead letters again, each from its first attempt on.
    Revive(Vec<DeadLetter>),
    /// Give dead letters up for good, with a reason: what is parked for them goes on.
    Discard(Vec<DeadLetter>, Box<str>),
    /// Begin a replay.
    Replay(Job),
    /// End a replay: what is not sent yet is not sent.
    Cancel(Box<str>),
}

/// What became of an [`Order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, for so many (dead letters, replays).
    Done(usize),
    /// It makes no sense as things stand: an active one cannot be activated, say.
    Pointless,
}

/// An order, with what commits together with it and whom to answer.
pub(super) struct Ordered {
    pub(super) order: Order,
    pub(super) writes: Vec<Write>,
    pub(super) sender: oneshot::Sender<Result<Outcome, CommitError>>,
}
