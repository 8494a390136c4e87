//! Guests come in, and all are sent away when the server stops.

use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use mio::{Interest, Token};
use rustix::net::sockopt::set_socket_send_buffer_size;
use tidings_core::offset::Offset;

use super::Shard;
use super::rounds::WARNING;
use crate::streams::framing::Framing;
use crate::streams::group::{Wish, number};
use crate::streams::guest::{Ending, Guest, Pass, Wants};
use crate::streams::line::Line;
use crate::streams::open::{Kind, Open, Reader};
use crate::streams::talk::Talk;
use crate::streams::voice::Voice;
use crate::streams::{RETRY_SPREAD_MS, sse, websocket};

/// What the kernel may hold for a client that does not read, in bytes (it doubles this for its own use).
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// When all are sent away: streams that may come back in a millisecond.
const RETURNING_EACH_MS: u64 = 2;

impl Shard {
    pub(super) fn admit(&mut self, guest: Guest) {
        if self.draining {
            return self.turn_away(guest);
        }
        let Guest { socket, mut greeting, tenant, wants, pass } = guest;
        let token = number(self.streams.vacant_key());
        let kind = match wants {
            Wants::Stream { filter, cursor, style, replays } => {
                let framing = Framing::Events { named: style.named };
                let reader = self.reader(Wish { tenant, framing, filter }, cursor, replays);
                Kind::Stream { reader, ping: style.ping }
            }
            Wants::Talk(hear) => {
                self.serial += 1;
                let voice = Voice::new(Arc::clone(&self.inbox), token, self.serial);
                Kind::Talk(Box::new(Talk::new(hear, voice, tenant, self.round)))
            }
        };
        let shared = matches!(kind, Kind::Talk(_));
        let mut open = Open::new(Line::new(mio_socket(socket), shared, self.round), kind, pass);
        let now = (self.env.now)();
        if let Pass::Good(Some(until)) = open.pass(now)
            && until <= now.plus(WARNING)
        {
            greeting.extend_from_slice(&open.expiring(until));
            open.warned = true;
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(open.line.socket(), Token(token as usize), interest);
        let greeted = open.line.say(&greeting, self.round);
        let members = open.members(token);
        self.streams.insert(open);
        for (member, group) in members {
            self.groups.join(group, member);
            self.behind.push_back(member);
        }
        if registered.is_err() || greeted.is_err() {
            self.gone.push(token);
        }
    }

    /// A reader of what is wished, after `cursor`; it is to join the group.
    pub(super) fn reader(&mut self, wish: Wish, cursor: Offset, replays: bool) -> Reader {
        let tenant = wish.tenant;
        let seen = self.follow(tenant);
        let (group, new) = self.groups.of(wish, seen);
        if new {
            self.want(tenant, group);
        }
        // Nothing lies between what was seen and a cursor beyond: only an era makes such a one.
        Reader::new(group, cursor.min(seen), replays)
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
        let retry_ms = Ending::Drain.stay_away_ms() + self.chance() % RETRY_SPREAD_MS;
        let mut words = guest.greeting;
        match guest.wants {
            Wants::Stream { .. } => words.extend_from_slice(sse::closing(Ending::Drain, retry_ms).as_bytes()),
            Wants::Talk(_) => words.extend_from_slice(&websocket::closing(Ending::Drain, retry_ms)),
        }
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
