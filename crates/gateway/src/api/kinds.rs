//! The problem types: a stable name, a status, a title, and a page in `docs/errors` each.

use http::StatusCode;

/// A problem type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The last part of its `type`, and the name of its page.
    pub(crate) slug: &'static str,
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// What it is, for people.
    pub(crate) title: &'static str,
}

const fn kind(slug: &'static str, status: StatusCode, title: &'static str) -> Kind {
    Kind { slug, status, title }
}

pub(crate) const MALFORMED_JSON: Kind = kind("malformed-json", StatusCode::BAD_REQUEST, "The body is not valid JSON");
pub(crate) const JSON_TOO_COMPLEX: Kind =
    kind("json-too-complex", StatusCode::BAD_REQUEST, "The JSON is nested too deep or has too many members");
pub(crate) const DUPLICATE_KEY: Kind = kind("duplicate-key", StatusCode::BAD_REQUEST, "An object names a member twice");
pub(crate) const INVALID_UTF8: Kind = kind("invalid-utf8", StatusCode::BAD_REQUEST, "The body is not UTF-8");
pub(crate) const INVALID_EVENT: Kind =
    kind("invalid-event", StatusCode::UNPROCESSABLE_ENTITY, "The event breaks a rule of the envelope");
pub(crate) const INVALID_BODY: Kind = kind("invalid-body", StatusCode::UNPROCESSABLE_ENTITY, "The body breaks a rule");
pub(crate) const INVALID_PARAMETER: Kind =
    kind("invalid-parameter", StatusCode::BAD_REQUEST, "A parameter is unknown, malformed or out of range");
pub(crate) const INVALID_HEADER: Kind =
    kind("invalid-header", StatusCode::BAD_REQUEST, "A request header is malformed");
pub(crate) const PAYLOAD_TOO_LARGE: Kind =
    kind("payload-too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is over the limit");
pub(crate) const UNSUPPORTED_MEDIA_TYPE: Kind =
    kind("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body has a form that this path does not take");
pub(crate) const REQUEST_TIMEOUT: Kind =
    kind("request-timeout", StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time");
pub(crate) const UNAUTHORIZED: Kind = kind("unauthorized", StatusCode::UNAUTHORIZED, "A valid API key is needed");
pub(crate) const FORBIDDEN: Kind = kind("forbidden", StatusCode::FORBIDDEN, "The key does not allow this");
pub(crate) const NOT_FOUND: Kind = kind("not-found", StatusCode::NOT_FOUND, "There is no such thing");
pub(crate) const METHOD_NOT_ALLOWED: Kind =
    kind("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "The path does not take this method");
pub(crate) const EVENT_ID_CONFLICT: Kind =
    kind("event-id-conflict", StatusCode::CONFLICT, "The eventId is taken by other content");
pub(crate) const SEQUENCE_CONFLICT: Kind =
    kind("sequence-conflict", StatusCode::CONFLICT, "The aggregate has moved on");
pub(crate) const CONFLICT: Kind = kind("conflict", StatusCode::CONFLICT, "The state does not allow this");
pub(crate) const IDEMPOTENCY_KEY_REUSED: Kind =
    kind("idempotency-key-reused", StatusCode::UNPROCESSABLE_ENTITY, "The Idempotency-Key came with another body");
pub(crate) const OVERLOADED: Kind = kind("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Too much is waiting");
pub(crate) const DISK_FULL: Kind = kind("disk-full", StatusCode::INSUFFICIENT_STORAGE, "The disk is full");
pub(crate) const LOG_UNAVAILABLE: Kind =
    kind("log-unavailable", StatusCode::SERVICE_UNAVAILABLE, "The log cannot be reached");
pub(crate) const DAMAGED: Kind = kind("damaged", StatusCode::INTERNAL_SERVER_ERROR, "What is stored is damaged");
pub(crate) const NOT_READY: Kind =
    kind("not-ready", StatusCode::SERVICE_UNAVAILABLE, "The server is starting or stopping");
pub(crate) const DEV_ONLY: Kind = kind("dev-only", StatusCode::FORBIDDEN, "Only a development server does this");
pub(crate) const INTERNAL: Kind = kind("internal", StatusCode::INTERNAL_SERVER_ERROR, "A fault of ours");

/// Every problem type.
pub(crate) const ALL: &[&Kind] = &[
    &MALFORMED_JSON,
    &JSON_TOO_COMPLEX,
    &DUPLICATE_KEY,
    &INVALID_UTF8,
    &INVALID_EVENT,
    &INVALID_BODY,
    &INVALID_PARAMETER,
    &INVALID_HEADER,
    &PAYLOAD_TOO_LARGE,
    &UNSUPPORTED_MEDIA_TYPE,
    &REQUEST_TIMEOUT,
    &UNAUTHORIZED,
    &FORBIDDEN,
    &NOT_FOUND,
    &METHOD_NOT_ALLOWED,
    &EVENT_ID_CONFLICT,
    &SEQUENCE_CONFLICT,
    &CONFLICT,
    &IDEMPOTENCY_KEY_REUSED,
    &OVERLOADED,
    &DISK_FULL,
    &LOG_UNAVAILABLE,
    &DAMAGED,
    &NOT_READY,
    &DEV_ONLY,
    &INTERNAL,
];
