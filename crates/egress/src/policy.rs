//! Where requests may go: the operator's rules over [`classify`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};

use crate::address::{Denied, classify, is_never, translated};
use crate::target::Scheme;

/// Ports above 1023 that are known to be something else than HTTP.
const PORTS_DENIED: &[u16] = &[
    1719, 1720, 1723, 2049, 2375, 2376, 2379, 2380, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432, 5672, 6000, 6379,
    6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 8500, 9042, 9092, 9200, 9300, 10080, 10250, 11211, 15672,
    27017,
];
/// Names of local networks; the addresses behind them are what counts, so an allowlist opens them.
const LOCAL_SUFFIXES: &[&str] = &["local", "internal", "home.arpa"];
/// Names that stand for the machine itself, or for no host.
const NEVER_SUFFIXES: &[&str] = &["localhost", "in-addr.arpa", "ip6.arpa", "metadata.google.internal"];

/// What may be reached beyond the public internet: a network, and its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    net: IpNet,
    ports: Ports,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    /// Those that may be reached in public.
    Usual,
    One(u16),
    Any,
}

/// Where requests may go. The default is the public internet by https.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Networks that may be reached although they are not public.
    pub allow: Vec<Allowance>,
    /// Networks that may not be reached although they are public; stronger than `allow`.
    pub deny: Vec<IpNet>,
    /// Whether clear text is accepted.
    pub http: bool,
    /// The only ports, if any are named.
    pub ports: Vec<u16>,
    /// Prefixes of this network's NAT64 (see [`classify`]).
    pub nat64: Vec<Ipv6Net>,
    /// Where this process listens: never reached, not even if allowed.
    pub listeners: Vec<SocketAddr>,
}

impl Policy {
    /// For development: http, and the machine itself at any port, too.
    pub fn dev() -> Self {
        let local = [IpNet::new_assert(Ipv4Addr::LOCALHOST.into(), 8), IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))];
        let allow = local.map(|net| Allowance { net, ports: Ports::Any }).into();
        Self { allow, http: true, ..Self::default() }
    }

    /// Whether an address may be dialled at `port`. `own` are the addresses of this machine's interfaces.
    ///
    /// Law: what this refuses is never dialled (`no_attempt_reaches_the_canary`).
    pub fn vet(&self, address: IpAddr, port: u16, own: &[IpAddr]) -> Result<SocketAddr, Denied> {
        // Mapped addresses are dialled as what they stand for.
        let address = address.to_canonical();
        if let IpAddr::V6(v6) = address
            && let Some(v4) = translated(v6, &self.nat64)
        {
            return self.vet(v4.into(), port, own).map(|_| (address, port).into());
        }
        if self.listeners.iter().any(|listener| is_listener(*listener, address, port, own)) {
            return Err(Denied("this server"));
        }
        if self.deny.iter().any(|net| net.contains(&address)) {
            return Err(Denied("on the operator's list"));
        }
        let allowances = || self.allow.iter().filter(|allowance| allowance.matches(address, port, self));
        // This machine is opened by name only, not by a network that happens to contain it.
        if own.contains(&address) || address.is_loopback() {
            let opened = allowances().any(Allowance::is_deliberate);
            return if opened { Ok((address, port).into()) } else { Err(Denied("this machine")) };
        }
        if !is_never(address) && allowances().next().is_some() {
            return Ok((address, port).into());
        }
        classify(address, &self.nat64)?;
        if self.is_usual(port) { Ok((address, port).into()) } else { Err(Denied("a port that is not for HTTP")) }
    }

    /// Whether the scheme and the port of a URL are accepted; the error says what is.
    pub(crate) fn check_port(&self, scheme: Scheme, port: u16) -> Result<(), String> {
        if scheme == Scheme::Http && !self.http {
            return Err("the URL starts with https://".into());
        }
        let named = self.allow.iter().any(|allowance| match allowance.ports {
            Ports::Usual => false,
            Ports::One(one) => one == port,
            Ports::Any => true,
        });
        if named || self.is_usual(port) {
            return Ok(());
        }
        let named: Vec<_> = self.ports.iter().map(u16::to_string).collect();
        let usual = "443, 8443, or one from 1024 that is not known to be of another protocol".to_owned();
        Err(format!("the port is {}", if named.is_empty() { usual } else { named.join(", ") }))
    }

    /// Whether a name is accepted; the addresses behind it are vetted at each attempt. The error says what is.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), String> {
        let ends =
            |suffix: &&str| name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let local = self.allow.iter().any(|allowance| allowance.ports == Ports::Any);
        if local && ends(&"localhost") {
            return Ok(());
        }
        let never = NEVER_SUFFIXES.iter().any(ends) || name.contains("kubernetes.default.svc");
        let private = !name.contains('.') || LOCAL_SUFFIXES.iter().any(ends);
        if never || (private && self.allow.is_empty()) {
            return Err("the host is a public one, as in example.com".into());
        }
        Ok(())
    }

    fn is_usual(&self, port: u16) -> bool {
        if !self.ports.is_empty() {
            return self.ports.contains(&port);
        }
        port == 443 || (port == 80 && self.http) || (port >= 1024 && !PORTS_DENIED.contains(&port))
    }
}

fn is_listener(listener: SocketAddr, address: IpAddr, port: u16, own: &[IpAddr]) -> bool {
    let everywhere = listener.ip().is_unspecified() && (address.is_loopback() || own.contains(&address));
    listener.port() == port && (listener.ip().to_canonical() == address || everywhere)
}

impl Allowance {
    fn matches(&self, address: IpAddr, port: u16, policy: &Policy) -> bool {
        let port = match self.ports {
            Ports::Usual => policy.is_usual(port),
            Ports::One(one) => one == port,
            Ports::Any => true,
        };
        port && self.net.contains(&address)
    }

    /// One address at one port, or what [`Policy::dev`] made.
    fn is_deliberate(&self) -> bool {
        match self.ports {
            Ports::Usual => false,
            Ports::One(_) => self.net.prefix_len() == self.net.max_prefix_len(),
            Ports::Any => true,
        }
    }
}

impl FromStr for Allowance {
    type Err = String;

    /// Reads `10.1.0.0/16`, `10.1.2.3:8080`, `[fd00::/8]:8080`: a network or an address, and perhaps a port.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a network with or without a port, as in 10.1.0.0/16 or 10.1.2.3:8080");
        if let Ok(net) = network(text) {
            return Ok(Self { net, ports: Ports::Usual });
        }
        let (net, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = net.strip_prefix('[').and_then(|net| net.strip_suffix(']')).unwrap_or(net);
        let net = network(bare).map_err(|_| wrong())?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        Ok(Self { net, ports: Ports::One(port) })
    }
}

/// Reads a network, or an address as the network of it alone.
pub fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| format!("{text:?} is not a network, as in 10.1.0.0/16"))
}

/// Reads a prefix of NAT64: IPv6, of one of the lengths that RFC 6052 knows.
pub fn nat64(text: &str) -> Result<Ipv6Net, String> {
    match network(text) {
        Ok(IpNet::V6(net)) if [32, 40, 48, 56, 64, 96].contains(&net.prefix_len()) => Ok(net),
        _ => Err(format!("{text:?} is not a NAT64 prefix, as in 64:ff9b::/96")),
    }
}
