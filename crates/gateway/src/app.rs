//! What every request works with.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use ed25519_dalek::SigningKey;
use tidings_engine::dispatcher::Dispatcher;
use tidings_log::Store;
use tokio::sync::watch;

use crate::config::Settings;
use crate::control::keys::Keys;
use crate::control::webhooks::Webhooks;

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
    pub(crate) webhooks: Webhooks,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Signs the head of the chain.
    pub(crate) audit_key: SigningKey,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Open event streams.
    pub(crate) streams: Arc<AtomicUsize>,
}

impl App {
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}
