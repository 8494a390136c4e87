//! How a cursor that a client brings relates to what the log still has.

use tidings_core::offset::Offset;
use tidings_log::{Store, Tenant};

/// What becomes of a cursor that a client brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Everything after it is there.
    Whole,
    /// Retention took some of it: the first offset that is left.
    Gap(Offset),
    /// It belongs to a past that a restore replaced, or was never given out: where the log goes on.
    Reset(Offset),
}

/// Compares a client's cursor with the log.
pub fn resume(store: &dyn Store, tenant: Tenant, cursor: Offset) -> Resume {
    let extent = store.extent(tenant);
    if let Some(first) = store.replaced_by(tenant, cursor) {
        Resume::Reset(first)
    } else if cursor > extent.head {
        Resume::Reset(extent.head.next())
    } else if cursor.next() < extent.first {
        Resume::Gap(extent.first)
    } else {
        Resume::Whole
    }
}
