//! What a reader asks of the log, and what it gets.

use std::sync::Arc;

use tidings_core::filter::Filter;
use tidings_core::offset::Offset;

use crate::event::{Event, Tenant};

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
}
