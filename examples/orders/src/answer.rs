//! What a handler ends with when it does not end well.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tidings_emit::EmitError;

/// A status and a reason for the caller.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

/// The reason is for the log; the caller learns only that it was ours.
impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        eprintln!("database: {error}");
        Self(StatusCode::INTERNAL_SERVER_ERROR, "our fault: try again".into())
    }
}

impl From<EmitError<sqlx::Error>> for Failure {
    fn from(error: EmitError<sqlx::Error>) -> Self {
        eprintln!("outbox: {error}");
        Self(StatusCode::INTERNAL_SERVER_ERROR, "our fault: try again".into())
    }
}
