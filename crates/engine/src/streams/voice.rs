//! The way back to an open WebSocket, from the thread where its operations are done.

use std::sync::Arc;

use tidings_core::filter::Filter;
use tidings_core::offset::Offset;
use tokio::sync::oneshot;

use super::shard::inbox::{Inbox, Order};
use super::websocket;

/// The way back to an open WebSocket. What is told to one that has gone is dropped.
#[derive(Clone)]
pub struct Voice {
    inbox: Arc<Inbox>,
    stream: u32,
    pub(super) serial: u64,
}

/// A subscription of a WebSocket: which events it gets under a name.
pub struct Subscription {
    /// Its name, unique on the connection: it stands in each of its messages.
    pub id: Box<str>,
    /// Which events.
    pub filter: Filter,
    /// Those after this offset.
    pub cursor: Offset,
    /// It asked for what has been: when it has that, it is told so.
    pub replays: bool,
}

/// What a WebSocket is told by the thread that does its operations.
pub(super) enum Word {
    /// Frames, and whom to tell when the socket has taken all that was said.
    Say(Vec<u8>, Option<oneshot::Sender<()>>),
    Subscribe(Box<Subscription>),
    /// The subscription of this name.
    Unsubscribe(Box<str>),
    /// An operation is over.
    Done,
}

impl Voice {
    pub(super) fn new(inbox: Arc<Inbox>, stream: u32, serial: u64) -> Self {
        Self { inbox, stream, serial }
    }

    fn tell(&self, word: Word) {
        self.inbox.order(Order::Word { stream: self.stream, serial: self.serial, word });
    }

    /// Says a text message.
    pub fn say(&self, message: &[u8]) {
        let mut frame = Vec::with_capacity(message.len() + websocket::HEAD_BYTES_MAX);
        websocket::text(&mut frame, message);
        self.tell(Word::Say(frame, None));
    }

    /// Says frames that [`websocket::text`] made; resolves when the socket has taken them, or has gone.
    pub async fn say_all(&self, frames: Vec<u8>) {
        let (taken, told) = oneshot::channel();
        self.tell(Word::Say(frames, Some(taken)));
        // One that has gone drops the sender.
        let _ = told.await;
    }

    /// Adds a subscription; its name is not in use.
    pub fn subscribe(&self, subscription: Subscription) {
        self.tell(Word::Subscribe(Box::new(subscription)));
    }

    /// Takes a subscription away: from here on no event comes of it.
    pub fn unsubscribe(&self, id: &str) {
        self.tell(Word::Unsubscribe(id.into()));
    }

    /// Says that an operation is over, so that another is read.
    pub fn done(&self) {
        self.tell(Word::Done);
    }
}
