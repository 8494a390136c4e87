//! Guests come in, and all are sent away when the server stops.

use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::Duration;

use mio::{Interest, Token};
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::Shard;
use super::rounds::WARNING;
use crate::streams::frames::Cursor;
use crate::streams::group::{Wish, number};
use crate::streams::guest::{Ending, Guest, Pass};
use crate::streams::open::{Gone, Open};
use crate::streams::{RETRY_SPREAD_MS, sse};

/// What the kernel may hold for a client that does not read, in bytes (it doubles this for its own use).
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// When all are sent away: streams that may come back in a millisecond.
const RETURNING_EACH_MS: u64 = 2;

impl Shard {
    pub(super) fn admit(&mut self, guest: Guest) {
        if self.draining {
            return self.turn_away(guest);
        }
        let seen = self.follow(guest.tenant);
        let wish = Wish { tenant: guest.tenant, named: guest.style.named, filter: guest.filter };
        let (group, new) = self.groups.of(wish, seen);
        if new {
            self.want(guest.tenant, group);
        }
        // Nothing lies between what was seen and a cursor beyond: only an era makes such a one.
        let cursor = Cursor::after(guest.cursor.min(seen));
        let mut stream = Open::new(mio_socket(guest.socket), group, cursor, guest.pass);
        stream.replays = guest.replays;
        stream.ping = guest.style.ping;
        stream.wrote = self.round;
        let mut greeting = guest.greeting;
        let now = (self.env.now)();
        if let Pass::Good(Some(until)) = stream.pass(now)
            && until <= now.plus(WARNING)
        {
            greeting.extend_from_slice(sse::expiring(until).as_bytes());
            stream.warned = true;
        }
        let token = self.streams.insert(stream);
        self.groups.join(group, number(token));
        let Some(stream) = self.streams.get_mut(token) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(stream.socket(), Token(token), interest);
        if registered.is_err() || matches!(stream.say(&greeting, self.round), Err(Gone)) {
            self.gone.push(number(token));
        } else {
            self.behind.push_back(number(token));
        }
    }

    /// The server stops: all end, and come back at times of their own.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        let spread_ms = RETRY_SPREAD_MS.max(self.streams.len() as u64 * RETURNING_EACH_MS);
        let tokens: Vec<u32> = self.streams.iter().map(|(token, _)| number(token)).collect();
        for token in tokens {
            self.end(token, Ending::Drain, spread_ms);
        }
    }

    fn turn_away(&mut self, guest: Guest) {
        use std::io::Write as _;
        let mut random = [0; 8];
        (self.env.random)(&mut random);
        let retry_ms = Ending::Drain.stay_away_ms() + u64::from_be_bytes(random) % RETRY_SPREAD_MS;
        let mut words = guest.greeting;
        words.extend_from_slice(sse::closing(Ending::Drain, retry_ms).as_bytes());
        // A fresh socket takes so little whole; if not, the client comes back all the same.
        let mut socket = guest.socket;
        let _ = socket.set_write_timeout(Some(Duration::from_millis(1)));
        let _ = socket.write(&words);
    }
}

fn mio_socket(socket: TcpStream) -> mio::net::TcpStream {
    // On a pair of sockets it does not matter.
    let _ = set_socket_send_buffer_size(socket.as_fd(), SEND_BUFFER_BYTES);
    mio::net::TcpStream::from_std(socket)
}
