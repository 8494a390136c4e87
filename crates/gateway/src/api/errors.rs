//! `GET /errors/{slug}`: what a problem's `type` leads to.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use super::call::Call;
use super::kinds;
use super::problem::Problem;
use super::routes::Answer;

/// The page about one problem type, from `docs/errors`.
pub(crate) async fn page(call: Call) -> Answer {
    let slug = call.path_value()?;
    let kind = kinds::ALL.iter().find(|kind| kind.slug == slug).ok_or_else(|| Problem::not_found("problem type"))?;
    let mut response = Response::new(Body::from(kind.page));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/markdown; charset=utf-8"));
    Ok(response)
}
