//! Probes.

use http::StatusCode;

use super::body::answer;
use super::call::Call;
use super::kinds;
use super::problem::Problem;
use super::routes::Answer;
use crate::app::Phase;

/// The process answers.
pub(crate) async fn live(_call: Call) -> Answer {
    Ok(answer(StatusCode::OK, r#"{"status":"live"}"#))
}

/// The server may be sent requests.
pub(crate) async fn ready(call: Call) -> Answer {
    match call.app.phase() {
        Phase::Ready => Ok(answer(StatusCode::OK, r#"{"status":"ready"}"#)),
        _ => Err(Problem::new(&kinds::NOT_READY, "the server is starting or stopping")),
    }
}
