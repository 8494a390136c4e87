//! Reading a request's body: bounded in bytes and in time, and no form that this path does not take.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserializer;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use tidings_core::json;

use super::call::Call;
use super::kinds;
use super::problem::Problem;
use crate::control::Fault;

/// What is told of a fault in a body; the rest only repeats what was sent.
const MESSAGE_CHARS_MAX: usize = 500;
/// A reason that somebody gives.
const REASON_BYTES_MAX: usize = 1_024;

/// The body of a call, whole.
pub(crate) async fn read(call: &mut Call) -> Result<Bytes, Problem> {
    let limit = call.app.settings.body_bytes_max;
    if call.parts.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let detail = "a compressed body is not taken: send it as it is";
        return Err(Problem::new(&kinds::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    if declared(&call.parts.headers).is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let body = std::mem::replace(call.body.get_mut(), Body::empty());
    let whole = collect(body, limit);
    match tokio::time::timeout(call.app.settings.body_timeout, whole).await {
        Ok(result) => result,
        Err(_) => Err(Problem::new(&kinds::REQUEST_TIMEOUT, "the body did not arrive in time: send it faster")),
    }
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Problem::new(&kinds::MALFORMED_JSON, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + more.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        // Most bodies arrive in one piece and are not copied.
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&data);
        }
    }
    Ok(if more.is_empty() { first } else { more.freeze() })
}

fn too_large(limit: usize) -> Problem {
    let detail = format!("a request's body has at most {limit} bytes: send less at a time");
    Problem::new(&kinds::PAYLOAD_TOO_LARGE, detail).with("limitBytes", limit)
}

/// The media type of a call's body, lower case, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The body of a call as one JSON document; unknown members are refused.
pub(crate) async fn json<T: DeserializeOwned>(call: &mut Call) -> Result<T, Problem> {
    let media_type = media_type(&call.parts.headers);
    if !(media_type.is_empty() || media_type == "application/json") {
        return Err(Problem::new(&kinds::UNSUPPORTED_MEDIA_TYPE, "send application/json"));
    }
    let text = read(call).await?;
    json::check(&text, &call.app.settings.event.json).map_err(|error| Problem::violations(&[(None, error.into())]))?;
    // Otherwise an array would be taken as the members in the order of the code.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(invalid("the body is a JSON object"));
    }
    parse(&mut serde_json::Deserializer::from_slice(&text))
}

/// What `json` holds; a refusal names the member by its JSON pointer.
pub(crate) fn parse<'a, T: DeserializeOwned>(json: impl Deserializer<'a>) -> Result<T, Problem> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let mut text = String::new();
        for step in error.path() {
            match step {
                Segment::Map { key } => text.extend(["/", &key.replace('~', "~0").replace('/', "~1")]),
                Segment::Seq { index } => text.extend(["/", &index.to_string()]),
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.extend(in_terms_of_json(&error.inner().to_string()).chars().take(MESSAGE_CHARS_MAX));
        invalid(text)
    })
}

/// What serde says without the names of the code's own types.
fn in_terms_of_json(text: &str) -> String {
    let Some((before, after)) = text.split_once("expected struct ") else { return text.to_owned() };
    format!("{before}expected an object{}", after.trim_start_matches(|c: char| c.is_alphanumeric()))
}

/// A body that is JSON but not what the route takes.
pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(&kinds::INVALID_BODY, detail)
}

/// Checks why somebody gives something up or back.
pub(crate) fn check_reason(reason: &str) -> Result<(), Problem> {
    if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(invalid(format!("/reason: 1 to {REASON_BYTES_MAX} bytes, not only blanks, no control characters")));
    }
    Ok(())
}

/// A body with a member that breaks a rule.
pub(crate) fn faulty((pointer, message): Fault) -> Problem {
    invalid(format!("{pointer}: {message}"))
}

/// A JSON answer.
pub(crate) fn answer(status: StatusCode, json: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(json.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::in_terms_of_json;

    #[test]
    fn a_refusal_does_not_name_a_type_of_the_code() {
        let refusals = [
            ("invalid type: sequence, expected struct Retry", "invalid type: sequence, expected an object"),
            (
                "invalid type: map, expected a string at line 1 column 9",
                "invalid type: map, expected a string at line 1 column 9",
            ),
            (
                "invalid type: null, expected struct Retry at line 1 column 9",
                "invalid type: null, expected an object at line 1 column 9",
            ),
        ];
        for (text, told) in refusals {
            assert_eq!(in_terms_of_json(text), told);
        }
    }
}
