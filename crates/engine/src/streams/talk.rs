//! What an open WebSocket has beyond its line: subscriptions, what it says, and the frames of that.

use std::io::{self, Cursor, Read, Write};

use slab::Slab;
use tidings_log::Tenant;
use tokio::sync::oneshot;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::group::number;
use super::guest::Hear;
use super::open::{Member, Reader};
use super::voice::Voice;
use super::websocket::{self, Close, MESSAGE_BYTES_MAX};

/// Operations of a connection that are not over; more are not read.
const OPERATIONS_MAX: u32 = 16;
/// Words that wait for the socket; while there are more nothing is read.
const WORDS_BYTES_MAX: usize = 64 * 1024;
/// What the library reads at a time.
const READ_BYTES: usize = 4 * 1024;

/// What an open WebSocket has beyond its line.
pub(super) struct Talk {
    /// Whose log it follows.
    pub(super) tenant: Tenant,
    /// One for each subscription.
    pub(super) readers: Slab<Reader>,
    hear: Hear,
    voice: Voice,
    /// Made when something comes, and dropped when it was understood: most are idle.
    ear: Option<Box<Ear>>,
    /// Operations that are not over.
    asked: u32,
    /// There is more to read than was read.
    pub(super) waits: bool,
    /// The round in which something was last heard.
    pub(super) heard: u32,
    /// The round in which it was asked whether it is there, if it did not say since.
    pub(super) pinged: Option<u32>,
    /// The round in which it was last told its cursors.
    pub(super) beat: u32,
    /// Who waits until all words are said.
    pub(super) taken: Vec<oneshot::Sender<()>>,
}

/// What was heard.
pub(super) enum Heard {
    /// What there was is dealt with.
    Nothing,
    /// It is to be closed, or has closed and had its answer.
    End(Option<Close>),
}

impl Talk {
    pub(super) fn new(hear: Hear, voice: Voice, tenant: Tenant, round: u32) -> Self {
        Self {
            tenant,
            readers: Slab::new(),
            hear,
            voice,
            ear: None,
            asked: 0,
            waits: false,
            heard: round,
            pinged: None,
            beat: round,
            taken: Vec::new(),
        }
    }

    /// Unlike the number of a stream it is never used again.
    pub(super) fn serial(&self) -> u64 {
        self.voice.serial
    }

    /// All its readers with their names, and the group of each.
    pub(super) fn members(&self, stream: u32) -> Vec<(Member, u32)> {
        let member = |(reader, at): (usize, &Reader)| (Member { stream, reader: number(reader) }, at.group);
        self.readers.iter().map(member).collect()
    }

    /// Whether it is to be listened to, with so many bytes of words that wait.
    pub(super) fn has_room(&self, unsaid: usize) -> bool {
        self.asked < OPERATIONS_MAX && unsaid <= WORDS_BYTES_MAX
    }

    /// An operation is over.
    pub(super) fn done(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// Takes bytes that came.
    pub(super) fn take(&mut self, bytes: &[u8], round: u32) {
        self.heard = round;
        self.pinged = None;
        self.ear.get_or_insert_with(Box::default).came.extend_from_slice(bytes);
    }

    /// Hands on the messages that are whole, as far as there is room for operations; `said` gets what answers pings and
    /// the end.
    pub(super) fn understand(&mut self, said: &mut Vec<u8>) -> Heard {
        let Some(mut ear) = self.ear.take() else { return Heard::Nothing };
        while self.has_room(said.len()) {
            match ear.next(said) {
                Next::More => {
                    if !ear.is_at_rest() {
                        self.ear = Some(ear);
                    }
                    return Heard::Nothing;
                }
                Next::Message(message) if cfg!(feature = "echo") => echo(said, &message),
                Next::Message(Message::Text(text)) => {
                    self.asked += 1;
                    (self.hear)(text.into(), &self.voice);
                }
                Next::Message(_) => return Heard::End(Some(Close::BINARY)),
                Next::Control => {}
                Next::End(close) => return Heard::End(close),
            }
        }
        self.ear = Some(ear);
        Heard::Nothing
    }
}

/// Understands frames. Whole ones alone are given to the library, so that nothing of it has to be kept between them.
struct Ear {
    context: WebSocketContext,
    /// What came and was not understood yet: a part of a frame, or what there was no room for.
    came: Vec<u8>,
    /// It has a part of a message.
    within: bool,
}

/// What comes next.
enum Next {
    /// Not enough came.
    More,
    /// A text, or what is none.
    Message(Message),
    /// A ping, which has its answer, or a pong.
    Control,
    /// The end.
    End(Option<Close>),
}

impl Default for Ear {
    fn default() -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        Self { context: WebSocketContext::new(Role::Server, Some(config)), came: Vec::new(), within: false }
    }
}

impl Ear {
    fn is_at_rest(&self) -> bool {
        self.came.is_empty() && !self.within
    }

    fn next(&mut self, said: &mut Vec<u8>) -> Next {
        let mut head = Cursor::new(&self.came);
        let length = match FrameHeader::parse(&mut head) {
            Ok(Some((_, length))) => usize::try_from(length).unwrap_or(usize::MAX),
            Ok(None) => return Next::More,
            Err(error) => return ended(&error),
        };
        if length > MESSAGE_BYTES_MAX {
            return Next::End(Some(Close::TOO_LARGE));
        }
        // A head has 14 bytes at the most.
        let whole = usize::try_from(head.position()).unwrap_or(0) + length;
        if self.came.len() < whole {
            return Next::More;
        }
        let mut wire = Wire { frame: &self.came[..whole], said };
        let read = self.context.read(&mut wire);
        // Answers to pings, and to a close.
        let flushed = self.context.flush(&mut wire);
        self.came.drain(..whole);
        match read {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                self.within = false;
                Next::Message(message)
            }
            Ok(Message::Close(_)) => Next::End(None),
            Ok(_) => match flushed {
                Ok(()) => Next::Control,
                Err(error) => ended(&error),
            },
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.within = true;
                Next::Control
            }
            Err(error) => ended(&error),
        }
    }
}

/// Says the same.
fn echo(said: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Text(text) => websocket::text(said, text.as_bytes()),
        message => websocket::binary(said, &message.clone().into_data()),
    }
}

fn ended(error: &Error) -> Next {
    Next::End(match error {
        Error::ConnectionClosed | Error::AlreadyClosed => None,
        Error::Utf8(_) => Some(Close::NOT_UTF8),
        Error::Capacity(_) => Some(Close::TOO_LARGE),
        _ => Some(Close::BROKEN),
    })
}

/// What the library takes for a socket: reads give one frame, writes are kept.
struct Wire<'a> {
    frame: &'a [u8],
    said: &'a mut Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.frame.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.frame.read(room)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.said.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
