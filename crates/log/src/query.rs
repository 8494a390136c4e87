//! What a reader asks of the log, and what it gets.

use std::sync::Arc;

use tidings_core::filter::Filter;
use tidings_core::offset::Offset;

use crate::event::{Event, Record, Tenant};

/// The largest page.
pub const PAGE_EVENTS_MAX: usize = 1_000;

/// Which way a page goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// A page of a tenant's events.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub filter: Filter,
    /// Exclusive lower bound.
    pub after: Offset,
    /// Inclusive upper bound.
    pub through: Option<Offset>,
    /// Which end comes first.
    pub order: Order,
    /// At most so many events, 1 to [`PAGE_EVENTS_MAX`].
    pub limit: usize,
}

impl Query {
    /// The oldest events after `after`, whatever they are.
    pub fn after(tenant: Tenant, after: Offset, limit: usize) -> Self {
        Self { tenant, filter: Filter::everything(), after, through: None, order: Order::Ascending, limit }
    }
}

/// Some events, in the order asked for.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<Arc<Event>>,
    /// How far the page reaches: everything that matches between the query's start and here, inclusive, is in it.
    pub reached: Offset,
    /// Whether there may be more beyond.
    pub more: bool,
    /// The oldest offset that was kept when the page was read. What was asked for before it is gone: nothing else is
    /// missing.
    pub first: Offset,
}

/// How an event is written into a page of frames: it appends to what is there.
pub type Frame = Box<dyn Fn(&mut Vec<u8>, &Record<'_>) + Send>;

/// Some events, framed into one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Framed {
    /// The frames, one after the other.
    pub bytes: Vec<u8>,
    /// Whose they are, and where each ends.
    pub ends: Vec<(Offset, usize)>,
    /// As [`Page::reached`].
    pub reached: Offset,
    /// As [`Page::more`].
    pub more: bool,
    /// As [`Page::first`]; the beginning of the log if nobody looked.
    pub first: Offset,
}

impl Framed {
    /// Frames `events`, which are all that is wanted up to `reached`; no more once there are `bytes_max`.
    pub fn of(events: &[Arc<Event>], reached: Offset, bytes_max: usize, frame: &Frame) -> Self {
        let mut framed = Self { reached, ..Self::default() };
        for event in events {
            if framed.bytes.len() >= bytes_max {
                framed.reached = framed.ends.last().map_or(reached, |(offset, _)| *offset);
                framed.more = true;
                break;
            }
            framed.push(&event.record(), frame);
        }
        framed
    }

    pub(crate) fn push(&mut self, record: &Record<'_>, frame: &Frame) {
        frame(&mut self.bytes, record);
        self.ends.push((record.offset, self.bytes.len()));
    }
}
