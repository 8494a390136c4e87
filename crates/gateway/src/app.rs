//! What every request works with.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_engine::dispatcher::Dispatcher;
use tidings_engine::streams::Streams;
use tidings_log::Store;
use tidings_log::sqlite::Watch;
use tidings_sources::outbox::{Meter, Orders};
use tokio::sync::watch;

use crate::config::Settings;
use crate::control::consumers::Consumers;
use crate::control::keys::Keys;
use crate::control::seats::Seats;
use crate::control::tickets::Tickets;
use crate::control::webhooks::Webhooks;
use crate::telemetry::requests::Requests;
use crate::telemetry::trace::Tracer;

/// How far the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not everything is loaded.
    Starting,
    /// It serves.
    Ready,
    /// It serves, and asks not to be sent more.
    Stopping,
    /// Streams are to end.
    Draining,
}

/// What every request works with.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Keys,
    pub(crate) tickets: Tickets,
    pub(crate) webhooks: Webhooks,
    pub(crate) consumers: Consumers,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Signs the head of the chain.
    pub(crate) audit_key: SigningKey,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) streams: Streams,
    /// Places for streams.
    pub(crate) seats: Arc<Seats>,
    /// Since when it runs.
    pub(crate) started: Timestamp,
    pub(crate) requests: Requests,
    /// What is read beside requests.
    pub(crate) outboxes: Vec<Outbox>,
    /// The log in numbers.
    pub(crate) watch: Watch,
    /// Where spans go, if anywhere.
    pub(crate) tracer: Option<Tracer>,
}

/// An outbox that is read.
pub(crate) struct Outbox {
    pub(crate) name: String,
    pub(crate) tenant: TenantName,
    pub(crate) meter: Arc<Meter>,
    pub(crate) orders: Orders,
}

impl App {
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}
