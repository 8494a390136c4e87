//! Whether an event that comes again under the same id says the same.

use super::{Channel, Encoded, Header, Supplied};
use crate::json;

/// Whether a stored event and a new one have the same content: the same fields supplied, with equal values.
///
/// Defaults do not count. Data is compared as JSON ([`json::equal`]), channels and metadata without order, times to the
/// millisecond. Erased data (`None`) equals anything: what it was cannot be known any more. A damaged header equals nothing.
pub fn same_content(stored_header: &[u8], stored_data: Option<&[u8]>, stored_supplied: Supplied, new: &Encoded) -> bool {
    if stored_supplied != new.supplied {
        return false;
    }
    let (Ok(stored), Ok(given)) = (Header::parse(stored_header), Header::parse(&new.header(None))) else {
        return false;
    };
    let supplied = |field| new.supplied.has(field);
    stored.subject.event_type == given.subject.event_type
        && stored.subject.aggregate == given.subject.aggregate
        && (!supplied(Supplied::VERSION) || stored.version == given.version)
        && (!supplied(Supplied::TIMESTAMP) || stored.timestamp == given.timestamp)
        && (!supplied(Supplied::SOURCE) || stored.source == given.source)
        && sorted(&stored.subject.channels) == sorted::<Channel>(&given.subject.channels)
        && sorted(&stored.metadata) == sorted(&given.metadata)
        && stored_data.is_none_or(|data| json::equal(data, &new.data))
}

fn sorted<T: Ord>(items: &[T]) -> Vec<&T> {
    let mut items: Vec<&T> = items.iter().collect();
    items.sort_unstable();
    items
}
