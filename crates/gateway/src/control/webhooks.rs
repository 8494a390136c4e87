//! Webhooks: made, changed, removed; each runs as a subscription of the dispatcher, and so does whom it notifies.

mod changing;
mod means;
mod notify;
mod record;
mod registry;
mod sample;
mod settings;
mod sink;
mod traced;

pub(crate) use changing::forgetting;
pub(crate) use means::{Means, Smtp};
pub(crate) use notify::{check_target, owner};
pub(crate) use record::{FORMER_MAX, Record};
pub(crate) use registry::{New, Webhooks};
pub(crate) use sample::Verdict;
pub(crate) use settings::{Draft, Settings};
