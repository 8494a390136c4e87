//! A thread's part of all streams: sockets, the groups they form, and the logs they follow.
//!
//! The loop takes what is new, puts it to the groups that want it, and writes to their sockets in one go each: at once
//! when it is idle, much at a time when it is behind.

mod admit;
mod catch_up;
mod following;
pub(super) mod inbox;
mod rounds;
mod talking;

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
use super::line::Gone;
use super::open::{At, Kind, Member, Open};
use super::{sse, websocket};
use catch_up::Reads;
use following::Followed;
use inbox::{Inbox, Order, Ring};

/// The waker's token; streams have their numbers.
const WAKER: Token = Token(usize::MAX);
/// Events of sockets taken at once.
const EVENTS: usize = 1024;
/// What is read from a WebSocket at a time.
const ROOM_BYTES: usize = 16 * 1024;

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
    /// Readers that are behind and can go on.
    behind: VecDeque<Member>,
    /// Streams whose peer has gone.
    gone: Vec<u32>,
    /// WebSockets that have more to say.
    talkers: VecDeque<u32>,
    /// Of the newest WebSocket.
    serial: u64,
    /// Where is read to.
    room: Vec<u8>,
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
            talkers: VecDeque::new(),
            serial: 0,
            room: vec![0; ROOM_BYTES],
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
            self.hear_more();
            self.rounds();
            self.bury();
        }
    }

    /// How long nothing is to be done; `None`: until something happens.
    fn wait(&self) -> Option<Duration> {
        if !self.news.is_empty()
            || !self.behind.is_empty()
            || !self.talkers.is_empty()
            || self.reads.has_room_for_more()
        {
            return Some(Duration::ZERO);
        }
        let idle = self.streams.is_empty();
        (!idle).then(|| self.next_round.saturating_duration_since((self.env.monotonic)()))
    }

    /// A socket has something to say, or takes more.
    fn heard(&mut self, token: usize, readable: bool, writable: bool) {
        let Some(open) = self.streams.get_mut(token) else { return };
        if readable {
            match &mut open.kind {
                Kind::Stream { .. } => {
                    if let Err(Gone) = open.line.ignore() {
                        return self.gone.push(number(token));
                    }
                }
                Kind::Talk(_) => self.hear(number(token)),
            }
        }
        let Some(open) = self.streams.get_mut(token) else { return };
        if writable && open.line.blocked {
            match open.line.resume(self.round) {
                Ok(true) => self.resumed(number(token)),
                Ok(false) => {}
                Err(Gone) => self.gone.push(number(token)),
            }
        }
    }

    /// A socket has taken all words, and takes more.
    fn resumed(&mut self, token: u32) {
        let Some(open) = self.streams.get_mut(token as usize) else { return };
        if open.line.leaving {
            return self.left(token);
        }
        let members = open.members(token);
        self.behind.extend(members.into_iter().map(|(member, _)| member));
        self.all_said(token);
    }

    /// The last words are said.
    fn left(&mut self, token: u32) {
        match self.streams.get(token as usize).map(|open| &open.kind) {
            // Its client closes too, or has a moment for it: what it still says would break off what it was told.
            Some(Kind::Talk(_)) => {
                self.streams[token as usize].line.finish();
                self.talkers.push_back(token);
            }
            _ => self.gone.push(token),
        }
    }

    /// Does what was asked for; false when it is to stop.
    fn take_orders(&mut self) -> bool {
        for order in self.inbox.orders() {
            match order {
                Order::Admit(guest) => self.admit(*guest),
                Order::Word { stream, serial, word } => self.tell(stream, serial, word),
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
        let retry_ms = ending.stay_away_ms() + self.chance() % spread_ms.max(1);
        let Some(open) = self.streams.get_mut(token as usize).filter(|open| !open.line.leaving) else { return };
        let Kind::Stream { reader, .. } = &open.kind else {
            return self.leave(token, &[], &websocket::closing(ending, retry_ms));
        };
        let Some(group) = self.groups.get(reader.group) else { return };
        // Without the rest of a frame that it has in part nothing can be said: it ends, and comes back for the frame.
        let rest = match reader.at {
            At::Live(at) => Some(group.frames.rest_of_frame(at).to_vec()),
            At::Behind(cursor) => rest_of_frame(&*self.store, &group.wish, cursor),
        };
        match rest {
            Some(rest) => self.leave(token, &rest, sse::closing(ending, retry_ms).as_bytes()),
            None => self.gone.push(token),
        }
    }

    /// Ends a line with these words.
    fn leave(&mut self, token: u32, rest: &[u8], words: &[u8]) {
        let Some(open) = self.streams.get_mut(token as usize).filter(|open| !open.line.leaving) else { return };
        match open.line.leave(rest, words, self.round) {
            Ok(true) => self.left(token),
            Ok(false) => {}
            Err(Gone) => self.gone.push(token),
        }
    }

    fn chance(&self) -> u64 {
        let mut random = [0; 8];
        (self.env.random)(&mut random);
        u64::from_be_bytes(random)
    }

    /// Closes what has gone.
    fn bury(&mut self) {
        while let Some(token) = self.gone.pop() {
            let Some(mut open) = self.streams.try_remove(token as usize) else { continue };
            // What the kernel still has to send it sends after the close.
            let _ = self.poll.registry().deregister(open.line.socket());
            for (member, group) in open.members(token) {
                self.part(member, group);
            }
        }
    }
}

impl Shard {
    /// A reader follows a group no more.
    fn part(&mut self, member: Member, group: u32) {
        if let Some(wish) = self.groups.leave(group, member) {
            self.unfollow(wish.tenant, group);
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
