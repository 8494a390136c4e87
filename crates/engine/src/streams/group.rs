//! Streams that want the same: they share the frames, live ones and those of pages read from the log.

use std::sync::Arc;

use foldhash::HashMap;
use slab::Slab;
use tidings_core::filter::Filter;
use tidings_core::offset::Offset;
use tidings_log::{Event, Frame, Framed, Tenant};

use super::frames::{Cursor, Frames, Place};
use super::framing::Framing;
use super::line::Gone;
use super::open::{At, Member, Open, Reader, find};

/// Frames kept for those whose socket is blocked; who needs older ones reads them from the log.
const FRAMES_BYTES_MAX: usize = 256 * 1024;
/// A page of framed events takes no more once it has so many bytes.
pub(super) const PAGE_BYTES_MAX: usize = 512 * 1024;
/// Sockets written to before the thread gives way: to clients and proxies on this machine, which have something to read by
/// then, and to the threads that take what is new. More often costs a turn of whatever else keeps the machine busy each time.
const GIVE_WAY_EVERY: usize = 128;
/// Pages kept for others that need the same, in all groups of a shard.
const PAGES_BYTES_MAX: usize = 4 << 20;

/// What all streams of a group want.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    pub(super) tenant: Tenant,
    pub(super) framing: Framing,
    pub(super) filter: Filter,
}

impl Wish {
    /// Whether it is all events but `tidings.*`.
    pub(super) fn is_whole(&self) -> bool {
        self.filter == Filter::default()
    }

    /// How an event is written to all of them.
    pub(super) fn frame(&self) -> Frame {
        let framing = self.framing.clone();
        Box::new(move |out, record| framing.write(out, record))
    }
}

/// Streams that want the same.
pub(super) struct Group {
    pub(super) wish: Arc<Wish>,
    pub(super) frames: Frames,
    members: Vec<Member>,
    /// Live members that do not have all frames, and some that had not.
    late: Vec<Member>,
    pages: Vec<Arc<Page>>,
    /// Frames came that were not written yet.
    pub(super) fresh: bool,
}

/// A part of the log, framed once for all who catch up through it.
pub(super) struct Page {
    pub(super) frames: Frames,
    after: Offset,
    pub(super) reached: Offset,
    /// Where the log began when it was read.
    first: Offset,
}

/// All groups of a shard.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) slab: Slab<Group>,
    by_wish: HashMap<Arc<Wish>, u32>,
    /// Kept pages, oldest first, with the group and the round in which they came.
    kept: std::collections::VecDeque<(u32, u32, Arc<Page>)>,
    kept_bytes: usize,
}

impl Page {
    /// All that is wanted after `after` through where `framed` reaches.
    pub(super) fn new(after: Offset, framed: Framed) -> Self {
        let first = framed.first;
        let gone = Offset(first.0.saturating_sub(1));
        let reached = framed.reached.max(gone);
        Self { after, reached, first, frames: Frames::of_page(framed, after.max(gone)) }
    }

    /// Whether retention was faster than a reader between two frames: where that goes on then.
    pub(super) fn gap(&self, cursor: Cursor) -> Option<Offset> {
        Some(self.first).filter(|first| cursor.begun().is_none() && cursor.offset.next() < *first)
    }

    /// A page of what is wanted of `events`, which are all after `after` through `reached`.
    pub(super) fn of(after: Offset, reached: Offset, mut events: Vec<Arc<Event>>, wish: &Wish) -> Self {
        events.retain(|event| wish.filter.matches(&event.subject));
        Self::new(after, Framed::of(&events, reached, PAGE_BYTES_MAX, &wish.frame()))
    }

    /// Bytes of memory that it takes, about.
    fn weight(&self) -> usize {
        self.frames.len() + size_of::<Self>()
    }

    fn has_next_of(&self, cursor: Offset) -> bool {
        self.after <= cursor && cursor < self.reached
    }
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether it is the member that the group is tidied with.
    pub(super) fn is_first(&self, member: Member) -> bool {
        self.members.first() == Some(&member)
    }

    /// The page that holds what comes after `cursor`, if one is kept.
    pub(super) fn page(&self, cursor: Offset) -> Option<Arc<Page>> {
        self.pages.iter().rev().find(|page| page.has_next_of(cursor)).cloned()
    }

    /// Notes that a live member does not have all frames.
    pub(super) fn is_late(&mut self, member: Member, reader: &mut Reader) {
        if !reader.late {
            reader.late = true;
            self.late.push(member);
        }
    }

