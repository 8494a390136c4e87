//! Those who are behind go through pages of the log, read and framed once for all who need the same, until they are live.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use slab::Slab;
use tidings_core::offset::Offset;
use tidings_log::query::PAGE_EVENTS_MAX;
use tidings_log::{Framed, Pending, Query, Unavailable};

use super::Shard;
use super::inbox::Ring;
use crate::streams::frames::{Cursor, Place};
use crate::streams::group::{PAGE_BYTES_MAX, Page, Wish, number};
use crate::streams::guest::Ending;
use crate::streams::open::{At, Gone};
use crate::streams::{RETRY_SPREAD_MS, sse};

/// Reads from disk under way; more wait.
const READS_MAX: usize = 4;
/// Pages of everything that are read before anybody asks for them: one for each thread that reads.
const AHEAD: usize = 2;
/// Streams that go on in one turn of the loop. Each takes what its socket holds.
const TURN_STREAMS_MAX: usize = 64;

/// Reads from disk.
#[derive(Default)]
pub(super) struct Reads {
    under_way: Slab<UnderWay>,
    /// Streams that wait until fewer are.
    waiting: VecDeque<u32>,
}

struct UnderWay {
    group: u32,
    /// What that group wants; another one may get its number.
    wish: Arc<Wish>,
    after: Offset,
    page: Pending<Result<Framed, Unavailable>>,
    /// Streams that need it.
    askers: Vec<u32>,
}

/// What became of one step of a stream that is behind.
enum Step {
    /// It can go on at once.
    On,
    /// It is live, or waits for its socket or a read.
    Rests,
    Gone,
}

/// Pages end at multiples of the largest page, so that all who need a part of the log need the same pages, and which
/// comes after one is known before that is read.
fn page_end(after: Offset) -> Offset {
    let most = PAGE_EVENTS_MAX as u64;
    Offset((after.0 / most + 1) * most)
}

impl Reads {
    /// Whether somebody waits who need not.
    pub(super) fn has_room_for_more(&self) -> bool {
        self.under_way.len() < READS_MAX && !self.waiting.is_empty()
    }

    fn of(&mut self, wish: &Arc<Wish>, after: Offset) -> Option<&mut UnderWay> {
        let same = |read: &UnderWay| Arc::ptr_eq(&read.wish, wish) && read.after == after;
        self.under_way.iter_mut().map(|(_, read)| read).find(|read| same(read))
    }
}

impl Shard {
    /// One page for each of those who can go on.
    pub(super) fn catch_up(&mut self) {
        for _ in self.reads.under_way.len()..READS_MAX {
            let Some(token) = self.reads.waiting.pop_front() else { break };
            if let Some(stream) = self.streams.get_mut(token as usize) {
                stream.reading = false;
                self.behind.push_back(token);
            }
        }
        for _ in 0..self.behind.len().min(TURN_STREAMS_MAX) {
            let Some(token) = self.behind.pop_front() else { return };
            match self.step(token) {
                Step::On => self.behind.push_back(token),
                Step::Rests => {}
                Step::Gone => self.gone.push(token),
            }
        }
    }

    fn step(&mut self, token: u32) -> Step {
        let Some(stream) = self.streams.get_mut(token as usize) else { return Step::Rests };
        if stream.blocked || stream.reading || stream.leaving {
            return Step::Rests;
        }
        let Some(group) = self.groups.get(stream.group) else { return Step::Rests };
        match group.place_of(stream) {
            Place::At(_) => self.join(token),
            Place::Changed => Step::Gone,
            Place::Elsewhere => {
                let At::Behind(cursor) = stream.at else { return Step::Rests };
                let number = stream.group;
                match group.page(cursor.offset).or_else(|| self.recent(number, cursor.offset)) {
                    Some(page) => {
                        self.read_ahead(number, page.reached);
                        self.turn_page(token, cursor, &page)
                    }
                    None => self.ask(token, cursor.offset),
                }
            }
        }
    }

    /// Goes on in the frames of the group; who has all of them and asked for what has been is told so.
    fn join(&mut self, token: u32) -> Step {
        let Some(stream) = self.streams.get_mut(token as usize) else { return Step::Rests };
        let Some(group) = self.groups.get(stream.group) else { return Step::Rests };
        let Place::At(at) = group.place_of(stream) else { return Step::On };
        let at = match stream.write(group.frames.from(at), self.round) {
            Ok(written) => at + written as u64,
            Err(Gone) => return Step::Gone,
        };
        stream.at = At::Live(at);
        if at < group.frames.end() {
            group.is_late(token);
            return Step::Rests;
        }
        let tells = std::mem::take(&mut stream.replays);
        let tenant = group.wish.tenant;
        if tells {
            let words = sse::complete(self.seen(tenant));
            let said = self.streams.get_mut(token as usize).map(|stream| stream.say(words.as_bytes(), self.round));
            if let Some(Err(Gone)) = said {
                return Step::Gone;
            }
        }
        Step::Rests
    }

