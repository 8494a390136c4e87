//! Requests and their answers, within bounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::connect::connect;
use crate::error::DoorError;
use crate::pool::{Pool, Sender};
use crate::target::Target;

/// How much of an answer's body is read; then the connection is closed.
pub const BODY_BYTES_MAX: usize = 16 << 10;
/// How much of an answer is buffered: a head that is larger, give or take one read, is an error.
pub const HEAD_BYTES_MAX: usize = 32 << 10;

/// The way out. One for the process: it keeps idle connections, at most [`crate::IDLE_MAX`] an endpoint, for 30 s.
#[derive(Default)]
pub struct Door {
    pool: Arc<Pool>,
}

/// What the other side said.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status, whatever it is; redirects are not followed.
    pub status: StatusCode,
    /// The `retry-after` header as it came.
    pub retry_after: Option<HeaderValue>,
    /// The body, or its first [`BODY_BYTES_MAX`] bytes.
    pub body_start: Bytes,
}

impl Door {
    /// A door without connections. It is used within a tokio runtime.
    pub fn new() -> Self {
        Self::default()
    }

    /// Posts `body` with `headers` (`host` and `content-length` are added). `timeout` covers everything, from the
    /// look-up to the end of the answer's body.
    pub async fn post(
        &self,
        target: &Target,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response, DoorError> {
        let attempt = self.exchange(target, request(target, headers, body));
        tokio::time::timeout(timeout, attempt).await.unwrap_or(Err(DoorError::Timeout))
    }

    async fn exchange(&self, target: &Target, request: Request<Full<Bytes>>) -> Result<Response, DoorError> {
        let (sender, answer) = self.send(target, request).await?;
        let (parts, body) = answer.into_parts();
        let (body_start, whole) = read(body).await?;
        if whole {
            self.pool.put(&target.endpoint, sender);
        }
        let retry_after = parts.headers.get(RETRY_AFTER).cloned();
        Ok(Response { status: parts.status, retry_after, body_start })
    }

    async fn send(
        &self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Sender, http::Response<Incoming>), DoorError> {
        if let Some(mut sender) = self.pool.take(&target.endpoint).await {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((sender, answer)),
                // The peer closed while it was idle, and nothing was written: the same request, on a fresh connection.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = connect(target).await?;
        let answer = sender.send_request(request).await?;
        Ok((sender, answer))
    }
}

fn request(target: &Target, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path.clone();
    *request.headers_mut() = headers;
    request.headers_mut().insert(HOST, target.authority.clone());
    request
}

/// The start of a body, and whether that was all.
async fn read(mut body: Incoming) -> Result<(Bytes, bool), DoorError> {
    let mut start = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        // Nearly every answer is of one frame, which need not be copied.
        if start.is_empty() {
            start = data;
        } else {
            more.extend_from_slice(&data);
        }
        if start.len() + more.len() > BODY_BYTES_MAX {
            return Ok((joined(start, &more), false));
        }
    }
    Ok((joined(start, &more), true))
}

fn joined(start: Bytes, more: &[u8]) -> Bytes {
    let mut all = if more.is_empty() { start } else { Bytes::from([&start, more].concat()) };
    all.truncate(BODY_BYTES_MAX);
    all
}
