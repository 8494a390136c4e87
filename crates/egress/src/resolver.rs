//! Names to addresses, asked of DNS alone: no search domains, no hosts file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use tokio::time::timeout;

use crate::error::DoorError;

/// How long a name may take to be looked up.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses that a name may have.
const ADDRESSES_MAX: usize = 16;
/// Answers kept, and for how long at the most: what is kept is vetted again at each use.
const CACHE_SIZE: u64 = 4096;
const CACHE_TTL_MAX: Duration = Duration::from_mins(1);
const CACHE_NEGATIVE_TTL_MAX: Duration = Duration::from_secs(5);

/// Asks DNS for the addresses of a name.
#[derive(Clone)]
pub struct Resolver(TokioResolver);

impl Resolver {
    /// Asks the servers that this machine asks (`/etc/resolv.conf`; without one, the machine itself).
    pub fn system() -> Result<Self, String> {
        match TokioResolver::builder_tokio() {
            Ok(builder) => Self::build(builder),
            Err(_) => Self::at((Ipv4Addr::LOCALHOST, 53).into()),
        }
    }

    /// Asks one server.
    pub fn at(server: SocketAddr) -> Result<Self, String> {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        let server = NameServerConfig::new(server.ip(), true, connections.into());
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, String> {
        settle(builder.options_mut());
        builder.build().map(Self).map_err(|error: NetError| error.to_string())
    }

    /// All addresses of a name, IPv4 first; never none, and no more than are looked at.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, DoorError> {
        if name == "localhost" || name.ends_with(".localhost") {
            // By definition (RFC 6761 §6.3); only a development policy comes here.
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        // The dot at the end keeps search domains away.
        let found = timeout(TIMEOUT, self.0.lookup_ip(format!("{name}.")));
        let found = found.await.map_err(|_| DoorError::Dns("no answer in time".into()))?;
        let found = found.map_err(|error| DoorError::Dns(error.to_string()))?;
        let addresses: Vec<_> = found.iter().take(ADDRESSES_MAX + 1).collect();
        match addresses.len() {
            0 => Err(DoorError::Dns("it is known, but without an address".into())),
            1..=ADDRESSES_MAX => Ok(addresses),
            _ => Err(DoorError::Blocked("too many addresses")),
        }
    }
}

fn settle(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.ndots = 0;
    options.timeout = options.timeout.clamp(Duration::from_secs(1), TIMEOUT / 2);
    options.attempts = 2;
    options.cache_size = CACHE_SIZE;
    options.positive_max_ttl = Some(CACHE_TTL_MAX);
    options.negative_max_ttl = Some(CACHE_NEGATIVE_TTL_MAX);
    // Many lanes may ask at the same time; the number of lanes is the bound.
    options.max_active_requests = 1024;
}
