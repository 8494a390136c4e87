//! The socket under a stream or a WebSocket: the client's own, or, where HTTP stands between, one end of a pair that
//! feeds the body, or goes on where HTTP ends.

use std::io::Write as _;
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{Extensions, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::time::timeout;

/// What a body takes from its pair at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// How long a client may take to end its side of a connection.
const LINGER: Duration = Duration::from_secs(2);

/// Whom a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// A connection counts among those that are open until this is dropped.
pub(crate) struct Occupied(Arc<AtomicUsize>);

impl Occupied {
    pub(crate) fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The socket of a request that may leave HTTP behind: whoever takes it answers.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Mutex<Option<(TcpStream, Occupied)>>>);

impl Wire {
    pub(crate) fn new(socket: TcpStream, occupied: Occupied) -> Self {
        Self(Arc::new(Mutex::new(Some((socket, occupied)))))
    }

    /// The socket, to who asks first.
    pub(crate) fn take(&self) -> Option<(TcpStream, Occupied)> {
        self.0.lock().take()
    }
}

/// What a connection is for when HTTP gives it up.
#[derive(Clone, Default)]
pub(crate) struct Afterwards(Arc<Mutex<Option<BoxFuture<'static, ()>>>>);

impl Afterwards {
    /// Does what was left to be done.
    pub(crate) async fn run(&self) {
        let work = self.0.lock().take();
        if let Some(work) = work {
            work.await;
        }
    }
}

/// A socket that speaks over the connection of a request once HTTP gives it up; `None` if it cannot.
pub(crate) fn upgraded(extensions: &mut Extensions) -> std::io::Result<Option<TcpStream>> {
    let (Some(upgrade), Some(afterwards)) = (extensions.remove::<OnUpgrade>(), extensions.get::<Afterwards>()) else {
        return Ok(None);
    };
    let (ours, theirs) = pair()?;
    *afterwards.0.lock() = Some(Box::pin(async move {
        if let Ok(upgraded) = upgrade.await {
            carry(upgraded, theirs).await;
        }
    }));
    Ok(Some(ours))
}

/// Carries bytes both ways until both sides are done, or a moment after ours is. How it ended is told by what went through.
async fn carry(upgraded: Upgraded, mut theirs: tokio::net::UnixStream) {
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(upgraded));
    let (mut said, mut heard) = theirs.split();
    let inwards = async {
        let _ = copy(&mut from_client, &mut heard).await;
        let _ = heard.shutdown().await;
    };
    let outwards = async {
        let _ = copy(&mut said, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    let (mut inwards, mut outwards) = (std::pin::pin!(inwards), std::pin::pin!(outwards));
    tokio::select! {
        () = &mut inwards => outwards.await,
        () = &mut outwards => drop(timeout(LINGER, inwards).await),
    }
}

/// Two sockets: what is written to one is read from the other.
fn pair() -> std::io::Result<(TcpStream, tokio::net::UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    // Streams ask for nothing that only TCP has: a socket is a socket.
    Ok((TcpStream::from(OwnedFd::from(ours)), tokio::net::UnixStream::from_std(theirs)?))
}

/// The head of an answer whose body ends with the connection, or after `length` bytes.
pub(crate) fn head<T>(response: &Response<T>, length: Option<usize>) -> Vec<u8> {
    let status = response.status();
    let mut bytes = Vec::with_capacity(256);
    // Writing to memory cannot fail.
    let _ = write!(bytes, "HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    // The router has said the length of a body, if it knew it.
    for (name, value) in response.headers().iter().filter(|(name, _)| **name != CONTENT_LENGTH) {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if let Some(length) = length {
        let _ = write!(bytes, "content-length: {length}\r\n");
    }
    if status != StatusCode::SWITCHING_PROTOCOLS {
        bytes.extend_from_slice(b"connection: close\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A socket for the stream, and the body that tells what is written to it.
pub(crate) fn body() -> std::io::Result<(TcpStream, Body)> {
    let (ours, theirs) = pair()?;
    let chunks = stream::unfold(theirs, |mut theirs| async move {
        // Waits without a buffer: most streams are idle.
        theirs.readable().await.ok()?;
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match theirs.read_buf(&mut chunk).await {
            Ok(1..) => Some((Ok::<Bytes, std::convert::Infallible>(chunk.freeze()), theirs)),
            Ok(0) | Err(_) => None,
        }
    });
    Ok((ours, Body::from_stream(chunks)))
}
