//! The smallest HTTP/1.1 client that is still correct for answers with a length: one request at a time over one
//! kept connection. Load and server share the cores, so the load must cost next to nothing.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Headers an answer or a webhook may have here.
pub(crate) const HEADERS_MAX: usize = 48;

/// One kept connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back; the body is borrowed from the connection until the next exchange.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

struct Head {
    status: u16,
    body_start: usize,
    end: usize,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10) })
    }

    /// Sends `request`, a whole HTTP message, and waits for the whole answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut head = None;
        loop {
            self.buffer.reserve(8 << 10);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if head.is_none() {
                head = parse_head(&self.buffer)?;
            }
            if let Some(Head { status, body_start, end }) = head {
                if self.buffer.len() == end {
                    let body = &self.buffer[body_start..];
                    return Ok(Answer { status, body });
                }
                if self.buffer.len() > end {
                    return Err(invalid("more came than the answer's content-length"));
                }
            }
        }
    }

    /// Builds and sends one request with a JSON body, possibly empty.
    pub(crate) async fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer<'_>> {
        let length = body.len();
        let message = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.exchange(message.as_bytes()).await
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body_start) = response.parse(bytes).map_err(invalid)? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or_default();
    let length = match content_length(response.headers) {
        Some(length) => length,
        None if status == 204 => 0,
        None => return Err(invalid("an answer without a content-length")),
    };
    Ok(Some(Head { status, body_start, end: body_start + length }))
}

/// The length of the body that follows `headers`, if they tell.
pub(crate) fn content_length(headers: &[httparse::Header<'_>]) -> Option<usize> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(header.value).ok()?.trim().parse().ok()
}

/// An error about bytes that are not the HTTP expected here.
pub(crate) fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
