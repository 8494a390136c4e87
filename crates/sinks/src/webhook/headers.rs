//! The headers that a webhook's owner adds.

use std::fmt;

use tidings_egress::is_token;

/// Most headers of a webhook.
pub const HEADERS_MAX: usize = 20;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 128;

/// Names that the protocol, the connection or we ourselves speak for.
const DENIED: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
const DENIED_PREFIXES: &[&str] = &["ce-", "proxy-", "sec-", "tidings-", "webhook-", "x-forwarded-"];

/// Headers that were checked. Their values are secrets: they are sent, and never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Box<str>, Box<str>)>);

impl Headers {
    /// Checks headers; the error names the one that is refused and says what is accepted, and never repeats a value.
    pub fn parse<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut checked: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (name, value) in headers {
            check_header(name, value)?;
            if checked.len() == HEADERS_MAX {
                return Err(format!("header {name:?} is one too many: at most {HEADERS_MAX}"));
            }
            if checked.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                return Err(format!("header {name:?} is there twice"));
            }
            checked.push((name.into(), value.into()));
        }
        Ok(Self(checked))
    }

    /// Names and values, as given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Whether a webhook may have a header; the error names it and says what is accepted.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if !is_token(name) || name.len() > NAME_BYTES_MAX {
        let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
        return Err(format!("header {shown:?}: a name is 1 to {NAME_BYTES_MAX} letters, digits and hyphens"));
    }
    if DENIED.contains(&&*lower) || DENIED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(format!("header {name:?} is set by Tidings; choose another name"));
    }
    let visible = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if value.is_empty() || value.len() > VALUE_BYTES_MAX || !visible || value.trim() != value {
        return Err(format!("header {name:?}: a value is 1 to {VALUE_BYTES_MAX} characters of visible ASCII"));
    }
    Ok(())
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_headers_are_taken() {
        let headers = [("Authorization", "Bearer a.b-c"), ("X-Api-Key", "k"), ("x_y", "two words")];
        assert_eq!(Headers::parse(headers).unwrap().iter().collect::<Vec<_>>(), headers);
        assert!(check_header("a", &"v".repeat(VALUE_BYTES_MAX)).is_ok());
    }

    #[test]
    fn headers_of_the_protocol_are_refused_by_name_whatever_their_case() {
        for name in [
            "Host",
            "content-LENGTH",
            "Transfer-Encoding",
            "Connection",
            "TE",
            "Upgrade",
            "Trailer",
            "Expect",
            "Proxy-Authorization",
            "Cookie",
            "Webhook-Id",
            "webhook-signature",
            "X-Forwarded-For",
            "Tidings-Attempt",
            "ce-id",
            "Content-Type",
        ] {
            let error = check_header(name, "v").unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_could_end_a_line_or_hide_is_refused_and_not_repeated() {
        for (name, value) in [
            ("x", "secret\r\nhost: b"),
            ("x", "secret\n"),
            ("x", "secret\0"),
            ("x", "secré t"),
            ("x", " secret"),
            ("x", "secret "),
            ("x", ""),
            ("x", &"secret".repeat(1000)),
            ("", "secret"),
            ("x y", "secret"),
            ("x:", "secret"),
            ("x\r\nhost", "secret"),
            ("ü", "secret"),
        ] {
            let error = check_header(name, value).unwrap_err();
            assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_webhook_has_at_most_twenty_headers_each_once() {
        let names: Vec<_> = (0..=HEADERS_MAX).map(|number| format!("x-{number}")).collect();
        let headers = |count| Headers::parse(names.iter().take(count).map(|name| (&**name, "v")));
        assert!(headers(HEADERS_MAX).is_ok());
        assert!(headers(HEADERS_MAX + 1).unwrap_err().contains("x-20"));
        assert!(Headers::parse([("x-a", "1"), ("X-A", "2")]).unwrap_err().contains("X-A"));
    }

    #[test]
    fn values_are_not_printed() {
        let headers = Headers::parse([("authorization", "Bearer secret")]).unwrap();
        assert_eq!(format!("{headers:?}"), r#"["authorization"]"#);
    }
}
