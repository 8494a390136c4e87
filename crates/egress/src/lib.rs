//! The one door out: every request that Tidings makes to somebody else's server goes through [`Door`].
//!
//! HTTP/1.1 in clear text for now. `https` and the policy of addresses (no private ones, allowed ports) come with the
//! guarded door: the policy will stand in `connect`, between the look-up of a name and the connection to what it
//! said, so that no name can be looked up twice with two answers. Until then any address is allowed.
//!
//! Never: redirects followed, proxies taken from the environment, bodies or headers without a bound.

mod connect;
mod door;
mod error;
mod pool;
mod target;

pub use door::{BODY_BYTES_MAX, Door, HEAD_BYTES_MAX, Response};
pub use error::DoorError;
pub use pool::IDLE_MAX;
pub use target::Target;
