//! `POST /events`: one event, an array, NDJSON, or CloudEvents in three forms.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tidings_core::cloudevents;
use tidings_core::event::{Defaults, Draft, EventLimits};
use tidings_core::json;
use tidings_core::problem::Violation;
use tidings_core::trace::{Context, TRACEPARENT};
use tidings_log::store::{Prepared, RequestKey};
use tidings_log::{Append, Appended, Write, Written};

use super::body::{self, answer};
use super::call::Call;
use super::kinds;
use super::problem::{Problem, internal};
use super::routes::Answer;
use crate::clock;
use crate::telemetry::trace::{Kind, Open, Tracer};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Violations of a batch that are told.
const VIOLATIONS_MAX: usize = 100;

/// What a body holds.
enum Batch {
    /// One event: the answer speaks of one.
    One(Draft),
    /// Any number of them.
    Many(Vec<Draft>),
}

/// Publishes, and records it in the trace of the request.
pub(crate) async fn publish(call: Call) -> Answer {
    let header = trace_header(&call.parts.headers);
    let tracer = call.app.tracer.clone();
    let mut causes = Causes { header, open: tracer.as_ref().and_then(|tracer| tracer.begin(header)) };
    let tenant = causes.open.map(|_| call.tenant.as_str().to_owned());
    let answer = keep(call, &mut causes).await;
    if let (Some(tracer), Some(open), Some(tenant)) = (tracer, causes.open, tenant) {
        let status = answer.as_ref().map_or_else(Problem::status, Response::status);
        let fault = status.is_server_error().then(|| status.to_string());
        let attributes = vec![
            ("http.request.method", "POST".into()),
            ("http.route", "/events".into()),
            ("http.response.status_code", status.as_u16().into()),
            ("tidings.tenant", tenant.into()),
        ];
        tracer.end(open, ("POST /events", Kind::Server), attributes, fault);
    }
    answer
}

/// What a request is part of.
struct Causes {
    /// The publisher's span, by the header.
    header: Option<Context>,
    /// The request's own, if it is recorded.
    open: Option<Open>,
}

impl Causes {
    /// One event that names its own trace, without a header: then the request is part of that.
    fn adopt(&mut self, drafts: &[Draft]) {
        if let ([draft], None, Some(open)) = (drafts, self.header, self.open) {
            let own = draft.metadata.iter().find(|(name, _)| &**name == TRACEPARENT);
            let parent = own.and_then(|(_, text)| Context::parse(text));
            self.open = Some(parent.map_or(open, |parent| open.under(parent)));
        }
    }

    /// What events get that name no trace of their own.
    fn traceparent(&self) -> Option<String> {
        self.open.map(|open| open.context).or(self.header).map(|context| context.to_string())
    }
}

/// The publisher's span. A header that is none counts as left out, as the standard wants it.
fn trace_header(headers: &HeaderMap) -> Option<Context> {
    headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(|text| Context::parse(text.trim()))
}

async fn keep(mut call: Call, causes: &mut Causes) -> Answer {
    let request = request_key(&call)?;
    let text = body::read(&mut call).await?;
    let request = request.map(|key| RequestKey { key, body: Sha256::digest(&text).into() });
    let batch = parse(&call, &text)?;
    let (single, drafts) = match batch {
        Batch::One(draft) => (true, vec![draft]),
        Batch::Many(drafts) => (false, drafts),
    };
    within_walls(&call, &drafts)?;
    let tenant = call.tenant().await?;
    let now = clock::now();
    causes.adopt(&drafts);
    let traceparent = causes.traceparent();
    let encode = |draft: Draft| {
        let defaults = Defaults { now, source: &call.app.settings.source, random: clock::random() };
        match &traceparent {
            Some(traceparent) => draft.encode_traced(&defaults, traceparent),
            None => draft.encode(&defaults),
        }
    };
    let events: Vec<_> = drafts.into_iter().map(|draft| Prepared::new(tenant, encode(draft))).collect();
    let (count, commit) = (events.len(), begin_commit(&call, causes));
    let written = call.app.store.commit(now, vec![Write::Append(Append { tenant, events, request })]).await;
    if let Some((tracer, open)) = commit {
        let fault = written.as_ref().err().map(ToString::to_string);
        tracer.end(open, ("commit", Kind::Internal), vec![("tidings.events", count.into())], fault);
    }
    let written = written?;
    let [Written::Appended { results, replayed }] = &written[..] else {
        return Err(internal(&format!("unexpected answer {written:?}")));
    };
    Ok(accepted(results, *replayed, single))
}

