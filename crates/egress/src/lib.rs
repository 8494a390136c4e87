//! The one door out: every request that Tidings makes to somebody else's server goes through [`Door`].
//!
//! A [`Target`] is a URL that a [`Policy`] accepts. A [`Line`] posts to it. Each fresh connection looks the name up, has
//! all its addresses vetted ([`Policy::vet`], over [`classify`]), dials a vetted address itself, and checks whom it
//! reached: no name is looked up twice with two answers. Addresses in a URL take the same path.
//!
//! HTTP/1.1 of our own over the socket (`answer`, `connection`), TLS 1.2 and 1.3 by rustls.
//!
//! Never: redirects followed, proxies taken from the environment, answers decompressed, bodies or headers without a
//! bound, a certificate unverified.

mod address;
mod answer;
mod chunked;
mod connect;
mod connection;
mod door;
mod error;
mod line;
mod lines;
mod policy;
mod resolver;
mod stream;
mod target;
mod tls;

pub use address::{Denied, classify};
pub use answer::{BODY_BYTES_MAX, HEAD_BYTES_MAX, Response};
pub use door::Door;
pub use error::DoorError;
pub use line::Line;
pub use lines::{Lines, is_token};
pub use policy::{Allowance, Policy, nat64, network};
pub use resolver::Resolver;
pub use target::Target;
pub use tls::Trust;
