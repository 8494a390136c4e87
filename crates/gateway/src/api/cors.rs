//! Answers for pages of other origins: those that the settings name, exactly.

use std::sync::Arc;

use axum::body::Body;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

/// Headers that a page may send.
const HEADERS: &str = "authorization, content-type, idempotency-key, last-event-id, tidings-tenant, traceparent";
/// Headers of answers that a page may read, beside those that it always may.
const READABLE: &str = "retry-after, idempotency-replayed";
/// How long a browser may keep the answer to a preflight, in seconds.
const MAX_AGE_SECONDS: &str = "600";

/// The origins that may read answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(Arc<[HeaderValue]>);

impl Origins {
    pub(crate) fn new(origins: Vec<HeaderValue>) -> Self {
        Self(origins.into())
    }

    /// The origin of a request, if it may read the answer.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        self.0.contains(origin).then(|| origin.clone())
    }

    /// The origin of a request, unless it comes from no page, from one of the server's own, or from one that may.
    pub(crate) fn check<'a>(&self, headers: &'a HeaderMap) -> Result<(), &'a HeaderValue> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let own = origin.to_str().is_ok_and(|origin| origin.split_once("://").is_some_and(|(_, of)| of == host));
        if own || self.0.contains(origin) { Ok(()) } else { Err(origin) }
    }

    /// Lets `origin` read an answer, with credentials. Whoever keeps answers is told that they differ by origin.
    pub(crate) fn mark(&self, origin: Option<&HeaderValue>, response: &mut Response<Body>) {
        if self.0.is_empty() {
            return;
        }
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(READABLE));
        }
    }

    /// The answer to a preflight, if this is one of an origin that may.
    pub(crate) fn preflight(&self, method: &Method, headers: &HeaderMap, allowed: &str) -> Option<Response<Body>> {
        let asks = *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let origin = self.of(headers).filter(|_| asks)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        self.mark(Some(&origin), &mut response);
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_str(allowed).ok()?);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
        Some(response)
    }
}

/// Reads an origin as a browser sends it: scheme, host, and the port unless it is the scheme's own.
pub(crate) fn origin(text: &str) -> Result<HeaderValue, String> {
    let wrong = || format!("{text:?} is not an origin, as in https://app.example.com or http://localhost:3000");
    let url = url::Url::parse(text).map_err(|_| wrong())?;
    let exact = url.origin().ascii_serialization();
    let known = matches!(url.scheme(), "http" | "https");
    if known && exact == text { HeaderValue::from_str(text).map_err(|_| wrong()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for text in ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443"] {
            assert_eq!(origin(text).unwrap(), text);
        }
        for text in
            ["*", "null", "app.example.com", "https://app.example.com/", "https://App.example.com", "http://x:80"]
        {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
