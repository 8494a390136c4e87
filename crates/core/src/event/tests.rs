//! Cases of the event.
