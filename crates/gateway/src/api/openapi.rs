//! What the API promises, as a document. A test keeps it in step with the route table.

use http::StatusCode;

use super::body::answer;
use super::call::Call;
use super::routes::Answer;

pub(crate) const DOCUMENT: &str = include_str!("../../../../openapi.json");

pub(crate) async fn document(_call: Call) -> Answer {
    Ok(answer(StatusCode::OK, DOCUMENT))
}
