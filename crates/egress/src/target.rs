//! Where a request goes: a URL, parsed once and checked as it stands.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use url::{Host as UrlHost, Position, Url};

use crate::address::Denied;
use crate::policy::Policy;

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Whom a connection is made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// In lower case, without a dot at the end, in ASCII.
    Name(Box<str>),
    Address(IpAddr),
}

/// A URL that a policy accepts, taken apart. What its name stands for is vetted at each connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// The `host` header: the port is left out if it is the scheme's own.
    pub(crate) authority: Box<str>,
    /// With the query.
    pub(crate) path: Box<str>,
}

impl Target {
    /// Takes a URL apart. What other parsers might read otherwise is refused, not repaired; the error says what is
    /// accepted, and never what is behind a name.
    pub fn parse(text: &str, policy: &Policy) -> Result<Self, String> {
        let (scheme, authority) = plain(text)?;
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        let (raw_host, raw_port) = split(authority);
        let host = match url.host() {
            Some(UrlHost::Ipv4(address)) if raw_host == address.to_string() => Host::Address(address.into()),
            Some(UrlHost::Ipv6(address)) if is_ipv6(raw_host, address) => Host::Address(address.into()),
            Some(UrlHost::Domain(name)) if is_spelt(raw_host, name) => {
                Host::Name(name.strip_suffix('.').unwrap_or(name).into())
            }
            _ => return Err("the host is written as it is: example.com, 192.0.2.1 or [2001:db8::1]".into()),
        };
        let port = url.port_or_known_default().ok_or("the URL names no port")?;
        if raw_port.is_some_and(|raw| raw != port.to_string()) || port == 0 {
            return Err("the port is a number from 1 to 65535".into());
        }
        let shown = match &host {
            Host::Name(name) => name.clone(),
            Host::Address(IpAddr::V4(address)) => address.to_string().into(),
            Host::Address(IpAddr::V6(address)) => format!("[{address}]").into(),
        };
        let authority = url.port().map_or(shown.clone(), |port| format!("{shown}:{port}").into());
        let path = url[Position::BeforePath..Position::AfterQuery].into();
        let target = Self { scheme, host, port, authority, path };
        target.check(policy)?;
        Ok(target)
    }

    /// Whether `policy` accepts it; the error says what is accepted.
    pub(crate) fn check(&self, policy: &Policy) -> Result<(), String> {
        policy.check_port(self.scheme, self.port)?;
        match &self.host {
            Host::Name(name) => policy.check_name(name),
            Host::Address(address) => policy.vet(*address, self.port, &[]).map(drop).map_err(|Denied(why)| {
                format!("an endpoint has a public address (this is {why}), unless the operator's setting `egress.allow` opens it")
            }),
        }
    }
}

/// The scheme, and what stands before the path. Refuses what is not plainly a URL.
fn plain(text: &str) -> Result<(Scheme, &str), String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("a URL has at most {URL_BYTES_MAX} bytes"));
    }
    if text.chars().any(|char| char.is_control() || char.is_whitespace() || char == '\\') {
        return Err("a URL has no spaces, control characters and backslashes".into());
    }
    if text.contains('#') {
        return Err("a URL without a fragment (#)".into());
    }
    let wrong = || "send a whole URL, as in https://example.com/hooks".to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let scheme = match &*scheme.to_ascii_lowercase() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return Err("a URL starts with https://".into()),
    };
    let authority = rest.split(['/', '?']).next().filter(|authority| !authority.is_empty()).ok_or_else(wrong)?;
    if authority.contains('@') {
        return Err("a URL without user name and password: put them into a header".into());
    }
    Ok((scheme, authority))
}

/// Host and port as they were written.
fn split(authority: &str) -> (&str, Option<&str>) {
    let bracket = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[bracket..].split_once(':') {
        None => (authority, None),
        Some((between, port)) => (&authority[..bracket + between.len()], Some(port)),
    }
}

fn is_ipv6(raw: &str, address: Ipv6Addr) -> bool {
    let bare = raw.strip_prefix('[').and_then(|raw| raw.strip_suffix(']'));
    bare.and_then(|bare| bare.parse().ok()) == Some(address)
}

/// Whether a name is what was written: nothing decoded, mapped or left out on the way, but for case and IDNA.
fn is_spelt(raw: &str, name: &str) -> bool {
    let good_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    let same = if raw.is_ascii() {
        raw.eq_ignore_ascii_case(name)
    } else {
        let (unicode, good) = idna::domain_to_unicode(name);
        good.is_ok() && unicode == raw.to_lowercase()
    };
    same && bare.len() <= 253 && bare.split('.').all(good_label)
}

/// The query may hold a token, so it is not printed.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        write!(f, "Target({scheme}://{}{path})", self.authority)
    }
}
