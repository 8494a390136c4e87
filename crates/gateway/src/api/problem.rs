//! Refusals as RFC 9457 problems. The only place that knows status codes of errors.

use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::Body;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value};
use tidings_core::key::Scope;
use tidings_core::problem::{Rule, Violation};
use tidings_log::{CommitError, Refusal, Unavailable};

use super::kinds::{self, Kind};
use crate::clock;

/// Where the pages about problems are: a reference that leads to the server that answered (RFC 9457 §3.1.1).
const PAGES: &str = "/errors/";
/// What a client waits before it tries again when there is too much to do, or no room.
const RETRY_SECONDS: u64 = 2;

/// A refusal: what is wrong, and the way out.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    kind: &'static Kind,
    detail: String,
    members: Box<Map<String, Value>>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), members: Box::default(), headers: Vec::new() }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.kind.status
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// No key, or one that does not open anything: one text for all, so that nothing can be probed.
    pub(crate) fn unauthorized() -> Self {
        let detail = "send a valid API key as `Authorization: Bearer tdg_…`; keys are made with `tidings keys create`";
        Self::new(&kinds::UNAUTHORIZED, detail).header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// The key has not the scope that this takes.
    pub(crate) fn lacks(scope: Scope) -> Self {
        let detail = format!("this takes a key with scope `{scope}`: {}", scope.meaning());
        Self::new(&kinds::FORBIDDEN, detail).with("scope", scope.as_str())
    }

    /// There is no such thing, or it belongs to somebody else: the answer is the same.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(&kinds::NOT_FOUND, format!("there is no such {what}"))
    }

    pub(crate) fn method_not_allowed(allowed: &str) -> Self {
        let detail = format!("this path takes {allowed}");
        let allow = HeaderValue::from_str(allowed).unwrap_or(HeaderValue::from_static("GET"));
        Self::new(&kinds::METHOD_NOT_ALLOWED, detail).header(ALLOW, allow)
    }

    pub(crate) fn parameter(name: &str, message: impl AsRef<str>) -> Self {
        Self::new(&kinds::INVALID_PARAMETER, format!("parameter `{name}`: {}", message.as_ref()))
            .with("parameter", name)
    }

    /// What is wrong with one JSON text, or with items of a batch.
    pub(crate) fn violations(found: &[(Option<usize>, Violation)]) -> Self {
        let gate = found.iter().find_map(|(_, violation)| gate_kind(violation.rule));
        let kind = gate.unwrap_or(&kinds::INVALID_EVENT);
        let detail = match found {
            [(index, violation)] => sentence(*index, violation),
            _ => format!("{} things are wrong, see `errors`", found.len()),
        };
        let errors: Vec<Value> = found.iter().map(|(index, violation)| error(*index, violation)).collect();
        Self::new(kind, detail).with("errors", errors)
    }

    /// In a batch the gate's faults are the event's: the rest of the body was readable.
    pub(crate) fn in_batch(mut self) -> Self {
        self.kind = &kinds::INVALID_EVENT;
        self
    }

    /// When it is worth while to try again, in milliseconds.
    pub(crate) fn retry_after_millis(&self) -> Option<u64> {
        let (_, seconds) = self.headers.iter().find(|(name, _)| *name == RETRY_AFTER)?;
        Some(seconds.to_str().ok()?.parse::<u64>().ok()? * 1_000)
    }

    pub(crate) fn into_json(self) -> Value {
        let mut body = Map::new();
        body.insert("type".into(), format!("{PAGES}{}", self.kind.slug).into());
        body.insert("title".into(), self.kind.title.into());
        body.insert("status".into(), self.kind.status.as_u16().into());
        body.insert("detail".into(), self.detail.into());
        body.extend(*self.members);
        Value::Object(body)
    }

    pub(crate) fn into_response(mut self) -> Response<Body> {
        let (status, headers) = (self.status(), std::mem::take(&mut self.headers));
        let mut response = Response::new(Body::from(self.into_json().to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().extend(headers);
        response
    }
}

/// The problem types of the JSON gate; other rules are about the event.
fn gate_kind(rule: Rule) -> Option<&'static Kind> {
    match rule {
        Rule::Malformed => Some(&kinds::MALFORMED_JSON),
        Rule::TooDeep | Rule::TooManyKeys => Some(&kinds::JSON_TOO_COMPLEX),
        Rule::DuplicateKey => Some(&kinds::DUPLICATE_KEY),
        Rule::InvalidUtf8 => Some(&kinds::INVALID_UTF8),
        _ => None,
    }
}

