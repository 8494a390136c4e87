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
    /// What `GET /errors/<slug>` answers: Markdown.
    pub(crate) page: &'static str,
}

const fn kind(slug: &'static str, status: StatusCode, title: &'static str, page: &'static str) -> Kind {
    Kind { slug, status, title, page }
}

pub(crate) const MALFORMED_JSON: Kind = kind(
    "malformed-json",
    StatusCode::BAD_REQUEST,
    "The body is not valid JSON",
    include_str!("../../../../docs/errors/malformed-json.md"),
);
pub(crate) const JSON_TOO_COMPLEX: Kind = kind(
    "json-too-complex",
    StatusCode::BAD_REQUEST,
    "The JSON is nested too deep or has too many members",
    include_str!("../../../../docs/errors/json-too-complex.md"),
);
pub(crate) const DUPLICATE_KEY: Kind = kind(
    "duplicate-key",
    StatusCode::BAD_REQUEST,
    "An object names a member twice",
    include_str!("../../../../docs/errors/duplicate-key.md"),
);
pub(crate) const INVALID_UTF8: Kind = kind(
    "invalid-utf8",
    StatusCode::BAD_REQUEST,
    "The body is not UTF-8",
    include_str!("../../../../docs/errors/invalid-utf8.md"),
);
pub(crate) const INVALID_EVENT: Kind = kind(
    "invalid-event",
    StatusCode::UNPROCESSABLE_ENTITY,
    "The event breaks a rule of the envelope",
    include_str!("../../../../docs/errors/invalid-event.md"),
);
pub(crate) const INVALID_BODY: Kind = kind(
    "invalid-body",
    StatusCode::UNPROCESSABLE_ENTITY,
    "The body breaks a rule",
    include_str!("../../../../docs/errors/invalid-body.md"),
);
pub(crate) const INVALID_PARAMETER: Kind = kind(
    "invalid-parameter",
    StatusCode::BAD_REQUEST,
    "A parameter is unknown, malformed or out of range",
    include_str!("../../../../docs/errors/invalid-parameter.md"),
);
pub(crate) const INVALID_HEADER: Kind = kind(
    "invalid-header",
    StatusCode::BAD_REQUEST,
    "A request header is malformed",
    include_str!("../../../../docs/errors/invalid-header.md"),
);
pub(crate) const PAYLOAD_TOO_LARGE: Kind = kind(
    "payload-too-large",
    StatusCode::PAYLOAD_TOO_LARGE,
    "The body is over the limit",
    include_str!("../../../../docs/errors/payload-too-large.md"),
);
pub(crate) const UNSUPPORTED_MEDIA_TYPE: Kind = kind(
    "unsupported-media-type",
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "The body has a form that this path does not take",
    include_str!("../../../../docs/errors/unsupported-media-type.md"),
);
pub(crate) const UPGRADE_REQUIRED: Kind = kind(
    "upgrade-required",
    StatusCode::UPGRADE_REQUIRED,
    "This path speaks WebSocket",
    include_str!("../../../../docs/errors/upgrade-required.md"),
);
pub(crate) const REQUEST_TIMEOUT: Kind = kind(
    "request-timeout",
    StatusCode::REQUEST_TIMEOUT,
    "The body did not arrive in time",
    include_str!("../../../../docs/errors/request-timeout.md"),
);
pub(crate) const UNAUTHORIZED: Kind = kind(
    "unauthorized",
    StatusCode::UNAUTHORIZED,
    "A valid API key is needed",
    include_str!("../../../../docs/errors/unauthorized.md"),
);
pub(crate) const INVALID_TICKET: Kind = kind(
    "invalid-ticket",
    StatusCode::UNAUTHORIZED,
    "The ticket does not open a stream",
    include_str!("../../../../docs/errors/invalid-ticket.md"),
);
pub(crate) const FORBIDDEN: Kind = kind(
    "forbidden",
    StatusCode::FORBIDDEN,
    "The key does not allow this",
    include_str!("../../../../docs/errors/forbidden.md"),
);
pub(crate) const NOT_FOUND: Kind = kind(
    "not-found",
    StatusCode::NOT_FOUND,
    "There is no such thing",
    include_str!("../../../../docs/errors/not-found.md"),
);
pub(crate) const METHOD_NOT_ALLOWED: Kind = kind(
    "method-not-allowed",
    StatusCode::METHOD_NOT_ALLOWED,
    "The path does not take this method",
    include_str!("../../../../docs/errors/method-not-allowed.md"),
);
pub(crate) const EVENT_ID_CONFLICT: Kind = kind(
    "event-id-conflict",
    StatusCode::CONFLICT,
    "The eventId is taken by other content",
    include_str!("../../../../docs/errors/event-id-conflict.md"),
);
pub(crate) const SEQUENCE_CONFLICT: Kind = kind(
    "sequence-conflict",
    StatusCode::CONFLICT,
    "The aggregate has moved on",
    include_str!("../../../../docs/errors/sequence-conflict.md"),
);
pub(crate) const CONFLICT: Kind = kind(
    "conflict",
    StatusCode::CONFLICT,
    "The state does not allow this",
    include_str!("../../../../docs/errors/conflict.md"),
);
pub(crate) const IDEMPOTENCY_KEY_REUSED: Kind = kind(
    "idempotency-key-reused",
    StatusCode::UNPROCESSABLE_ENTITY,
    "The Idempotency-Key came with another body",
    include_str!("../../../../docs/errors/idempotency-key-reused.md"),
);
pub(crate) const OVERLOADED: Kind = kind(
    "overloaded",
    StatusCode::SERVICE_UNAVAILABLE,
    "Too much is waiting",
    include_str!("../../../../docs/errors/overloaded.md"),
);
pub(crate) const DISK_FULL: Kind = kind(
    "disk-full",
    StatusCode::INSUFFICIENT_STORAGE,
    "The disk is full",
    include_str!("../../../../docs/errors/disk-full.md"),
);
pub(crate) const LOG_UNAVAILABLE: Kind = kind(
    "log-unavailable",
    StatusCode::SERVICE_UNAVAILABLE,
    "The log cannot be reached",
    include_str!("../../../../docs/errors/log-unavailable.md"),
);
pub(crate) const DAMAGED: Kind = kind(
    "damaged",
    StatusCode::INTERNAL_SERVER_ERROR,
    "What is stored is damaged",
    include_str!("../../../../docs/errors/damaged.md"),
);
pub(crate) const NOT_READY: Kind = kind(
    "not-ready",
    StatusCode::SERVICE_UNAVAILABLE,
    "The server is starting or stopping",
    include_str!("../../../../docs/errors/not-ready.md"),
);
pub(crate) const INTERNAL: Kind = kind(
    "internal",
    StatusCode::INTERNAL_SERVER_ERROR,
    "A fault of ours",
    include_str!("../../../../docs/errors/internal.md"),
);

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
    &UPGRADE_REQUIRED,
    &REQUEST_TIMEOUT,
    &UNAUTHORIZED,
    &INVALID_TICKET,
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
    &INTERNAL,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_page_that_names_its_title_and_status() {
        for kind in ALL {
            let heading = format!("# {}\n", kind.title);
            assert!(kind.page.starts_with(&heading), "docs/errors/{}.md starts with {heading:?}", kind.slug);
            let status = format!("`{}`, status {}", kind.slug, kind.status.as_u16());
            assert!(kind.page.contains(&status), "docs/errors/{}.md says {status:?}", kind.slug);
            let type_member = format!("\"type\": \"/errors/{}\"", kind.slug);
            assert!(kind.page.contains(&type_member), "docs/errors/{}.md shows an answer", kind.slug);
        }
    }

    #[test]
    fn a_slug_names_one_kind() {
        let slugs: BTreeSet<_> = ALL.iter().map(|kind| kind.slug).collect();
        assert_eq!(slugs.len(), ALL.len());
    }
}
