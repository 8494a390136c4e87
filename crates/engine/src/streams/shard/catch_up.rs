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
use crate::streams::RETRY_SPREAD_MS;
use crate::streams::frames::{Cursor, Place};
use crate::streams::group::{PAGE_BYTES_MAX, Page, Wish, number};
use crate::streams::guest::Ending;
use crate::streams::line::Gone;
use crate::streams::open::{At, Member, find};

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
    /// Readers that wait until fewer are.
    waiting: VecDeque<Member>,
}

struct UnderWay {
    group: u32,
    /// What that group wants; another one may get its number.
    wish: Arc<Wish>,
    after: Offset,
    page: Pending<Result<Framed, Unavailable>>,
    /// Readers that need it.
    askers: Vec<Member>,
}

/// What became of one step of a reader that is behind.
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
            let Some(member) = self.reads.waiting.pop_front() else { break };
            if let Some((_, reader)) = find(&mut self.streams, member) {
                reader.reading = false;
                self.behind.push_back(member);
            }
        }
        for _ in 0..self.behind.len().min(TURN_STREAMS_MAX) {
            let Some(member) = self.behind.pop_front() else { return };
            match self.step(member) {
                Step::On => self.behind.push_back(member),
                Step::Rests => {}
                Step::Gone => self.gone.push(member.stream),
            }
        }
    }

    fn step(&mut self, member: Member) -> Step {
        let Some((line, reader)) = find(&mut self.streams, member) else { return Step::Rests };
        if line.blocked || reader.reading || line.leaving {
            return Step::Rests;
        }
        let Some(group) = self.groups.get(reader.group) else { return Step::Rests };
        match group.place_of(reader) {
            Place::At(at) => self.join(member, at),
            Place::Changed => Step::Gone,
            Place::Elsewhere => {
                let At::Behind(cursor) = reader.at else { return Step::Rests };
                let number = reader.group;
                match group.page(cursor.offset).or_else(|| self.recent(number, cursor.offset)) {
                    Some(page) => {
                        self.read_ahead(number, page.reached);
                        self.turn_page(member, cursor, &page)
                    }
                    None => self.ask(member, cursor.offset),
                }
            }
        }
    }

    /// Goes on in the frames of the group; who has all of them and asked for what has been is told so.
    fn join(&mut self, member: Member, at: u64) -> Step {
        let Some((line, reader)) = find(&mut self.streams, member) else { return Step::Rests };
        let Some(group) = self.groups.get(reader.group) else { return Step::Rests };
        let Ok(at) = line.send(&group.frames, at, self.round) else { return Step::Gone };
        reader.at = At::Live(at);
        if at < group.frames.end() {
            group.is_late(member, reader);
            return Step::Rests;
        }
        if std::mem::take(&mut reader.replays) {
            let wish = Arc::clone(&group.wish);
            let words = wish.framing.complete(self.seen(wish.tenant));
            let said = find(&mut self.streams, member).map(|(line, _)| line.say(&words, self.round));
            if let Some(Err(Gone)) = said {
                return Step::Gone;
            }
        }
        Step::Rests
    }

    /// Writes what a page has for a reader, after what the reader misses of it.
    fn turn_page(&mut self, member: Member, mut cursor: Cursor, page: &Page) -> Step {
        let Some((line, reader)) = find(&mut self.streams, member) else { return Step::Rests };
        if let Some(first) = page.gap(cursor)
            && let Some(group) = self.groups.get(reader.group)
        {
            if line.say(&group.wish.framing.gap(first), self.round).is_err() {
                return Step::Gone;
            }
            cursor = Cursor::after(Offset(first.0 - 1));
        }
        let at = match page.frames.resume(cursor) {
            Place::At(at) => at,
            Place::Changed => return Step::Gone,
            Place::Elsewhere => {
                // The rest of a frame that it has in part comes later.
                reader.at = At::Behind(Cursor { offset: page.reached, ..cursor });
                return Step::On;
            }
        };
        match line.send(&page.frames, at, self.round) {
            Ok(at) if at == page.frames.end() => {
                reader.at = At::Behind(Cursor::after(page.reached));
                Step::On
            }
            Ok(at) => {
                reader.at = At::Behind(page.frames.cursor(at));
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
    fn ask(&mut self, member: Member, after: Offset) -> Step {
        let Some((_, reader)) = find(&mut self.streams, member) else { return Step::Rests };
        // Before the read begins: one that is answered at once finds who waits.
        reader.reading = true;
        let number = reader.group;
        let Some(wish) = self.groups.get(number).map(|group| Arc::clone(&group.wish)) else { return Step::Rests };
        if let Some(read) = self.reads.of(&wish, after) {
            read.askers.push(member);
        } else if self.reads.under_way.len() >= READS_MAX {
            self.reads.waiting.push_back(member);
        } else {
            self.start_read(number, after, vec![member]);
        }
        Step::Rests
    }

    fn start_read(&mut self, group: u32, after: Offset, askers: Vec<Member>) {
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
        askers.retain(|member| {
            find(&mut self.streams, *member).is_some_and(|(_, reader)| std::mem::take(&mut reader.reading))
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
                for member in askers {
                    self.end(member.stream, Ending::Unavailable, RETRY_SPREAD_MS);
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