fn sentence(index: Option<usize>, violation: &Violation) -> String {
    let place = match (index, violation.pointer.as_str()) {
        (None, "") => String::new(),
        (None, pointer) => format!("{pointer}: "),
        (Some(index), pointer) => format!("event {index}{}{pointer}: ", if pointer.is_empty() { "" } else { " " }),
    };
    format!("{place}{}", violation.message)
}

fn error(index: Option<usize>, violation: &Violation) -> Value {
    let mut error = Map::new();
    if let Some(index) = index {
        error.insert("index".into(), index.into());
    }
    error.insert("pointer".into(), violation.pointer.as_str().into());
    error.insert("rule".into(), violation.rule.as_str().into());
    error.insert("message".into(), violation.message.as_str().into());
    Value::Object(error)
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        let detail = match &unavailable {
            Unavailable::Busy => "more is waiting than may; nothing was kept, send it again",
            Unavailable::Full => "the disk is full; nothing was kept, send it again once there is room",
            Unavailable::Fenced(_) => "the log stopped after a disk error; the outcome is unknown, send it again",
            Unavailable::Damaged(_) => "what is stored is damaged and is not served; run `tidings audit verify`",
            Unavailable::Trouble(_) => "the log cannot be reached; the outcome is unknown, send it again",
        };
        let kind = match unavailable {
            Unavailable::Busy => &kinds::OVERLOADED,
            Unavailable::Full => &kinds::DISK_FULL,
            Unavailable::Fenced(_) | Unavailable::Trouble(_) => &kinds::LOG_UNAVAILABLE,
            Unavailable::Damaged(_) => &kinds::DAMAGED,
        };
        // A disk stays full for many requests; metrics count them all.
        if said_this_second() {
            tracing::debug!(error = %unavailable, "refused");
        } else {
            tracing::warn!(error = %unavailable, "refused");
        }
        let problem = Self::new(kind, detail);
        // Waiting mends all but damage.
        if kind == &kinds::DAMAGED { problem } else { problem.retry_after(RETRY_SECONDS) }
    }
}

/// Whether such a thing was said in this second already.
fn said_this_second() -> bool {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let second = clock::now().as_millis() / 1_000;
    LAST.swap(second, Ordering::Relaxed) == second
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let refusal = match error {
            CommitError::Unavailable(unavailable) => return unavailable.into(),
            CommitError::Refused(refusal) => refusal,
        };
        match refusal {
            Refusal::IdTaken { index } => Self::new(
                &kinds::EVENT_ID_CONFLICT,
                "this eventId belongs to an event with other content: send a new id, or the same content",
            )
            .with("index", index),
            Refusal::Sequence { index, current } => Self::new(
                &kinds::SEQUENCE_CONFLICT,
                format!("the aggregate's last sequenceNumber is {current}: read what is new and decide again"),
            )
            .with("index", index)
            .with("currentSequence", current),
            Refusal::RequestKeyReused => Self::new(
                &kinds::IDEMPOTENCY_KEY_REUSED,
                "this Idempotency-Key came with another body within 24 hours: use a new key for a new request",
            ),
            Refusal::NoSuchEvent => Self::not_found("event"),
            Refusal::Revision => {
                Self::new(&kinds::CONFLICT, "somebody else changed it in between: read it and try again")
            }
        }
    }
}

/// The answer to what should not happen. The cause is logged, not told.
pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%cause, "internal error");
    Problem::new(&kinds::INTERNAL, "a fault of ours, see the server's log; the outcome is unknown")
}
