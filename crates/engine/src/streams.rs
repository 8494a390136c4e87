//! Live streams: a cursor that a client holds.
//!
//! [`feed`] follows the log for one stream, from the shared ring while it keeps up and from disk when it does not;
//! [`sse`] frames what it finds.

pub mod feed;
pub mod sse;
