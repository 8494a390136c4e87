//! Bodies of commands: a JSON document that may be left out, and one that changes another (RFC 7396).

use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tidings_core::json;

use super::body::{self, invalid, media_type};
use super::call::Call;
use super::kinds;
use super::problem::Problem;

const MERGE_PATCH: &str = "application/merge-patch+json";

/// A command that says nothing more.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plain {}

/// The body of a call as one JSON document, or the default if there is no body.
pub(crate) async fn optional<T: DeserializeOwned + Default>(call: &mut Call) -> Result<T, Problem> {
    let media_type = media_type(&call.parts.headers);
    let text = body::read(call).await?;
    if text.is_empty() {
        return Ok(T::default());
    }
    if !(media_type.is_empty() || media_type == "application/json") {
        return Err(Problem::new(&kinds::UNSUPPORTED_MEDIA_TYPE, "send application/json, or no body"));
    }
    body::parse(Value::Object(object(call, &text)?))
}

/// The body of a call as a merge patch.
pub(crate) async fn patch(call: &mut Call) -> Result<Map<String, Value>, Problem> {
    let media_type = media_type(&call.parts.headers);
    if call.parts.headers.contains_key(CONTENT_TYPE) && ![MERGE_PATCH, "application/json"].contains(&&*media_type) {
        let detail = format!("send {MERGE_PATCH} or application/json");
        return Err(Problem::new(&kinds::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let text = body::read(call).await?;
    object(call, &text)
}

fn object(call: &Call, text: &[u8]) -> Result<Map<String, Value>, Problem> {
    json::check(text, &call.app.settings.event.json).map_err(|error| Problem::violations(&[(None, error.into())]))?;
    match serde_json::from_slice(text) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(invalid("the body is a JSON object")),
    }
}

/// Merges `patch` into `target`: members that are null go, objects merge, all else replaces.
pub(crate) fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match (value, target.get_mut(&name)) {
            (Value::Null, _) => drop(target.remove(&name)),
            (Value::Object(patch), Some(Value::Object(target))) => merge(target, patch),
            (Value::Object(patch), _) => {
                let mut fresh = Map::new();
                merge(&mut fresh, patch);
                target.insert(name, fresh.into());
            }
            (value, _) => drop(target.insert(name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Of RFC 7396, appendix A, those whose patch and target are objects.
    #[test]
    fn the_examples_of_the_standard_come_out() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (target, patch, expected) in cases {
            let (Value::Object(mut merged), Value::Object(patch)) = (target, patch) else { unreachable!() };
            merge(&mut merged, patch);
            assert_eq!(Value::Object(merged), expected);
        }
    }
}
