//! The way to one client: a socket, and words that wait for it.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;

use mio::net::TcpStream;

use super::frames::Frames;

/// What a client may still say that is not listened to, at a time.
const NOISE_BYTES: usize = 1024;
const NOISE_READS_MAX: usize = 16;

/// The way to one client.
pub(super) struct Line {
    socket: TcpStream,
    /// Several follow it: of a frame that goes in part the rest is kept, so that it is between two frames for the others.
    shared: bool,
    /// Words that come before anything else. Whoever says them bounds them.
    rest: Vec<u8>,
    /// The socket took less than it was given; it will say when it takes more.
    pub(super) blocked: bool,
    /// Its last words are said, or among those that wait.
    pub(super) leaving: bool,
    /// The round in which the socket last took something.
    pub(super) wrote: u32,
}

/// The peer is gone, or not worth waiting for.
pub(super) struct Gone;

impl Line {
    pub(super) fn new(socket: TcpStream, shared: bool, round: u32) -> Self {
        Self { socket, shared, rest: Vec::new(), blocked: false, leaving: false, wrote: round }
    }

    pub(super) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Writes what the socket takes of `bytes`; how much that was. Nothing while it is blocked.
    fn write(&mut self, bytes: &[u8], round: u32) -> Result<usize, Gone> {
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

    /// Writes what follows a position in `frames`; the position behind what was taken. Nothing while it is blocked.
    pub(super) fn send(&mut self, frames: &Frames, at: u64, round: u32) -> Result<u64, Gone> {
        if self.blocked {
            return Ok(at);
        }
        let at = at + self.write(frames.from(at), round)? as u64;
        if !(self.shared && self.blocked) {
            return Ok(at);
        }
        let rest = frames.rest_of_frame(at);
        self.rest.extend_from_slice(rest);
        Ok(at + rest.len() as u64)
    }

    /// Writes words; only between two frames.
    pub(super) fn say(&mut self, text: &[u8], round: u32) -> Result<(), Gone> {
        let written = if self.rest.is_empty() { self.write(text, round)? } else { 0 };
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

    /// Bytes of words that wait.
    pub(super) fn unsaid(&self) -> usize {
        self.rest.len()
    }

    /// Whether no word waits and the socket takes more.
    pub(super) fn is_clear(&self) -> bool {
        self.rest.is_empty() && !self.blocked
    }

    /// Says that nothing more comes; what was written arrives.
    pub(super) fn finish(&self) {
        // A peer that has gone knows.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Reads what the client says; `None` if there is nothing yet. It has gone when it says that it is done.
    pub(super) fn read<'a>(&mut self, room: &'a mut [u8]) -> Result<Option<&'a [u8]>, Gone> {
        loop {
            match self.socket.read(room) {
                Ok(0) => return Err(Gone),
                Ok(count) => return Ok(Some(&room[..count])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Takes what the client says and drops it.
    pub(super) fn ignore(&mut self) -> Result<(), Gone> {
        let mut noise = [0; NOISE_BYTES];
        for _ in 0..NOISE_READS_MAX {
            if self.read(&mut noise)?.is_none() {
                return Ok(());
            }
        }
        Err(Gone)
    }
}
