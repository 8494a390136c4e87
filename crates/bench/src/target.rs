//! Where load, sender and forwarder send: an address on loopback and a path.

use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};

/// A clear-text URL on loopback; nothing here ever leaves the machine.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The address to connect to.
    pub(crate) addr: SocketAddr,
    /// The path with its query, at least `/`.
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let uri: http::Uri = text.parse()?;
        if uri.scheme_str() != Some("http") {
            bail!("`{text}` must start with http://");
        }
        let authority = uri.authority().context("the address is missing")?.as_str();
        let addr: SocketAddr =
            authority.parse().with_context(|| format!("`{authority}` must be an IP address with a port"))?;
        ensure!(addr.ip().is_loopback(), "`{addr}` is not on loopback");
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Self { addr, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn a_target_is_an_address_on_loopback() {
        let target: Target = "http://127.0.0.1:80/hooks?a=1".parse().expect("a target");
        assert_eq!(target.addr.to_string(), "127.0.0.1:80");
        assert_eq!(target.path, "/hooks?a=1");
        for refused in ["https://127.0.0.1:80", "http://192.0.2.1:80", "http://localhost:80", "127.0.0.1:80"] {
            assert!(refused.parse::<Target>().is_err(), "{refused}");
        }
    }
}
