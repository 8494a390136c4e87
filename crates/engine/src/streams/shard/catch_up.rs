//! Those who are behind go through pages of the log, read and framed once for all who need the same, until they are live.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use slab::Slab;
use tidings_core::offset::Offset;
use tidings_log::{Page as Read, Pending, Query, Unavailable};

use super::Shard;
use super::inbox::Ring;
use crate::streams::frames::{Cursor, Place};
use crate::streams::group::{Page, number};
use crate::streams::guest::Ending;
use crate::streams::open::{At, Gone};
use crate::streams::{RETRY_SPREAD_MS, sse};

/// Events of a page.
const PAGE_EVENTS_MAX: usize = 256;
/// Reads from disk under way; more wait.
const READS_MAX: usize = 4;
/// Streams that go on in one turn of the loop.
const TURN_STREAMS_MAX: usize = 256;

/// Reads from disk.
#[derive(Default)]
pub(super) struct Reads {
    under_way: Slab<UnderWay>,
    /// Streams that wait until fewer are.
    waiting: VecDeque<u32>,
}

struct UnderWay {
    group: u32,
    after: Offset,
    page: Pending<Result<Read, Unavailable>>,
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

impl Shard {
    /// One page for each of those who can go on.
    pub(super) fn catch_up(&mut self) {
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
                match group.page(cursor.offset) {
                    Some(page) => {
                        let group = stream.group;
                        self.read_ahead(group, page.reached);
                        self.turn_page(token, cursor, &page)
                    }
                    None => self.fetch(token, cursor.offset),
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

    /// Gets the page after `cursor`: from the shared ring at once, or from disk.
    fn fetch(&mut self, token: u32, cursor: Offset) -> Step {
        let Some(stream) = self.streams.get_mut(token as usize) else { return Step::Rests };
        // Before the read begins: one that is answered at once finds who waits.
        stream.reading = true;
        let number = stream.group;
        let Some(wish) = self.groups.get(number).map(|group| Arc::clone(&group.wish)) else { return Step::Rests };
        let seen = self.seen(wish.tenant);
        if let Some(mut events) = self.store.tail().after(wish.tenant, cursor, PAGE_EVENTS_MAX) {
            events.retain(|event| event.offset <= seen);
            let reached = events.last().map_or(seen, |event| event.offset);
            events.retain(|event| wish.filter.matches(&event.subject));
            let page = Page::new(cursor, reached, &events, wish.named);
            self.groups.keep(number, &Arc::new(page), self.round);
            if let Some(stream) = self.streams.get_mut(token as usize) {
                stream.reading = false;
            }
            return Step::On;
        }
        if let Some((_, read)) =
            self.reads.under_way.iter_mut().find(|(_, read)| read.group == number && read.after == cursor)
        {
            read.askers.push(token);
        } else if self.reads.under_way.len() >= READS_MAX {
            self.reads.waiting.push_back(token);
        } else {
            self.start_read(number, cursor, vec![token]);
        }
        Step::Rests
    }

    fn start_read(&mut self, group: u32, after: Offset, askers: Vec<u32>) {
        let Some(wish) = self.groups.get(group).map(|group| Arc::clone(&group.wish)) else { return };
        let query = Query {
            filter: wish.filter.clone(),
            through: Some(self.seen(wish.tenant)),
            ..Query::after(wish.tenant, after, PAGE_EVENTS_MAX)
        };
        let read = UnderWay { group, after, page: self.store.read(query), askers };
        let place = number(self.reads.under_way.insert(read));
        self.read(place);
    }

    /// A read may have its answer: then those who asked go on.
    pub(super) fn read(&mut self, place: u32) {
        let Some(read) = self.reads.under_way.get_mut(place as usize) else { return };
        let bell = self.inbox.bell(Ring::Read(place));
        let Poll::Ready(answer) = read.page.as_mut().poll(&mut Context::from_waker(&bell)) else { return };
        let UnderWay { group, after, mut askers, .. } = self.reads.under_way.remove(place as usize);
        askers.extend(self.reads.waiting.drain(..));
        for token in &askers {
            if let Some(stream) = self.streams.get_mut(*token as usize) {
                stream.reading = false;
            }
        }
        match answer {
            Ok(found) => {
                self.behind.extend(askers);
                self.found(group, after, &found);
            }
            Err(error) => {
                tracing::warn!(%error, "streams end");
                for token in askers {
                    self.end(token, Ending::Unavailable, RETRY_SPREAD_MS);
                }
            }
        }
    }

    /// Keeps what was read for all who need it.
    fn found(&mut self, number: u32, after: Offset, found: &Read) {
        let Some(group) = self.groups.get(number) else { return };
        let page = Page::new(after, found.reached, &found.events, group.wish.named);
        self.groups.keep(number, &Arc::new(page), self.round);
    }

    /// Reads the page after one that is being written, before anybody asks for it.
    fn read_ahead(&mut self, number: u32, after: Offset) {
        let Some(group) = self.groups.get(number) else { return };
        let known = group.page(after).is_some()
            || self.reads.under_way.iter().any(|(_, read)| read.group == number && read.after == after);
        let tenant = group.wish.tenant;
        let on_disk = || after < self.seen(tenant) && self.store.tail().after(tenant, after, 0).is_none();
        if !known && self.reads.under_way.len() < READS_MAX && on_disk() {
            self.start_read(number, after, Vec::new());
        }
    }
}
