//! One open stream or WebSocket: the line to a client, and where it stands. It buffers no events: its place waits while
//! the client does not read.

use slab::Slab;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::frames::Cursor;
use super::guest::Pass;
use super::line::Line;
use super::talk::Talk;
use super::{sse, websocket};

/// One open stream or WebSocket.
pub(super) struct Open {
    pub(super) line: Line,
    pub(super) kind: Kind,
    /// It was told when it expires.
    pub(super) warned: bool,
    pass: Box<dyn Fn(Timestamp) -> Pass + Send>,
}

/// What a line is used for.
pub(super) enum Kind {
    /// Server-Sent Events; with heartbeats that scripts can see, if they are wanted.
    Stream { reader: Reader, ping: bool },
    /// A WebSocket.
    Talk(Box<Talk>),
}

/// Who follows a group's frames.
pub(super) struct Reader {
    /// Whose.
    pub(super) group: u32,
    pub(super) at: At,
    /// It waits for a page.
    pub(super) reading: bool,
    /// It is to be told when it has what it asked to have replayed.
    pub(super) replays: bool,
    /// The group knows that it does not have all frames.
    pub(super) late: bool,
    /// The cursor that it was last told.
    pub(super) told: Offset,
}

/// Names a reader: an open stream, and which of its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) stream: u32,
    pub(super) reader: u32,
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// At a position in the frames of its group.
    Live(u64),
    /// Behind them.
    Behind(Cursor),
}

impl Member {
    /// The only reader of Server-Sent Events.
    pub(super) fn only(stream: u32) -> Self {
        Self { stream, reader: 0 }
    }
}

impl Reader {
    pub(super) fn new(group: u32, cursor: Offset, replays: bool) -> Self {
        let at = At::Behind(Cursor::after(cursor));
        Self { group, at, reading: false, replays, late: false, told: cursor }
    }

    /// Whether it has everything up to a position in the frames of its group.
    pub(super) fn has_all(&self, end: u64) -> bool {
        matches!(self.at, At::Live(at) if at == end)
    }
}

impl Open {
    pub(super) fn new(line: Line, kind: Kind, pass: Box<dyn Fn(Timestamp) -> Pass + Send>) -> Self {
        Self { line, kind, warned: false, pass }
    }

    pub(super) fn pass(&self, now: Timestamp) -> Pass {
        (self.pass)(now)
    }

    /// Says when it will end because what opened it expires.
    pub(super) fn expiring(&self, until: Timestamp) -> Vec<u8> {
        match self.kind {
            Kind::Stream { .. } => sse::expiring(until).into_bytes(),
            Kind::Talk(_) => websocket::expiring(until),
        }
    }

    /// All its readers, and their names.
    pub(super) fn members(&self, stream: u32) -> Vec<(Member, u32)> {
        match &self.kind {
            Kind::Stream { reader, .. } => vec![(Member::only(stream), reader.group)],
            Kind::Talk(talk) => talk.members(stream),
        }
    }
}

/// A reader, and the line that it shares with others of the same WebSocket.
pub(super) fn find(streams: &mut Slab<Open>, member: Member) -> Option<(&mut Line, &mut Reader)> {
    let open = streams.get_mut(member.stream as usize)?;
    let reader = match &mut open.kind {
        Kind::Stream { reader, .. } => reader,
        Kind::Talk(talk) => talk.readers.get_mut(member.reader as usize)?,
    };
    Some((&mut open.line, reader))
}
