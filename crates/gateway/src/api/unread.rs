//! What a client still sends after it was refused is taken and dropped, within bounds: a client that writes all before
//! it reads would find the connection broken, and never see why.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http::header::EXPECT;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;

const UNREAD_BYTES_MAX: usize = 64 * 1024 * 1024;
const UNREAD_TIME: Duration = Duration::from_secs(5);

/// A body that is read to its end even if nobody wants the rest.
struct Unread(Body);

/// Makes sure that the body of a request is taken off the connection, whoever drops it.
pub(crate) fn guard(request: Request<Body>) -> Request<Body> {
    // Who waits to be asked for the body sends none of it when it is refused.
    if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
        return request;
    }
    request.map(|body| Body::new(Unread(body)))
}

impl http_body::Body for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if self.0.is_end_stream() {
            return;
        }
        let body = std::mem::take(&mut self.0);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(tokio::time::timeout(UNREAD_TIME, discard(body)));
        }
    }
}

async fn discard(mut body: Body) {
    let mut left = UNREAD_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let taken = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(taken) else { return };
        left = rest;
    }
}
