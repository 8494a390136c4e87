//! Pages: limits and cursors of listings.

use axum::body::Body;
use http::{Response, StatusCode};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_log::{Order, Tenant};

use super::body::answer;
use super::call::Call;
use super::problem::Problem;

/// The largest page; more is refused, never clamped.
pub(crate) const LIMIT_MAX: usize = 250;
const LIMIT_DEFAULT: usize = 100;
/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 32;

pub(crate) fn limit(call: &Call) -> Result<usize, Problem> {
    let Some(text) = call.parameter("limit") else { return Ok(LIMIT_DEFAULT) };
    match whole_number(text).and_then(|limit| usize::try_from(limit).ok()) {
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(Problem::parameter("limit", format!("a number from 1 to {LIMIT_MAX}"))),
    }
}

/// Digits alone: Rust's own reading takes a sign too.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What was seen last, as a `nextCursor` said it; `fits` tells whether a text can be one here.
pub(crate) fn after(call: &Call, fits: impl Fn(&str) -> bool) -> Result<Option<&str>, Problem> {
    match call.parameter("after") {
        Some(text) if !fits(text) => Err(Problem::parameter("after", "the `nextCursor` of a page")),
        after => Ok(after),
    }
}

/// Whether a text is the id of something of `kind`: a UUID behind it.
pub(crate) fn is_id(text: &str, kind: &str) -> bool {
    let digits = text.strip_prefix(kind).and_then(|rest| rest.strip_prefix('_')).unwrap_or_default();
    digits.len() == ID_DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn order(call: &Call) -> Result<Order, Problem> {
    match call.parameter("order") {
        None | Some("asc") => Ok(Order::Ascending),
        Some("desc") => Ok(Order::Descending),
        Some(_) => Err(Problem::parameter("order", "asc or desc")),
    }
}

pub(crate) fn offset(call: &Call, name: &str) -> Result<Option<Offset>, Problem> {
    let parse = |text: &str| {
        whole_number(text).map(Offset).ok_or_else(|| Problem::parameter(name, "an offset: a whole number"))
    };
    call.parameter(name).map(parse).transpose()
}

pub(crate) fn time(call: &Call, name: &str) -> Result<Option<Timestamp>, Problem> {
    let parse = |text: &str| {
        // A `+` of a zone arrives as a blank when it was not percent-encoded.
        Timestamp::parse_rfc3339(&text.replace(' ', "+"))
            .ok_or_else(|| Problem::parameter(name, "a time as in 2026-11-22T10:15:30Z (RFC 3339)"))
    };
    call.parameter(name).map(parse).transpose()
}

/// The offsets between two times of recording: an exclusive start and an inclusive end.
pub(crate) async fn between(call: &Call, tenant: Tenant) -> Result<(Offset, Option<Offset>), Problem> {
    let (since, until) = (time(call, "since")?, time(call, "until")?);
    let after = match since {
        None => Offset(0),
        Some(since) => call.app.store.before(tenant, since).await?,
    };
    let through = match until {
        None => None,
        Some(until) => Some(call.app.store.before(tenant, until).await?),
    };
    Ok((after, through))
}

/// The first `limit` of what was found, and the cursor of the rest if there is one.
pub(crate) fn cut<T>(found: &[T], limit: usize, cursor: impl Fn(&T) -> String) -> (&[T], Option<String>) {
    if found.len() <= limit {
        return (found, None);
    }
    let page = &found[..limit];
    (page, page.last().map(cursor))
}

/// `{"data":[…],"nextCursor":…}` of items that are JSON already.
pub(crate) fn render(items: &[Vec<u8>], next: Option<String>) -> Response<Body> {
    let mut text = Vec::with_capacity(64 + items.iter().map(|item| item.len() + 1).sum::<usize>());
    text.extend_from_slice(b"{\"data\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(item);
    }
    text.extend_from_slice(b"],\"nextCursor\":");
    text.extend_from_slice(serde_json::Value::from(next).to_string().as_bytes());
    text.push(b'}');
    answer(StatusCode::OK, text)
}
