//! Connections that wait for their next request.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashMap;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;

/// Most idle connections to one endpoint.
pub const IDLE_MAX: usize = 16;
/// A connection idle for this many ticks is closed: 30 s at the most.
const IDLE_TICKS: u64 = 3;
const TICK: Duration = Duration::from_secs(10);

pub(crate) type Sender = SendRequest<Full<Bytes>>;

#[derive(Default)]
pub(crate) struct Pool {
    endpoints: Mutex<Endpoints>,
}

#[derive(Default)]
struct Endpoints {
    idle: HashMap<Box<str>, Vec<(u64, Sender)>>,
    tick: u64,
    swept: bool,
}

impl Pool {
    /// The connection used last, if one is left that can take a request.
    pub(crate) async fn take(&self, endpoint: &str) -> Option<Sender> {
        loop {
            let mut sender = self.pop(endpoint)?;
            // Waits until its task has put the last answer away; fails if the peer has closed it.
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn pop(&self, endpoint: &str) -> Option<Sender> {
        let mut endpoints = self.endpoints.lock();
        let idle = endpoints.idle.get_mut(endpoint)?;
        idle.pop().map(|(_, sender)| sender)
    }

    /// Keeps a connection for the next request; closes it if there are enough.
    pub(crate) fn put(self: &Arc<Self>, endpoint: &str, sender: Sender) {
        let mut endpoints = self.endpoints.lock();
        let tick = endpoints.tick;
        if !endpoints.swept {
            endpoints.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        if let Some(idle) = endpoints.idle.get_mut(endpoint) {
            if idle.len() < IDLE_MAX {
                idle.push((tick, sender));
            }
        } else {
            endpoints.idle.insert(endpoint.into(), vec![(tick, sender)]);
        }
    }

    fn tick(&self) {
        let mut endpoints = self.endpoints.lock();
        endpoints.tick += 1;
        let tick = endpoints.tick;
        endpoints.idle.retain(|_, idle| {
            idle.retain(|(since, sender)| tick - since < IDLE_TICKS && !sender.is_closed());
            !idle.is_empty()
        });
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.tick();
    }
}
