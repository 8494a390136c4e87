//! The socket under a stream: the client's own, or, where HTTP stands between, one end of a pair that feeds the body.

use std::io::Write as _;
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::Response;
use http::header::CONTENT_LENGTH;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;

/// What a body takes from its pair at a time.
const CHUNK_BYTES: usize = 16 * 1024;

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
    bytes.extend_from_slice(b"connection: close\r\n\r\n");
    bytes
}

/// A socket for the stream, and the body that tells what is written to it.
pub(crate) fn pair() -> std::io::Result<(TcpStream, Body)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let theirs = tokio::net::UnixStream::from_std(theirs)?;
    let chunks = stream::unfold(theirs, |mut theirs| async move {
        // Waits without a buffer: most streams are idle.
        theirs.readable().await.ok()?;
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match theirs.read_buf(&mut chunk).await {
            Ok(1..) => Some((Ok::<Bytes, std::convert::Infallible>(chunk.freeze()), theirs)),
            Ok(0) | Err(_) => None,
        }
    });
    // Streams ask for nothing that only TCP has: a socket is a socket.
    Ok((TcpStream::from(OwnedFd::from(ours)), Body::from_stream(chunks)))
}
