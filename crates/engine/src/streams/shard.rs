//! A thread's part of all streams: sockets, the groups they form, and the logs they follow.
//!
//! The loop takes what is new, puts it to the groups that want it, and writes to their sockets in one go each: at once
//! when it is idle, much at a time when it is behind.

mod admit;
mod catch_up;
mod following;
mod inbox;
mod rounds;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use mio::{Events, Poll, Token};
use slab::Slab;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::{Store, Tenant};

use super::frames::{Cursor, Place};
use super::group::{Groups, Page, Wish, number};
use super::guest::{Ending, Guest};
use super::open::{At, Gone, Open};
use catch_up::Reads;
use following::Followed;
use inbox::{Inbox, Order, Ring};

/// The waker's token; streams have their numbers.
const WAKER: Token = Token(usize::MAX);
/// Events of sockets taken at once.
const EVENTS: usize = 1024;

/// The clocks and the dice of the shell.
#[derive(Clone, Copy)]
pub struct Env {
    /// The wall clock.
    pub now: fn() -> Timestamp,
    /// The clock that never jumps.
    pub monotonic: fn() -> Instant,
    /// Fills a buffer with unpredictable bytes.
    pub random: fn(&mut [u8]),
}

/// A thread's part of all streams; [`Shard::run`] is the thread.
pub struct Shard {
    store: Arc<dyn Store>,
    env: Env,
    poll: Poll,
    inbox: Arc<Inbox>,
    streams: Slab<Open>,
    groups: Groups,
    tenants: HashMap<Tenant, Followed>,
    /// Tenants with events that were not put to the groups yet.
    news: VecDeque<Tenant>,
    reads: Reads,
    /// Streams that are behind and can go on.
    behind: VecDeque<u32>,
    /// Streams whose peer has gone.
    gone: Vec<u32>,
    round: u32,
    next_round: Instant,
    draining: bool,
}

/// Puts guests into a shard, from any thread.
#[derive(Clone)]
pub(super) struct Handle(Arc<Inbox>);

impl Handle {
    pub(super) fn admit(&self, guest: Guest) {
        self.0.order(Order::Admit(Box::new(guest)));
    }

    pub(super) fn drain(&self) {
        self.0.order(Order::Drain);
    }

    pub(super) fn stop(&self) {
        self.0.order(Order::Stop);
    }
}

impl Shard {
    pub(super) fn new(store: Arc<dyn Store>, env: Env) -> io::Result<(Handle, Self)> {
        let poll = Poll::new()?;
        let inbox = Arc::new(Inbox::new(mio::Waker::new(poll.registry(), WAKER)?));
        let shard = Self {
            store,
            env,
            poll,
            inbox: Arc::clone(&inbox),
            streams: Slab::new(),
            groups: Groups::default(),
            tenants: HashMap::default(),
            news: VecDeque::new(),
            reads: Reads::default(),
            behind: VecDeque::new(),
            gone: Vec::new(),
            round: 0,
            next_round: (env.monotonic)(),
            draining: false,
        };
        Ok((Handle(inbox), shard))
    }

    /// Serves until it is told to stop; an error if the system cannot tell of sockets any more.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let wait = self.wait();
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                if event.token() != WAKER {
                    self.heard(event.token().0, event.is_readable() || event.is_error(), event.is_writable());
                }
            }
            if !self.take_orders() {
                return Ok(());
            }
            // One piece each, so that no tenant and no one who is behind holds the others.
            if let Some(tenant) = self.news.pop_front()
                && self.advance(tenant)
            {
                self.news.push_back(tenant);
            }
            self.catch_up();
            self.rounds();
            self.bury();
        }
    }

    /// How long nothing is to be done; `None`: until something happens.
    fn wait(&self) -> Option<Duration> {
        if !self.news.is_empty() || !self.behind.is_empty() || self.reads.has_room_for_more() {
            return Some(Duration::ZERO);
        }
        let idle = self.streams.is_empty();
        (!idle).then(|| self.next_round.saturating_duration_since((self.env.monotonic)()))
    }

    /// A socket has something to say, or takes more.
    fn heard(&mut self, token: usize, readable: bool, writable: bool) {
        let Some(stream) = self.streams.get_mut(token) else { return };
        let heard = if readable { stream.listen() } else { Ok(()) };
        let resumed = if writable && stream.blocked {
            stream.resume(self.round).map(|all| all && !stream.reading)
        } else {
            Ok(false)
        };
        match heard.and(resumed) {
            Ok(true) if stream.leaving => self.gone.push(number(token)),
            Ok(true) => self.behind.push_back(number(token)),
            Ok(false) => {}
            Err(Gone) => self.gone.push(number(token)),
        }
    }

    /// Does what was asked for; false when it is to stop.
    fn take_orders(&mut self) -> bool {
        for order in self.inbox.orders() {
            match order {
                Order::Admit(guest) => self.admit(*guest),
                Order::Drain => self.drain(),
                Order::Stop => return false,
            }
        }
        for ring in self.inbox.rung() {
            match ring {
                Ring::News(tenant) => self.rung(tenant),
                Ring::Read(number) => self.read(number),
            }
        }
        true
    }

    /// Ends a stream, with its last words: at once between two frames, else when the socket has taken the rest of one.
    fn end(&mut self, token: u32, ending: Ending, spread_ms: u64) {
        let Some(stream) = self.streams.get_mut(token as usize) else { return };
        let Some(group) = self.groups.get(stream.group) else { return };
        if stream.leaving {
            return;
        }
        let mut random = [0; 8];
        (self.env.random)(&mut random);
        let retry_ms = ending.stay_away_ms() + u64::from_be_bytes(random) % spread_ms.max(1);
        let words = super::sse::closing(ending, retry_ms);
        // Without the rest of a frame that it has in part nothing can be said: it ends, and comes back for the frame.
        let rest = match stream.at {
            At::Live(at) => Some(group.frames.rest_of_frame(at).to_vec()),
            At::Behind(cursor) => rest_of_frame(&*self.store, &group.wish, cursor),
        };
        let done = rest.is_none_or(|rest| stream.leave(&rest, words.as_bytes(), self.round).unwrap_or(true));
        if done {
            self.gone.push(token);
        }
    }

    /// Closes what has gone.
    fn bury(&mut self) {
        while let Some(token) = self.gone.pop() {
            let Some(mut stream) = self.streams.try_remove(token as usize) else { continue };
            // What the kernel still has to send it sends after the close.
            let _ = self.poll.registry().deregister(stream.socket());
            if let Some(wish) = self.groups.leave(stream.group, token) {
                self.unfollow(wish.tenant, stream.group);
            }
        }
    }
}

/// What is missing of the frame that a stream has in part; `None` if it would have to be read from disk.
fn rest_of_frame(store: &dyn Store, wish: &Wish, cursor: Cursor) -> Option<Vec<u8>> {
    let Some(offset) = cursor.begun() else { return Some(Vec::new()) };
    let events = store.tail().after(wish.tenant, Offset(offset.0.saturating_sub(1)), 1)?;
    let page = Page::of(cursor.offset, offset, events, wish);
    let Place::At(at) = page.frames.resume(cursor) else { return None };
    Some(page.frames.rest_of_frame(at).to_vec())
}
