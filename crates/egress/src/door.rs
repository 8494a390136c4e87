//! What all ways out share: the policy, the resolver, the trust.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::policy::Policy;
use crate::resolver::Resolver;
use crate::tls::Trust;

/// How long the addresses of this machine are believed.
const OWN_AGE_MAX: Duration = Duration::from_mins(1);

/// The one door out. One for the process; it holds no connections (see [`crate::Line`]).
pub struct Door {
    pub(crate) resolver: Resolver,
    pub(crate) trust: Trust,
    policy: RwLock<Arc<Policy>>,
    version: AtomicU64,
    own: Mutex<Option<(Instant, Arc<[IpAddr]>)>>,
}

impl Door {
    /// A door that lets pass what `policy` does.
    pub fn new(policy: Policy, resolver: Resolver, trust: Trust) -> Self {
        Self {
            resolver,
            trust,
            policy: RwLock::new(Arc::new(policy)),
            version: AtomicU64::new(0),
            own: Mutex::default(),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read())
    }

    /// Puts another policy in force. Idle connections made under the former one are not used again.
    pub fn replace_policy(&self, policy: Policy) {
        let mut current = self.policy.write();
        *current = Arc::new(policy);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Changes with the policy.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The addresses of this machine's interfaces, at most a minute old.
    pub(crate) fn own_addresses(&self) -> Arc<[IpAddr]> {
        let mut own = self.own.lock();
        if let Some((since, addresses)) = &*own
            && since.elapsed() < OWN_AGE_MAX
        {
            return Arc::clone(addresses);
        }
        let addresses: Arc<[IpAddr]> = interfaces().into();
        *own = Some((Instant::now(), Arc::clone(&addresses)));
        addresses
    }
}

fn interfaces() -> Vec<IpAddr> {
    let found = getifaddrs().into_iter().flatten().filter_map(|interface| interface.address);
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    found.filter_map(address).collect()
}
