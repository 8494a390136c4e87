//! `GET /events/stream`: Server-Sent Events.
//!
//! Trouble that passes is told in-band or by closing: an `EventSource` gives up for good on any status but 200.

pub(crate) mod wire;

use std::sync::Arc;

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response};
use serde_json::Value;
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_engine::streams::guest::{Ending, Guest, Pass, Style, Wants};
use tidings_engine::streams::resume::{Resume, resume};
use tidings_engine::streams::{RETRY_MS, RETRY_SPREAD_MS, sse};
use tidings_log::Tenant;

use self::wire::{Peer, Wire};
use super::body;
use super::call::Call;
use super::page::{self, whole_number};
use super::problem::{Problem, internal};
use super::routes::Answer;
use super::tickets;
use crate::clock;
use crate::control::tickets::Turn;

const LAST_EVENT_ID_BYTES_MAX: usize = 256;

pub(crate) async fn open(call: Call) -> Answer {
    let filter = call.filter()?;
    tickets::foreign(call.principal.channels.as_deref(), &filter.channels, false)?;
    let style = style(&call)?;
    let position = position(&call)?;
    let tenant = call.tenant().await?;
    let address = call.parts.extensions.get::<Peer>().map(|peer| peer.0);
    let Some(seat) = call.app.seats.take(call.app.settings.seats, tenant, address) else {
        let ending = Ending::Overloaded;
        return Ok(response(Body::from(sse::closing(ending, spread(ending.stay_away_ms())))));
    };
    let (cursor, resumed) = start(&call, tenant, position).await?;
    // With its id a client that loses the connection before the first event comes back to here, not to `from`.
    let mut hello = sse::hello(cursor, spread(RETRY_MS));
    hello.push_str(&resumed.and_then(sse::resumed).unwrap_or_default());
    if style.ping {
        // Scripts learn the cursor with the first block too.
        hello.push_str(sse::PING);
    }
    let turn = match &call.ticket {
        Some(grant) => Some(call.app.tickets.open(&*call.app.store, tenant, grant).await?),
        None => None,
    };
    let mut answer = response(Body::empty());
    // The head leaves with the greeting, before the route can add to the answer.
    let origins = &call.app.settings.origins;
    origins.mark(origins.of(&call.parts.headers).as_ref(), &mut answer);
    let wire = call.parts.extensions.get::<Wire>().and_then(Wire::take);
    let (socket, greeting, answer, occupied) = if let Some((socket, occupied)) = wire {
        (socket, [&wire::head(&answer, None)[..], hello.as_bytes()].concat(), answer, Some(occupied))
    } else {
        let (socket, body) = wire::body().map_err(|error| internal(&error))?;
        (socket, hello.into_bytes(), response(body), None)
    };
    let pass = pass(&call, turn, (seat, occupied));
    let wants = Wants::Stream { filter, cursor, style, replays: resumed.is_some() };
    call.app.streams.admit(Guest { socket, greeting, tenant, wants, pass });
    Ok(answer)
}

/// Whether what a call opened may stay: as long as its key, and its ticket. What is `held` is let go of with it.
pub(super) fn pass(
    call: &Call,
    turn: Option<Turn>,
    held: impl Send + 'static,
) -> Box<dyn Fn(Timestamp) -> Pass + Send> {
    let (app, actor) = (Arc::clone(&call.app), call.principal.actor.clone());
    Box::new(move |_| {
        let _ = &held;
        let key = app.keys.pass(&actor);
        turn.as_ref().map_or(key, |turn| turn.pass(key))
    })
}

fn style(call: &Call) -> Result<Style, Problem> {
    let ping = match call.parameter("ping") {
        None => false,
        Some("event") => true,
        Some(_) => return Err(Problem::parameter("ping", "only `event` is known: heartbeats that scripts can see")),
    };
    Ok(Style { named: flag(call, "named")?, ping })
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn flag(call: &Call, name: &str) -> Result<bool, Problem> {
    match call.parameter(name) {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(Problem::parameter(name, "1 or 0")),
    }
}

/// Where a client wants to begin.
pub(super) enum Position {
    Latest,
    Earliest,
    After(Offset),
    Since(Timestamp),
}

impl Position {
    /// Reads what a message says; nothing is the latest.
    pub(super) fn read(from: &Value) -> Result<Self, Problem> {
        let position = match from {
            Value::Null => Some(Self::Latest),
            Value::Number(number) => number.as_u64().map(|offset| Self::After(Offset(offset))),
            Value::String(text) => match text.as_str() {
                "latest" => Some(Self::Latest),
                "earliest" => Some(Self::Earliest),
                text => Timestamp::parse_rfc3339(text).map(Self::Since),
            },
            _ => None,
        };
        position.ok_or_else(|| body::invalid("/from: latest, earliest, an offset, or a time (RFC 3339)"))
    }
}

/// `Last-Event-ID`, then `lastEventId`, then `from`. An id that is not ours counts as none: a client keeps what
/// another server gave it.
fn position(call: &Call) -> Result<Position, Problem> {
    let header = call.parts.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let last = header.filter(|id| id.len() <= LAST_EVENT_ID_BYTES_MAX).and_then(|id| whole_number(id.trim()));
    if let Some(offset) = last {
        return Ok(Position::After(Offset(offset)));
    }
    if let Some(text) = call.parameter("lastEventId") {
        let unknown = || Problem::parameter("lastEventId", "the id of an event of this stream");
        let offset = whole_number(text).ok_or_else(unknown)?;
        return Ok(Position::After(Offset(offset)));
    }
    match call.parameter("from") {
        None | Some("latest") => Ok(Position::Latest),
        Some("earliest") => Ok(Position::Earliest),
        Some(text) => {
            if let Some(offset) = whole_number(text) {
                return Ok(Position::After(Offset(offset)));
            }
            let time = page::time(call, "from")
                .map_err(|_| Problem::parameter("from", "latest, earliest, an offset, or a time (RFC 3339)"))?;
            Ok(time.map_or(Position::Latest, Position::Since))
        }
    }
}

/// The cursor to begin after, and whether anything is replayed.
pub(super) async fn start(
    call: &Call,
    tenant: Tenant,
    position: Position,
) -> Result<(Offset, Option<Resume>), Problem> {
    let store = &call.app.store;
    let extent = store.extent(tenant);
    Ok(match position {
        Position::Latest => (extent.head, None),
        Position::Earliest => (Offset(extent.first.0.saturating_sub(1)), Some(Resume::Whole)),
        Position::Since(time) => (store.before(tenant, time).await?, Some(Resume::Whole)),
        Position::After(offset) => {
            let resumed = resume(&**store, tenant, offset);
            let cursor = match resumed {
                Resume::Whole => offset,
                Resume::Gap(first) | Resume::Reset(first) => Offset(first.0.saturating_sub(1)),
            };
            (cursor, Some(resumed))
        }
    })
}

/// A time to stay away, in milliseconds: `base` and a part of the spread.
pub(super) fn spread(base: u64) -> u64 {
    base + u64::from_be_bytes(clock::random()) % RETRY_SPREAD_MS
}
