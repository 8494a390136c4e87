//! What every refusal owes its reader.

use std::path::Path;

use serde_json::Value;

use super::http::Answer;

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");

/// The problem of an answer, which has to be one of 4xx with a page of its own.
#[track_caller]
pub(crate) fn problem(answer: &Answer) -> Value {
    read(answer).unwrap_or_else(|fault| panic!("{fault}: {answer}"))
}

/// As [`problem`]; the error says what the answer owes.
pub(crate) fn read(answer: &Answer) -> Result<Value, String> {
    if !(400..500).contains(&answer.status) {
        return Err("not a refusal".to_owned());
    }
    if answer.header("content-type") != Some("application/problem+json") {
        return Err(format!("content-type {:?}", answer.header("content-type")));
    }
    let problem = answer.json();
    if problem["status"] != answer.status {
        return Err("another status in the body".to_owned());
    }
    for member in ["type", "title", "detail"] {
        if problem[member].as_str().is_none_or(str::is_empty) {
            return Err(format!("no {member}"));
        }
    }
    let page = Path::new(PAGES).join(format!("{}.md", slug(&problem)));
    if page.is_file() { Ok(problem) } else { Err(format!("no page {}", page.display())) }
}

/// The name of a problem's type.
pub(crate) fn slug(problem: &Value) -> &str {
    problem["type"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default()
}
