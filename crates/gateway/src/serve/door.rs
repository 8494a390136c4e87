//! The front door: streams and WebSockets leave HTTP early.
//!
//! The first request of a connection is looked at before anybody takes it. One for `/events/stream` or `/events/ws` is read
//! here, admitted as any other, and its socket goes to a shard of streams; for all others nothing was taken and HTTP begins as always.

use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::listen::{HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX};
use crate::api::stream::wire::{Occupied, Peer, Wire, head};

/// How a request begins that is for here; a blank or a question mark follows.
const ASKED: [&[u8]; 2] = [b"GET /events/stream", b"GET /events/ws"];
/// The longest of these.
const ASKED_BYTES_MAX: usize = ASKED[0].len();
/// A request that comes in crumbs is looked at again after this time.
const CRUMBS: Duration = Duration::from_millis(2);
/// How long a client may take to read a refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer to what is no request at all.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What a connection turned out to be.
pub(super) enum Entrance {
    /// HTTP: nothing was read.
    Http(TcpStream, Occupied),
    /// It has been seen to.
    Done,
}

/// Looks at the first request of a connection, and sees to it if it is for a stream.
pub(super) async fn enter(stream: TcpStream, peer: IpAddr, occupied: Occupied, router: &Router) -> Entrance {
    // Who says nothing in time is HTTP's to deal with.
    match timeout(HEAD_TIMEOUT, is_for_streams(&stream)).await {
        Ok(Some(true)) => {}
        Ok(None) => return Entrance::Done,
        Ok(Some(false)) | Err(_) => return Entrance::Http(stream, occupied),
    }
    if let Ok(Some((stream, request))) = timeout(HEAD_TIMEOUT, read(stream)).await {
        open(stream, request, peer, occupied, router).await;
    }
    Entrance::Done
}

/// Whether the first request is for here; `None` if there is none.
async fn is_for_streams(stream: &TcpStream) -> Option<bool> {
    let mut first = [0; ASKED_BYTES_MAX + 1];
    loop {
        let length = stream.peek(&mut first).await.ok().filter(|length| *length > 0)?;
        if let Some(found) = is_asked(&first[..length]) {
            return Some(found);
        }
        sleep(CRUMBS).await;
    }
}

/// Whether a request that begins so is for here; `None` if more has to come.
fn is_asked(first: &[u8]) -> Option<bool> {
    let mut may_be = false;
    for asked in ASKED {
        match first.strip_prefix(asked) {
            Some([next, ..]) => return Some(matches!(next, b' ' | b'?')),
            _ => may_be |= asked.starts_with(first),
        }
    }
    (!may_be).then_some(false)
}

/// Reads the head of a request; `None` if it is none, or too large.
async fn read(mut stream: TcpStream) -> Option<(TcpStream, Request<Body>)> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        match parse(&bytes) {
            Ok(Some(request)) => return Some((stream, request)),
            Ok(None) if bytes.len() < HEAD_BYTES_MAX => {}
            Ok(None) | Err(()) => {
                let _ = stream.write_all(BAD_REQUEST).await;
                return None;
            }
        }
    }
}

/// The request, once its head is whole. A body, which a `GET` has no use for, is not read.
fn parse(bytes: &[u8]) -> Result<Option<Request<Body>>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    if head.parse(bytes).map_err(drop)?.is_partial() {
        return Ok(None);
    }
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = head.path.unwrap_or_default().parse().map_err(drop)?;
    for header in head.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(drop)?;
        request.headers_mut().append(name, HeaderValue::from_bytes(header.value).map_err(drop)?);
    }
    Ok(Some(request))
}

/// Has the request answered: by a stream that takes the socket, or as an HTTP server would.
async fn open(stream: TcpStream, mut request: Request<Body>, peer: IpAddr, occupied: Occupied, router: &Router) {
    let Ok(socket) = stream.into_std() else { return };
    let wire = Wire::new(socket, occupied);
    request.extensions_mut().insert(wire.clone());
    request.extensions_mut().insert(Peer(peer));
    let Ok(response) = TowerToHyperService::new(router.clone()).call(request).await;
    let Some((socket, _occupied)) = wire.take() else { return };
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else { return };
    let body = body.to_bytes();
    let mut bytes = head(&http::Response::from_parts(parts, ()), Some(body.len()));
    bytes.extend_from_slice(&body);
    if let Ok(mut stream) = TcpStream::from_std(socket) {
        // What a client does with a refusal is its own business.
        let _ = timeout(REFUSAL_TIMEOUT, async {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_for_here_by_its_whole_path() {
        for (text, expected) in [
            ("GET /events/stream?", Some(true)),
            ("GET /events/stream ", Some(true)),
            ("GET /events/streams", Some(false)),
            ("GET /events/stream", None),
            ("GET /events/ws HTTP", Some(true)),
            ("GET /events/ws?ticket=x", Some(true)),
            ("GET /events/wsx", Some(false)),
            ("GET /events/ws", None),
            ("GET /events/", None),
            ("GET /events?", Some(false)),
            ("POST", Some(false)),
        ] {
            assert_eq!(is_asked(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_head_is_a_request_once_it_is_whole() {
        let text = b"GET /events/stream?types=a.* HTTP/1.1\r\nhost: x\r\nlast-event-id: 7\r\n\r\n";
        for cut in 1..text.len() {
            assert!(parse(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let request = parse(text).unwrap().unwrap();
        assert_eq!(request.uri().query(), Some("types=a.*"));
        assert_eq!(request.headers()["last-event-id"], "7");
        assert!(parse(b"GET /events/stream HTTP/1.1\r\nno colon\r\n\r\n").is_err());
    }
}
