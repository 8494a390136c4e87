//! How events are written to a group: the same event once for each way, whoever wants it.

use tidings_core::json;
use tidings_core::offset::Offset;
use tidings_log::Record;

use super::{sse, websocket};

/// Room for the tail of a message before it grows.
const TAIL_BYTES: usize = 512;

/// How the streams of a group want their events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Framing {
    /// Server-Sent Events, each with its type as its name or not.
    Events { named: bool },
    /// Messages of a WebSocket, for the subscription whose name this is, as JSON with its quotes.
    Messages(Box<str>),
}

/// The frames of one event, as far as somebody wanted them.
#[derive(Default)]
pub(super) struct Written {
    events: [Vec<u8>; 2],
    /// What is the same in the messages of all subscriptions.
    tail: Vec<u8>,
}

impl Framing {
    /// That of a WebSocket's subscription.
    pub(super) fn messages(id: &str) -> Self {
        let mut quoted = Vec::with_capacity(id.len() + 2);
        json::quote(&mut quoted, id);
        Self::Messages(String::from_utf8_lossy(&quoted).into())
    }

    /// Appends the frame of one event.
    pub(super) fn write(&self, out: &mut Vec<u8>, event: &Record<'_>) {
        match self {
            Self::Events { named } => sse::event(out, event, *named),
            Self::Messages(id) => {
                let mut tail = Vec::with_capacity(TAIL_BYTES);
                websocket::tail(&mut tail, event);
                websocket::event(out, id, &tail);
            }
        }
    }

    /// Says that retention took what was to come next, and where it goes on.
    pub(super) fn gap(&self, first: Offset) -> Vec<u8> {
        match self {
            Self::Events { .. } => sse::gap(first).into_bytes(),
            Self::Messages(id) => websocket::gap(id, first),
        }
    }

    /// Says that everything up to `through` was replayed.
    pub(super) fn complete(&self, through: Offset) -> Vec<u8> {
        match self {
            Self::Events { .. } => sse::complete(through).into_bytes(),
            Self::Messages(id) => websocket::complete(id, through),
        }
    }
}

impl Written {
    /// Begins with another event.
    pub(super) fn clear(&mut self) {
        self.events.iter_mut().for_each(Vec::clear);
        self.tail.clear();
    }

    /// Appends the frame of the event that it was begun with; how many bytes were made that were not there yet.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, event: &Record<'_>, framing: &Framing) -> usize {
        match framing {
            Framing::Events { named } => {
                let frame = &mut self.events[usize::from(*named)];
                let made = made(frame, |frame| sse::event(frame, event, *named));
                out.extend_from_slice(frame);
                made
            }
            Framing::Messages(id) => {
                let made = made(&mut self.tail, |tail| websocket::tail(tail, event));
                websocket::event(out, id, &self.tail);
                made
            }
        }
    }
}

fn made(bytes: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    if !bytes.is_empty() {
        return 0;
    }
    write(bytes);
    bytes.len()
}