fn begin_commit<'a>(call: &'a Call, causes: &Causes) -> Option<(&'a Tracer, Open)> {
    let (tracer, request) = (call.app.tracer.as_ref()?, causes.open?);
    Some((tracer, tracer.begin(Some(request.context))?))
}

fn accepted(results: &[Appended], replayed: bool, single: bool) -> http::Response<axum::body::Body> {
    let duplicates = results.iter().filter(|result| result.duplicate).count();
    // Nothing new was made: 200. A request that held no events made nothing either.
    let status = if duplicates == results.len() { StatusCode::OK } else { StatusCode::CREATED };
    let mut text = String::with_capacity(64 + 128 * results.len());
    if let ([result], true) = (results, single) {
        render(&mut text, result);
    } else {
        let accepted = results.len() - duplicates;
        // Writing to a String cannot fail.
        let _ = write!(text, "{{\"accepted\":{accepted},\"duplicates\":{duplicates},\"results\":[");
        for (index, result) in results.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            render(&mut text, result);
        }
        text.push_str("]}");
    }
    let mut response = answer(status, text);
    if replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn render(text: &mut String, result: &Appended) {
    // Ids have no character that JSON escapes. Writing to a String cannot fail.
    let _ = write!(text, "{{\"eventId\":\"{}\",\"offset\":{},\"sequenceNumber\":", result.id.as_str(), result.offset);
    let _ = match result.sequence {
        Some(sequence) => write!(text, "{sequence}"),
        None => write!(text, "null"),
    };
    let _ = write!(text, ",\"duplicate\":{}}}", result.duplicate);
}

fn parse(call: &Call, text: &Bytes) -> Result<Batch, Problem> {
    let limits = &call.app.settings.event;
    let headers = &call.parts.headers;
    let media_type = body::media_type(headers);
    match media_type.as_str() {
        _ if headers.contains_key("ce-specversion") && !media_type.starts_with("application/cloudevents") => {
            let attributes = ce_headers(headers)?;
            let pairs: Vec<_> = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            one(cloudevents::from_binary(&pairs, text, limits))
        }
        "" | "application/json" => match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[') => array(call, text, Draft::parse),
            _ => one(Draft::parse(text, limits)),
        },
        "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines" => lines(call, text),
        "application/cloudevents+json" => one(cloudevents::from_structured(text, limits)),
        "application/cloudevents-batch+json" => array(call, text, cloudevents::from_structured),
        other => {
            let detail = format!(
                "`{other}` is not taken here: send application/json, application/x-ndjson, \
                 application/cloudevents+json or application/cloudevents-batch+json"
            );
            Err(Problem::new(&kinds::UNSUPPORTED_MEDIA_TYPE, detail))
        }
    }
}

fn one(draft: Result<Draft, Vec<Violation>>) -> Result<Batch, Problem> {
    draft.map(Batch::One).map_err(|found| {
        let found: Vec<_> = found.into_iter().map(|violation| (None, violation)).collect();
        Problem::violations(&found)
    })
}

type Parse = fn(&Bytes, &EventLimits) -> Result<Draft, Vec<Violation>>;

