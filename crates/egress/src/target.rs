//! Where a request goes.

use http::{HeaderValue, Uri};
use url::{Position, Url};

/// A URL that the door can reach, taken apart once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`: what connections are pooled by.
    pub(crate) endpoint: Box<str>,
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
    /// The `host` header: the port is left out if it is the scheme's own.
    pub(crate) authority: HeaderValue,
    pub(crate) path: Uri,
}

impl Target {
    /// Takes a URL apart; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        match url.scheme() {
            "http" => {}
            "https" => return Err("https is not built yet: it comes with the guarded door; use an http:// URL".into()),
            other => return Err(format!("a URL starts with http:// or https://, not with {other}:")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL must not hold credentials: put them into a header".into());
        }
        let wrong = || "the URL cannot be requested".to_owned();
        let host = url.host_str().ok_or("the URL names no host")?;
        let port = url.port_or_known_default().ok_or_else(wrong)?;
        let path = url[Position::BeforePath..Position::AfterQuery].parse().map_err(|_| wrong())?;
        let authority = url[Position::BeforeHost..Position::AfterPort].parse().map_err(|_| wrong())?;
        // The brackets of an IPv6 address belong to the URL.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self { endpoint: format!("{host}:{port}").into(), host: bare.into(), port, authority, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let cases = [
            ("http://example.com/a?b=c#d", "example.com:80", "example.com", "/a?b=c"),
            ("http://Example.com:8080", "example.com:8080", "example.com:8080", "/"),
            ("http://[::1]:80/x", "[::1]:80", "[::1]", "/x"),
        ];
        for (url, endpoint, authority, path) in cases {
            let target = Target::parse(url).unwrap();
            assert_eq!((&*target.endpoint, target.authority.to_str().unwrap()), (endpoint, authority), "{url}");
            assert_eq!(target.path.to_string(), path, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_reached_is_refused_with_the_reason() {
        let cases = [
            ("https://example.com", "guarded door"),
            ("ftp://example.com", "ftp:"),
            ("http://user:secret@example.com", "credentials"),
            ("example.com", "not a URL"),
            ("http://", "not a URL"),
        ];
        for (url, says) in cases {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(says) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
