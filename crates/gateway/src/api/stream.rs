//! `GET /events/stream`: Server-Sent Events.
//!
//! Trouble that passes is told in-band or by closing: an `EventSource` gives up for good on any status but 200.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_engine::streams::feed::{Feed, Resume, resume};
use tidings_engine::streams::sse;
use tidings_log::{Event, Tenant, Unavailable};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::call::Call;
use super::page::{self, whole_number};
use super::problem::Problem;
use super::routes::Answer;
use crate::app::{App, Phase};
use crate::clock;
use crate::control::audit::Actor;

const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often a stream looks whether its key is still good.
const KEY_CHECK: Duration = Duration::from_secs(3);
/// Frames are gathered up to this size before they are written.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long a client waits before it reconnects: spread, so that a restart is not followed by all at once.
const RETRY_MS: u64 = 500;
const RETRY_SPREAD_MS: u64 = 2_500;
const LAST_EVENT_ID_BYTES_MAX: usize = 256;

pub(crate) async fn open(call: Call) -> Answer {
    let filter = call.filter()?;
    let named = flag(&call, "named")?;
    let ping = match call.parameter("ping") {
        None => false,
        Some("event") => true,
        Some(_) => return Err(Problem::parameter("ping", "only `event` is known: heartbeats that scripts can see")),
    };
    let position = position(&call)?;
    let Some(seat) = Seat::take(&call.app) else {
        return Ok(response(Body::from(sse::retry(spread(5_000)) + &sse::closing("overloaded"))));
    };
    let tenant = call.tenant().await?;
    let (cursor, resumed) = start(&call, tenant, position).await?;
    let feed = Feed::new(Arc::clone(&call.app.store), tenant, filter, cursor);
    // With its id a client that loses the connection before the first event comes back to here, not to `from`.
    let mut hello = sse::hello(cursor, spread(RETRY_MS));
    hello.push_str(&resumed.and_then(sse::resumed).unwrap_or_default());
    let live = Live {
        phase: call.app.phase.clone(),
        app: call.app,
        actor: call.principal.actor,
        feed,
        style: Style { named, ping },
        catching_up: resumed.is_some(),
        hello: Some(hello),
        heartbeat: Instant::now() + HEARTBEAT,
        key_check: Instant::now() + KEY_CHECK,
        ended: false,
        _seat: seat,
    };
    let frames = stream::unfold(live, |mut live| async move {
        live.next().await.map(|chunk| (Ok::<_, std::convert::Infallible>(chunk), live))
    });
    Ok(response(Body::from_stream(frames)))
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
enum Position {
    Latest,
    Earliest,
    After(Offset),
    Since(Timestamp),
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
async fn start(call: &Call, tenant: Tenant, position: Position) -> Result<(Offset, Option<Resume>), Problem> {
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

fn spread(base: u64) -> u64 {
    base + u64::from_be_bytes(clock::random()) % RETRY_SPREAD_MS
}

/// A place among the streams that may be open at a time.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(app: &App) -> Option<Self> {
        let taken = app.streams.fetch_add(1, Ordering::Relaxed);
        let seat = Self(Arc::clone(&app.streams));
        (taken < app.settings.streams_max).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a client wants its frames.
#[derive(Clone, Copy)]
struct Style {
    /// Each with its type as the name of the event.
    named: bool,
    /// Heartbeats as events that scripts can see.
    ping: bool,
}

/// One open stream. It buffers nothing: its cursor waits while the client does not read.
struct Live {
    app: Arc<App>,
    actor: Actor,
    feed: Feed,
    style: Style,
    catching_up: bool,
    hello: Option<String>,
    heartbeat: Instant,
    key_check: Instant,
    phase: watch::Receiver<Phase>,
    ended: bool,
    _seat: Seat,
}

/// What a stream does next.
enum Turn {
    Events(Vec<Arc<Event>>),
    Beat,
    CheckKey,
    Drain,
    Trouble(Unavailable),
}

impl Live {
    /// The next piece of the body; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(hello) = self.hello.take() {
            return Some(hello.into());
        }
        loop {
            if self.catching_up && self.app.store.extent(self.feed.tenant()).head <= self.feed.cursor() {
                self.catching_up = false;
                return Some(sse::complete(self.feed.cursor()).into());
            }
            match self.wait().await {
                Turn::Events(events) if events.is_empty() => {}
                Turn::Events(events) => return Some(self.frames(&events)),
                Turn::Beat => return Some(self.beat()),
                Turn::CheckKey => {
                    if !self.app.keys.still_good(&self.actor, clock::now()) {
                        return Some(self.end("revoked"));
                    }
                    self.key_check = Instant::now() + KEY_CHECK;
                }
                Turn::Drain => return Some(self.end("drain")),
                Turn::Trouble(error) => {
                    tracing::warn!(%error, "a stream ends");
                    return Some(self.end("unavailable"));
                }
            }
        }
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self) -> Turn {
        tokio::select! {
            biased;
            _ = self.phase.wait_for(|phase| *phase >= Phase::Draining) => Turn::Drain,
            // Before the events: a stream that is never idle ends with its key too, and its heart beats.
            () = sleep_until(self.key_check) => Turn::CheckKey,
            () = sleep_until(self.heartbeat) => Turn::Beat,
            found = self.feed.next() => found.map_or_else(Turn::Trouble, Turn::Events),
        }
    }

    /// Frames of what was found, and of what is there already behind it.
    fn frames(&mut self, events: &[Arc<Event>]) -> Bytes {
        let mut chunk = Vec::with_capacity(1024 * events.len().min(64));
        for event in events {
            sse::event(&mut chunk, event, self.style.named);
        }
        while chunk.len() < CHUNK_BYTES
            && let Some(more) = self.feed.ready()
        {
            for event in &more {
                sse::event(&mut chunk, event, self.style.named);
            }
        }
        self.heartbeat = Instant::now() + HEARTBEAT;
        chunk.into()
    }

    fn beat(&mut self) -> Bytes {
        self.heartbeat = Instant::now() + HEARTBEAT;
        let mut text = sse::keepalive(self.feed.is_filtered().then(|| self.feed.cursor()));
        if self.style.ping {
            text.push_str("event: ping\ndata: {}\n\n");
        }
        text.into()
    }

    fn end(&mut self, reason: &str) -> Bytes {
        self.ended = true;
        (sse::retry(spread(RETRY_MS)) + &sse::closing(reason)).into()
    }
}