fn array(call: &Call, text: &Bytes, parse: Parse) -> Result<Batch, Problem> {
    let max = call.app.settings.batch_events_max;
    let mut elements = Vec::new();
    let mut count = 0;
    // Depth and members are bounded for each event by its own limits; here the array itself is split.
    let limits = json::Limits { depth_max: json::Limits::DEPTH_CEILING, keys_max: usize::MAX };
    json::array(text, &limits, |element| {
        count += 1;
        if count <= max {
            elements.push(text.slice_ref(element));
        }
    })
    .map_err(|error| Problem::violations(&[(None, error.into())]))?;
    too_many(count, max)?;
    many(elements.iter(), parse, &call.app.settings.event)
}

fn lines(call: &Call, text: &Bytes) -> Result<Batch, Problem> {
    let max = call.app.settings.batch_events_max;
    let lines: Vec<Bytes> = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.iter().all(u8::is_ascii_whitespace))
        .map(|line| text.slice_ref(line))
        .collect();
    too_many(lines.len(), max)?;
    many(lines.iter(), Draft::parse, &call.app.settings.event)
}

fn too_many(count: usize, max: usize) -> Result<(), Problem> {
    if count > max {
        let detail = format!("{count} events in one request, at most {max} are taken: send several requests");
        return Err(Problem::new(&kinds::PAYLOAD_TOO_LARGE, detail).with("limitEvents", max));
    }
    Ok(())
}

/// A batch is atomic: one invalid item refuses all, and every fault is told with its index.
fn many<'a>(texts: impl Iterator<Item = &'a Bytes>, parse: Parse, limits: &EventLimits) -> Result<Batch, Problem> {
    let mut drafts = Vec::new();
    let mut found = Vec::new();
    for (index, text) in texts.enumerate() {
        match parse(text, limits) {
            Ok(draft) => drafts.push(draft),
            Err(violations) => found.extend(violations.into_iter().map(|violation| (Some(index), violation))),
        }
        if found.len() >= VIOLATIONS_MAX {
            break;
        }
    }
    if !found.is_empty() {
        found.truncate(VIOLATIONS_MAX);
        return Err(Problem::violations(&found).in_batch());
    }
    if drafts.is_empty() {
        return Err(body::invalid("the batch holds no event: send at least one"));
    }
    Ok(Batch::Many(drafts))
}

fn ce_headers(headers: &HeaderMap) -> Result<Vec<(String, String)>, Problem> {
    let wanted = headers.iter().filter(|(name, _)| name.as_str().starts_with("ce-") || *name == "content-type");
    wanted
        .map(|(name, value)| {
            let value = value.to_str().map_err(|_| {
                let detail = format!("header {name}: percent-encode what is not printable ASCII");
                Problem::new(&kinds::INVALID_HEADER, detail)
            })?;
            Ok((name.as_str().to_owned(), value.to_owned()))
        })
        .collect()
}

/// A confined key publishes into its own channels only.
fn within_walls(call: &Call, drafts: &[Draft]) -> Result<(), Problem> {
    let Some(walls) = &call.principal.channels else { return Ok(()) };
    for (index, draft) in drafts.iter().enumerate() {
        let inside = !draft.channels.is_empty() && draft.channels.iter().all(|channel| walls.contains(channel));
        if !inside {
            let detail = "this key is confined to channels: every event names at least one of them and no other";
            return Err(Problem::new(&kinds::FORBIDDEN, detail).with("index", index));
        }
    }
    Ok(())
}

/// The digest of who repeats what: tenant, method, path and `Idempotency-Key`.
fn request_key(call: &Call) -> Result<Option<[u8; 32]>, Problem> {
    let Some(value) = call.parts.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim();
    // A structured-field string (RFC 8941) may come in quotes; they are not part of the key.
    let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    let fits = key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || !fits {
        let detail = format!("Idempotency-Key: 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters");
        return Err(Problem::new(&kinds::INVALID_HEADER, detail));
    }
    let mut hasher = Sha256::new();
    for part in [call.tenant.as_str(), call.parts.method.as_str(), call.parts.uri.path(), key] {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    }
    Ok(Some(hasher.finalize().into()))
}
