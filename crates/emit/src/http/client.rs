//! One connection to a gateway, opened again when it is gone.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::rt::{Read, Write};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::gateway::Gateway;

/// Largest answer that is read: 10,000 receipts, or a fetch of the largest events.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// To be connected, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Client {
    gateway: Gateway,
    open: Option<SendRequest<Full<Bytes>>>,
}

/// What the gateway said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// There is no answer: whether the request was taken is not known.
#[derive(Clone, Debug)]
pub(super) struct NoAnswer(pub(super) String);

impl Client {
    pub(super) fn new(gateway: Gateway) -> Self {
        Self { gateway, open: None }
    }

    /// Posts JSON; the whole exchange within `limit`. A connection is used again only after an answer that was read to its end.
    pub(super) async fn post(&mut self, route: &str, body: Bytes, limit: Duration) -> Result<Answer, NoAnswer> {
        // Taken out: dropped half way it is not used again.
        let open = self.open.take().filter(|open| open.is_ready() && !open.is_closed());
        let exchange = async {
            let mut open = match open {
                Some(open) => open,
                None => self.connect().await?,
            };
            let answer = self.exchange(&mut open, route, body).await?;
            Ok((open, answer))
        };
        let late = |_| NoAnswer(format!("no answer within {} s", limit.as_secs_f32()));
        let (open, answer) = timeout(limit, exchange).await.map_err(late)??;
        self.open = Some(open);
        Ok(answer)
    }

    async fn exchange(
        &self,
        open: &mut SendRequest<Full<Bytes>>,
        route: &str,
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let failed = |error: hyper::Error| NoAnswer(format!("the connection failed: {error}"));
        let mut request = Request::builder().method(Method::POST).uri(self.gateway.path(route));
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.gateway.headers);
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body));
        let request = request.map_err(|error| NoAnswer(format!("the request cannot be written: {error}")))?;
        let response = open.send_request(request).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| NoAnswer(format!("the answer ended early: {error}")))?;
        Ok(Answer {
            status: head.status.as_u16(),
            retry_after: retry_after.map(Duration::from_secs),
            body: body.to_bytes(),
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, NoAnswer> {
        let late = |_| NoAnswer(format!("not connected within {} s", CONNECT.as_secs()));
        timeout(CONNECT, self.dial()).await.map_err(late)?
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, NoAnswer> {
        let failed = |error: std::io::Error| NoAnswer(format!("cannot connect: {error}"));
        let socket = TcpStream::connect((self.gateway.host.as_str(), self.gateway.port)).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        #[cfg(feature = "tls")]
        if let Some(trust) = &self.gateway.trust {
            let secured = trust.secure(&self.gateway.host, socket).await;
            return speak(secured.map_err(|error| NoAnswer(format!("no secure connection: {error}")))?).await;
        }
        speak(socket).await
    }
}

async fn speak<S>(socket: S) -> Result<SendRequest<Full<Bytes>>, NoAnswer>
where
    TokioIo<S>: Read + Write + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| NoAnswer(format!("cannot connect: {error}"));
    let (open, connection) = handshake(TokioIo::new(socket)).await.map_err(failed)?;
    // Its end is seen by whoever sends next.
    tokio::spawn(connection);
    Ok(open)
}
