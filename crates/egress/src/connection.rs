//! One connection, one request at a time (HTTP/1.1 without pipelining).

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::answer::{Answer, Response};
use crate::error::DoorError;
use crate::stream::Stream;

/// How much is read at once.
const READ_BYTES: usize = 4 << 10;

pub(crate) struct Connection {
    stream: Stream,
    /// What came and is not taken yet.
    buffer: Vec<u8>,
    /// A request was sent, and its answer has not come.
    waits: bool,
}

/// An answer that nobody waits for any more must not keep the port: thousands of endpoints that never answer, at one
/// address, would use up all ports there are, each kept for a minute after it is closed.
impl Drop for Connection {
    fn drop(&mut self) {
        if self.waits {
            self.stream.reset();
        }
    }
}

/// An exchange that failed.
pub(crate) struct Broken {
    pub(crate) error: DoorError,
    /// Whether the connection ended before a byte of the answer came.
    pub(crate) unanswered: bool,
}

impl Connection {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::new(), waits: false }
    }

    /// Sends a request, in pieces, and reads the answer; `true`: another may follow.
    ///
    /// Memory is bounded by `HEAD_BYTES_MAX` and `BODY_BYTES_MAX`; time is the caller's to bound.
    pub(crate) async fn exchange(&mut self, pieces: [&[u8]; 3]) -> Result<(Response, bool), Broken> {
        self.waits = true;
        let sent = self.send(pieces).await;
        let mut answer = Answer::default();
        let mut began = false;
        loop {
            began |= !self.buffer.is_empty();
            match answer.take(&self.buffer) {
                Ok(taken) if taken == self.buffer.len() => self.buffer.clear(),
                Ok(taken) => drop(self.buffer.drain(..taken)),
                Err(why) => return Err(Broken { error: DoorError::Protocol(why), unanswered: false }),
            }
            if answer.is_done() {
                self.waits = false;
                // What came beyond the answer nobody asked for.
                let keeps = answer.keeps() && self.buffer.is_empty() && matches!(sent, Ok(true));
                return Ok((answer.into_response(), keeps));
            }
            match self.fill().await {
                Ok(0) if answer.end() => {
                    self.waits = false;
                    return Ok((answer.into_response(), false));
                }
                Ok(0) => return Err(broken("it ended".into(), began)),
                Ok(_) => {}
                // Whoever refuses a request early may reset the connection: the answer, if any, was read before.
                Err(error) => return Err(broken(sent.err().unwrap_or(error).to_string(), began)),
            }
        }
    }

    /// Whether it is open and silent, as it must be between requests.
    pub(crate) async fn is_idle(&mut self) -> bool {
        let mut byte = [0; 1];
        let stream = &mut self.stream;
        let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte)))).await;
        read.is_pending() && self.buffer.is_empty()
    }

    /// Gives back memory that an unusual answer took.
    pub(crate) fn rest(&mut self) {
        self.buffer.shrink_to(READ_BYTES);
    }

    /// Writes the pieces; `false`: the answer came before all were written.
    async fn send(&mut self, pieces: [&[u8]; 3]) -> io::Result<bool> {
        let mut slices = pieces.map(IoSlice::new);
        let mut left = &mut slices[..];
        let mut size: usize = pieces.iter().map(|piece| piece.len()).sum();
        poll_fn(|cx| {
            while size > 0 {
                match Pin::new(&mut self.stream).poll_write_vectored(cx, left) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(written)) => {
                        size -= written;
                        IoSlice::advance_slices(&mut left, written);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    // Who does not take the request may be answering it.
                    Poll::Pending => return self.poll_early(cx),
                }
            }
            Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| true)
        })
        .await
    }

    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut bytes = [0; 256];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                self.buffer.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(false))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.buffer).await
    }
}

fn broken(why: String, began: bool) -> Broken {
    Broken { error: DoorError::Reset(why), unanswered: !began }
}
