//! Nouns and decisions of Tidings. Pure: no I/O, no clock, no randomness; time and chance are arguments.
//!
//! - What happened: [`event`] (draft, encoded, header), [`id`], [`offset`], [`tenant`], [`time`].
//! - How it is written: [`json`] is the gate every text passes, [`cloudevents`] the other wire form.
//! - Where it is found again, and how that it was not changed is proved: [`posting`], [`chain`].
//! - Who gets it: [`filter`]; when and in which order, decided purely: [`lane`], [`circuit`], [`retry`], [`rate`];
//!   and where workers fetch: [`desk`].
//! - What is refused, and why: [`problem`]. What caused it: [`trace`].
//! - Trust: [`signature`] and [`secret`] for webhooks, [`seal`] for secrets at rest, [`key`] for API keys.

pub mod chain;
pub mod circuit;
pub mod cloudevents;
pub mod desk;
pub mod event;
pub mod filter;
pub mod id;
pub mod json;
pub mod key;
pub mod lane;
pub mod offset;
pub mod posting;
pub mod problem;
pub mod rate;
pub mod retry;
pub mod seal;
pub mod secret;
pub mod signature;
pub mod tenant;
pub mod time;
pub mod trace;