    /// Writes what a page has for a stream.
    fn turn_page(&mut self, token: u32, cursor: Cursor, page: &Page) -> Step {
        let Some(stream) = self.streams.get_mut(token as usize) else { return Step::Rests };
        let at = match page.frames.resume(cursor) {
            Place::At(at) => at,
            Place::Changed => return Step::Gone,
            Place::Elsewhere => {
                // The rest of a frame that it has in part comes later.
                stream.at = At::Behind(Cursor { offset: page.reached, ..cursor });
                return Step::On;
            }
        };
        match stream.write(page.frames.from(at), self.round) {
            Ok(written) if at + written as u64 == page.frames.end() => {
                stream.at = At::Behind(Cursor::after(page.reached));
                Step::On
            }
            Ok(written) => {
                stream.at = At::Behind(page.frames.cursor(at + written as u64));
                Step::Rests
            }
            Err(Gone) => Step::Gone,
        }
    }

    /// The page after a cursor, if the shared ring has it.
    fn recent(&mut self, number: u32, after: Offset) -> Option<Arc<Page>> {
        let wish = Arc::clone(&self.groups.get(number)?.wish);
        let mut events = self.store.tail().after(wish.tenant, after, PAGE_EVENTS_MAX)?;
        let reached = self.seen(wish.tenant).min(page_end(after));
        events.retain(|event| event.offset <= reached);
        let page = Arc::new(Page::of(after, reached, events, &wish));
        self.groups.keep(number, &page, self.round);
        Some(page)
    }

    /// Has the page after a cursor read from disk.
    fn ask(&mut self, token: u32, after: Offset) -> Step {
        let Some(stream) = self.streams.get_mut(token as usize) else { return Step::Rests };
        // Before the read begins: one that is answered at once finds who waits.
        stream.reading = true;
        let number = stream.group;
        let Some(wish) = self.groups.get(number).map(|group| Arc::clone(&group.wish)) else { return Step::Rests };
        if let Some(read) = self.reads.of(&wish, after) {
            read.askers.push(token);
        } else if self.reads.under_way.len() >= READS_MAX {
            self.reads.waiting.push_back(token);
        } else {
            self.start_read(number, after, vec![token]);
        }
        Step::Rests
    }

    fn start_read(&mut self, group: u32, after: Offset, askers: Vec<u32>) {
        let Some(wish) = self.groups.get(group).map(|group| Arc::clone(&group.wish)) else { return };
        let (seen, is_whole) = (self.seen(wish.tenant), wish.is_whole());
        let through = Some(if is_whole { seen.min(page_end(after)) } else { seen });
        let query = Query { filter: wish.filter.clone(), through, ..Query::after(wish.tenant, after, PAGE_EVENTS_MAX) };
        let page = self.store.frame(query, PAGE_BYTES_MAX, wish.frame());
        let place = number(self.reads.under_way.insert(UnderWay { group, wish, after, page, askers }));
        self.read(place);
    }

    /// A read may have its answer: then those who asked go on.
    pub(super) fn read(&mut self, place: u32) {
        let Some(read) = self.reads.under_way.get_mut(place as usize) else { return };
        let bell = self.inbox.bell(Ring::Read(place));
        let Poll::Ready(answer) = read.page.as_mut().poll(&mut Context::from_waker(&bell)) else { return };
        let UnderWay { group, wish, after, mut askers, .. } = self.reads.under_way.remove(place as usize);
        askers.retain(|token| {
            self.streams.get_mut(*token as usize).is_some_and(|stream| std::mem::take(&mut stream.reading))
        });
        match answer {
            Ok(framed) => {
                if self.groups.get(group).is_some_and(|group| Arc::ptr_eq(&group.wish, &wish)) {
                    self.groups.keep(group, &Arc::new(Page::new(after, framed)), self.round);
                }
                self.behind.extend(askers);
            }
            Err(error) => {
                tracing::warn!(%error, "streams end");
                for token in askers {
                    self.end(token, Ending::Unavailable, RETRY_SPREAD_MS);
                }
            }
        }
    }

    /// Reads the pages after one that is being written, before anybody asks for them.
    fn read_ahead(&mut self, number: u32, after: Offset) {
        let Some(wish) = self.groups.get(number).map(|group| Arc::clone(&group.wish)) else { return };
        let mut after = after;
        // Where the page after the next begins is known only where every event is wanted.
        for _ in 0..if wish.is_whole() { AHEAD } else { 1 } {
            let on_disk = after < self.seen(wish.tenant) && self.store.tail().after(wish.tenant, after, 0).is_none();
            // One place is left for those who wait.
            if !on_disk || self.reads.under_way.len() + 1 >= READS_MAX {
                return;
            }
            let kept = self.groups.get(number).is_some_and(|group| group.page(after).is_some());
            if !kept && self.reads.of(&wish, after).is_none() {
                self.start_read(number, after, Vec::new());
            }
            after = page_end(after);
        }
    }
}