    /// Writes new frames to all live members that take them, in one go each.
    pub(super) fn flush(&mut self, streams: &mut Slab<Open>, round: u32, gone: &mut Vec<u32>) {
        self.fresh = false;
        let end = self.frames.end();
        for (turn, member) in self.members.iter().enumerate() {
            if (turn + 1).is_multiple_of(GIVE_WAY_EVERY) {
                std::thread::yield_now();
            }
            let Some((line, reader)) = find(streams, *member) else { continue };
            let At::Live(at) = reader.at else { continue };
            if line.leaving || at == end {
                continue;
            }
            match line.send(&self.frames, at, round) {
                Ok(at) => {
                    reader.at = At::Live(at);
                    if at < end && !reader.late {
                        reader.late = true;
                        self.late.push(*member);
                    }
                }
                Err(Gone) => gone.push(member.stream),
            }
        }
    }

    /// Drops the frames once everybody has them, or when they are too many: who is late then reads them from the log.
    pub(super) fn tidy(&mut self, number: u32, streams: &mut Slab<Open>) {
        let end = self.frames.end();
        let too_many = self.frames.len() > FRAMES_BYTES_MAX;
        let frames = &self.frames;
        self.late.retain(|member| {
            let of_here = |(_, reader): &(_, &mut Reader)| reader.group == number;
            let Some((_, reader)) = find(streams, *member).filter(of_here) else { return false };
            match reader.at {
                At::Live(at) if at < end && too_many => reader.at = At::Behind(frames.cursor(at)),
                At::Live(at) if at < end => return true,
                _ => {}
            }
            reader.late = false;
            false
        });
        if self.late.is_empty() {
            self.late.shrink_to(16);
            self.frames.clear(Offset::BEFORE_FIRST);
        }
    }

    /// The shared ring has lost what comes next: all live members go on from the log, and join again from `through` on.
    pub(super) fn all_behind(&mut self, streams: &mut Slab<Open>, through: Offset, behind: &mut Vec<Member>) {
        for member in &self.members {
            if let Some((_, reader)) = find(streams, *member)
                && let At::Live(at) = reader.at
            {
                reader.at = At::Behind(self.frames.cursor(at));
                reader.late = false;
                behind.push(*member);
            }
        }
        self.late.clear();
        self.frames.clear(through);
    }

    /// Where a reader can join the live ones.
    pub(super) fn place_of(&self, reader: &Reader) -> Place {
        match reader.at {
            At::Live(at) => Place::At(at),
            At::Behind(cursor) => self.frames.resume(cursor),
        }
    }

    fn forget(&mut self, page: &Arc<Page>) {
        self.pages.retain(|kept| !Arc::ptr_eq(kept, page));
    }
}

impl Groups {
    /// The group of a wish, and whether it is new; a new one has no frames of events through `seen`.
    pub(super) fn of(&mut self, wish: Wish, seen: Offset) -> (u32, bool) {
        if let Some(number) = self.by_wish.get(&wish) {
            return (*number, false);
        }
        let wish = Arc::new(wish);
        let frames = Frames::new(seen);
        let group = Group {
            wish: Arc::clone(&wish),
            frames,
            members: Vec::new(),
            late: Vec::new(),
            pages: Vec::new(),
            fresh: false,
        };
        let number = number(self.slab.insert(group));
        self.by_wish.insert(wish, number);
        (number, true)
    }

    pub(super) fn get(&mut self, number: u32) -> Option<&mut Group> {
        self.slab.get_mut(number as usize)
    }

    pub(super) fn join(&mut self, number: u32, member: Member) {
        if let Some(group) = self.get(number) {
            group.members.push(member);
        }
    }

    /// Takes a member out; the wish of the group if it was the last one.
    pub(super) fn leave(&mut self, number: u32, member: Member) -> Option<Arc<Wish>> {
        let group = self.get(number)?;
        if let Some(place) = group.members.iter().position(|other| *other == member) {
            group.members.swap_remove(place);
        }
        if !group.is_empty() {
            return None;
        }
        let group = self.slab.remove(number as usize);
        self.by_wish.remove(&group.wish);
        if !group.pages.is_empty() {
            self.kept.retain(|(of, _, _)| *of != number);
            self.kept_bytes = self.kept.iter().map(|(_, _, page)| page.weight()).sum();
        }
        Some(group.wish)
    }

    /// Keeps a page for others that need the same.
    pub(super) fn keep(&mut self, number: u32, page: &Arc<Page>, round: u32) {
        let Some(group) = self.slab.get_mut(number as usize) else { return };
        group.pages.push(Arc::clone(page));
        self.kept_bytes += page.weight();
        self.kept.push_back((number, round, Arc::clone(page)));
        while self.kept_bytes > PAGES_BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// Drops pages that came before a round.
    pub(super) fn drop_pages_before(&mut self, round: u32) {
        while self.kept.front().is_some_and(|(_, came, _)| *came < round) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((number, _, page)) = self.kept.pop_front() else { return };
        self.kept_bytes -= page.weight();
        if let Some(group) = self.get(number) {
            group.forget(&page);
        }
    }
}

/// Slabs hold far fewer than 2³² things: streams are limited.
pub(super) fn number(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(u32::MAX)
}
