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
    /// End a pause or a deactivation; what is jumped over is recorded as skipped.
    Activate(Point),
    /// Send the events of open dead letters again, each from its first attempt on.
    Revive(Vec<DeadLetter>),
    /// Give dead letters up for good, with a reason: what is parked for them goes on.
    Discard(Vec<DeadLetter>, Box<str>),
    /// Begin a replay.
    Replay(Job),
    /// End a replay: what is not sent yet is not sent.
    Cancel(Box<str>),
    /// What workers are done with: the answer says which of it is settled and committed as such.
    Done(Vec<Word>),
}

/// A worker's word that it is done with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Of which event.
    pub offset: Offset,
    /// Which attempt.
    pub attempt: u32,
    /// Whether it was out, and was told so through the sink.
    pub was_out: bool,
}

/// Where a subscription goes on once it is active again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Where it stood.
    Cursor,
    /// At the end of the log, as it is when this is carried out.
    Latest,
    /// After an offset.
    After(Offset),
}

/// What became of an [`Order`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, for so many (dead letters, replays).
    Done(usize),
    /// Of [`Order::Done`], those that are settled.
    Settled(Vec<Offset>),
    /// It makes no sense as things stand: an active one cannot be activated, say.
    Pointless,
}

/// An order, with what commits together with it and whom to answer.
pub(super) struct Ordered {
    pub(super) order: Order,
    pub(super) writes: Vec<Write>,
    pub(super) sender: oneshot::Sender<Result<Outcome, CommitError>>,
}
