//! Where a gateway is, and as whom to speak.

use std::fmt;

use hyper::Uri;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};

#[cfg(feature = "tls")]
use super::tls::Trust;

const TENANT: HeaderName = HeaderName::from_static("tidings-tenant");

/// A gateway's address, with an API key. Its debug form does not show the key.
#[derive(Clone)]
pub struct Gateway {
    pub(super) host: String,
    pub(super) port: u16,
    /// Before each path, without a slash at the end.
    prefix: String,
    pub(super) headers: HeaderMap,
    /// Of https.
    #[cfg(feature = "tls")]
    pub(super) trust: Option<Trust>,
}

impl Gateway {
    /// `http://127.0.0.1:8080`, or `https://…` with feature `tls`; a path is put before each route.
    pub fn new(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{url}` is not the address of a gateway: {why}");
        let uri: Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") if cfg!(feature = "tls") => true,
            Some("https") => return Err(wrong("https needs the feature `tls` of tidings-emit")),
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong("it has no user name, password or query"));
        }
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("its host is malformed"))?;
        headers.insert(HOST, host);
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            headers,
            #[cfg(feature = "tls")]
            trust: secure.then(|| Trust::new(None)).transpose()?,
        })
    }

    /// With an API key, `tdg_…`.
    pub fn key(mut self, key: &str) -> Result<Self, String> {
        let value = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut value = value.map_err(|_| "an API key has only printable characters".to_owned())?;
        value.set_sensitive(true);
        self.headers.insert(AUTHORIZATION, value);
        Ok(self)
    }

    /// For a tenant, with an operator's key.
    pub fn tenant(mut self, tenant: &str) -> Result<Self, String> {
        let value = HeaderValue::from_str(tenant);
        self.headers.insert(TENANT, value.map_err(|_| "a tenant has only printable characters".to_owned())?);
        Ok(self)
    }

    /// Trusts the certificate authorities in a PEM text too, besides those of this machine.
    #[cfg(feature = "tls")]
    pub fn trust(mut self, pem: &[u8]) -> Result<Self, String> {
        self.trust = self.trust.map(|_| Trust::new(Some(pem))).transpose()?;
        Ok(self)
    }

    pub(super) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.prefix)
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gateway({}:{}{})", self.host, self.port, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let gateway = Gateway::new("http://[::1]:8080/tidings/").unwrap().key("tdg_dev_1_secret").unwrap();
        assert_eq!((gateway.host.as_str(), gateway.port), ("::1", 8080));
        assert_eq!(gateway.path("/events"), "/tidings/events");
        assert_eq!(gateway.headers[HOST], "[::1]:8080");
        assert!(!format!("{gateway:?}").contains("secret"));
        assert_eq!(Gateway::new("https://events.example.com").unwrap().port, 443);
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (url, why) in [
            ("events.example.com", "neither"),
            ("ftp://example.com", "neither"),
            ("http://user:secret@example.com", "user name"),
            ("http://example.com/?key=1", "query"),
            ("/events", "no host"),
            ("http://exa mple", "not a URL"),
        ] {
            let error = Gateway::new(url).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(Gateway::new("http://localhost").unwrap().key("a\nb").is_err());
    }
}
