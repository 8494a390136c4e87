//! One open stream: a socket, and where it stands. It buffers no events: its place waits while the client does not read.

use std::io::{self, Read as _, Write as _};

use mio::net::TcpStream;
use tidings_core::time::Timestamp;

use super::frames::Cursor;
use super::guest::Pass;

/// Words of the stream itself that may wait for the socket.
const REST_BYTES_MAX: usize = 8 * 1024;
/// What a client may still say after its request, at a time: it is not listened to.
const NOISE_BYTES: usize = 1024;
const NOISE_READS_MAX: usize = 16;

/// One open stream.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Open {
    socket: TcpStream,
    /// Which frames it follows.
    pub(super) group: u32,
    pub(super) at: At,
    /// Words that come before anything else.
    rest: Vec<u8>,
    /// The socket took less than it was given; it will say when it takes more.
    pub(super) blocked: bool,
    /// It waits for a page.
    pub(super) reading: bool,
    /// It is to be told when it has what it asked to have replayed.
    pub(super) replays: bool,
    pub(super) ping: bool,
    /// Its last words are among those that wait; then it closes.
    pub(super) leaving: bool,
    /// It was told when it expires.
    pub(super) warned: bool,
    /// The round in which the socket last took something.
    pub(super) wrote: u32,
    pass: Box<dyn Fn(Timestamp) -> Pass + Send>,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// At a position in the frames of its group.
    Live(u64),
    /// Behind them.
    Behind(Cursor),
}

/// The peer is gone, or not worth waiting for.
pub(super) struct Gone;

impl Open {
    pub(super) fn new(
        socket: TcpStream,
        group: u32,
        cursor: Cursor,
        pass: Box<dyn Fn(Timestamp) -> Pass + Send>,
    ) -> Self {
        Self {
            socket,
            group,
            at: At::Behind(cursor),
            rest: Vec::new(),
            blocked: false,
            reading: false,
            replays: false,
            ping: false,
            leaving: false,
            warned: false,
            wrote: 0,
            pass,
        }
    }

    pub(super) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(super) fn pass(&self, now: Timestamp) -> Pass {
        (self.pass)(now)
    }

    /// Writes what the socket takes of `bytes`; how much that was. Nothing while it is blocked.
    pub(super) fn write(&mut self, bytes: &[u8], round: u32) -> Result<usize, Gone> {
        let mut written = 0;
        while !self.blocked && written < bytes.len() {
            match self.socket.write(&bytes[written..]) {
                Ok(0) => return Err(Gone),
                Ok(count) => {
                    written += count;
                    self.wrote = round;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(written)
    }

    /// Writes words of the stream itself; only between two frames.
    pub(super) fn say(&mut self, text: &[u8], round: u32) -> Result<(), Gone> {
        if !self.rest.is_empty() {
            if self.rest.len() + text.len() > REST_BYTES_MAX {
                return Err(Gone);
            }
            self.rest.extend_from_slice(text);
            return Ok(());
        }
        let written = self.write(text, round)?;
        self.rest.extend_from_slice(&text[written..]);
        Ok(())
    }

    /// Ends with `words`, after the rest of the `frame` that it has in part; whether the socket took all of it at once.
    pub(super) fn leave(&mut self, frame: &[u8], words: &[u8], round: u32) -> Result<bool, Gone> {
        self.leaving = true;
        let last = [frame, words].concat();
        if self.blocked {
            self.rest.extend_from_slice(&last);
        } else {
            self.say(&last, round)?;
        }
        Ok(self.rest.is_empty())
    }

    /// The socket takes more: writes what waits. Whether all of it went.
    pub(super) fn resume(&mut self, round: u32) -> Result<bool, Gone> {
        self.blocked = false;
        if self.rest.is_empty() {
            return Ok(true);
        }
        let rest = std::mem::take(&mut self.rest);
        let written = self.write(&rest, round)?;
        if written < rest.len() {
            self.rest = rest;
            self.rest.drain(..written);
        }
        Ok(self.rest.is_empty())
    }

    /// Takes what the client says and drops it; it has gone when it says that it is done.
    pub(super) fn listen(&mut self) -> Result<(), Gone> {
        let mut noise = [0; NOISE_BYTES];
        for _ in 0..NOISE_READS_MAX {
            match self.socket.read(&mut noise) {
                Ok(0) => return Err(Gone),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        Err(Gone)
    }

    /// Whether it is between two frames, so that words can be said.
    pub(super) fn between_frames(&self, live_end: u64) -> bool {
        self.rest.is_empty()
            && !self.blocked
            && match self.at {
                At::Live(at) => at == live_end,
                At::Behind(cursor) => cursor.part.is_none(),
            }
    }
}
