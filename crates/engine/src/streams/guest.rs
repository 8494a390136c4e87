//! Who is let in: a socket that asked for a stream or a WebSocket, and what it is to get.

use std::net::TcpStream;

use bytes::Bytes;
use tidings_core::filter::Filter;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::Tenant;

use super::voice::Voice;

/// A socket that asked for a stream and may have it.
pub struct Guest {
    /// Does not block. A connection, or one end of a pair of sockets whose other end feeds an HTTP body.
    pub socket: TcpStream,
    /// Written first, as it is: the head of the answer and the first block.
    pub greeting: Vec<u8>,
    /// Whose log it follows.
    pub tenant: Tenant,
    /// What it is to get.
    pub wants: Wants,
    /// Whether it may stay; asked every second. It holds what the stream occupies, and is dropped with it.
    pub pass: Box<dyn Fn(Timestamp) -> Pass + Send>,
}

/// What a socket is to get.
pub enum Wants {
    /// Server-Sent Events.
    Stream {
        /// Which events.
        filter: Filter,
        /// Those after this offset.
        cursor: Offset,
        /// How it wants them.
        style: Style,
        /// It asked for what has been: when it has that, it is told so.
        replays: bool,
    },
    /// A WebSocket: what it gets it says itself.
    Talk(Hear),
}

/// Is given each text message of a WebSocket, in order; has it done on another thread, where the voice answers, and says
/// that it is over with [`Voice::done`]. It is dropped with the connection.
pub type Hear = Box<dyn Fn(Bytes, &Voice) + Send>;

/// How a client wants its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Style {
    /// Each with its type as the name of the event.
    pub named: bool,
    /// Heartbeats as events that scripts can see.
    pub ping: bool,
}

/// Whether a stream may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It may, up to a time if there is one.
    Good(Option<Timestamp>),
    /// It ends.
    Over(Ending),
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server stops.
    Drain,
    /// More are open than may be.
    Overloaded,
    /// What opened it was taken back.
    Revoked,
    /// What opened it has expired.
    Expired,
    /// The same ticket opened another stream.
    Replaced,
    /// The log cannot be read.
    Unavailable,
}

impl Ending {
    /// Its name in the stream.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Overloaded => "overloaded",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::Unavailable => "unavailable",
        }
    }

    /// How long a client stays away at least, in milliseconds.
    pub fn stay_away_ms(self) -> u64 {
        match self {
            // Or two windows with one ticket would replace each other for ever.
            Self::Replaced => 3_600_000,
            Self::Overloaded => 5_000,
            Self::Drain | Self::Revoked | Self::Expired | Self::Unavailable => super::RETRY_MS,
        }
    }
}
