//! What the log keeps of subscriptions that are not started yet.

use std::collections::{BTreeMap, VecDeque};

use foldhash::{HashMap, HashSet};
use tidings_core::circuit::Standing;
use tidings_core::offset::Offset;
use tidings_log::Tenant;
use tidings_log::store::{Behind, Extent, Swept};

/// How far a sweeper goes back at the start for those that have a cursor of their own and nothing else: it reads once for
/// all, but they make the others wait. Who is further behind reads for itself.
const NEAR: u64 = 65_536;
/// Subscriptions that were stopped and may be started again: their removal may fail.
const STOPPED_MAX: usize = 1_024;

/// What progress a subscription has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// None: its cursor is that of its slot.
    Nothing,
    /// A cursor, and nothing else.
    Cursor(Offset),
    /// A cursor, and something beside that.
    More(Offset),
}

#[derive(Default)]
pub(super) struct Known {
    behind: HashMap<Box<str>, Kept>,
    /// Where sweepers begin for them.
    near: BTreeMap<Tenant, Offset>,
    pub(super) dead: HashMap<Box<str>, u64>,
    pub(super) replays: HashSet<Box<str>>,
    pub(super) standings: HashMap<Box<str>, Standing>,
    swept: BTreeMap<(Tenant, u8), Offset>,
    /// Through where those are settled that were stopped, should the log keep nothing of them.
    stopped: VecDeque<(Box<str>, Offset)>,
}

impl Kept {
    /// The cursor, if that is all.
    pub(super) fn cursor(self) -> Option<Offset> {
        if let Self::Cursor(cursor) = self { Some(cursor) } else { None }
    }

    /// Whether there is more than a cursor.
    pub(super) fn is_more(self) -> bool {
        matches!(self, Self::More(_))
    }

    /// The cursor, whatever is beside it.
    pub(super) fn committed(self) -> Offset {
        match self {
            Self::Nothing => Offset::default(),
            Self::Cursor(cursor) | Self::More(cursor) => cursor,
        }
    }
}

impl Known {
    pub(super) fn remember_swept(&mut self, swept: Swept) {
        self.swept.insert((swept.tenant, swept.slot), swept.through);
    }

    /// Notes who has a progress of its own, after all slots' cursors are known.
    pub(super) fn remember_behind(&mut self, behind: Behind, extent: Extent) {
        let Behind { subscription, tenant, cursor, plain } = behind;
        let from = self.slots(tenant).into_values().min().unwrap_or(extent.head);
        // What retention took is told by a lane.
        if plain && cursor.next() >= extent.first && from.0.saturating_sub(cursor.0) <= NEAR {
            self.near.entry(tenant).and_modify(|near| *near = cursor.min(*near)).or_insert(cursor);
        }
        self.behind.insert(subscription, if plain { Kept::Cursor(cursor) } else { Kept::More(cursor) });
    }

    /// What a subscription has of its own; it is not asked for again.
    pub(super) fn take_behind(&mut self, id: &str) -> Kept {
        self.behind.remove(id).unwrap_or(Kept::Nothing)
    }

    /// Notes that a subscription is stopped.
    pub(super) fn remember_stopped(&mut self, id: Box<str>, through: Offset) {
        self.stopped.truncate(STOPPED_MAX - 1);
        self.stopped.push_front((id, through));
    }

    /// Through where one that was stopped is settled.
    pub(super) fn take_stopped(&mut self, id: &str) -> Option<Offset> {
        let place = self.stopped.iter().position(|(stopped, _)| **stopped == *id)?;
        self.stopped.remove(place).map(|(_, through)| through)
    }

    /// A slot's cursor.
    pub(super) fn swept(&self, tenant: Tenant, slot: u8) -> Option<Offset> {
        self.swept.get(&(tenant, slot)).copied()
    }

    /// The cursors of a tenant's slots.
    pub(super) fn slots(&self, tenant: Tenant) -> BTreeMap<u8, Offset> {
        self.swept.range((tenant, 0)..=(tenant, u8::MAX)).map(|((_, slot), at)| (*slot, *at)).collect()
    }

    /// Where a tenant's sweeper begins; without slots at the head of the log.
    pub(super) fn place(&self, tenant: Tenant, head: Offset) -> Offset {
        let swept = self.slots(tenant).into_values().min().unwrap_or(head);
        self.near.get(&tenant).map_or(swept, |near| swept.min(*near))
    }
}
