//! A small blocking HTTP/1.1 client: one kept-alive connection, whole answers, deadlines. An error of any kind means
//! that the outcome of the request is unknown.

use super::clock;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const BODY_BYTES_MAX: usize = 64 << 20;

/// One connection to one server, opened when needed.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    connected: Option<Instant>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header; `name` in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The start of the body, for messages.
    pub(super) fn excerpt(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(300).collect()
    }
}

impl Client {
    /// A client of `address`.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, connected: None }
    }

    /// When the present connection was opened.
    pub(super) fn connected(&self) -> Option<Instant> {
        self.connected
    }

    /// `GET path`.
    pub(super) fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).as_bytes())
    }

    /// `POST path` with `headers`, each a whole `Name: value`.
    pub(super) fn post(&mut self, path: &str, headers: &[String], body: &[u8]) -> io::Result<Reply> {
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", self.address, body.len());
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)
    }

    /// `PUT path` with a JSON body.
    pub(super) fn put(&mut self, path: &str, body: &[u8]) -> io::Result<Reply> {
        let (address, length) = (self.address, body.len());
        let head = format!("PUT {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
        self.send(&[head.as_bytes(), body].concat())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.get_mut().write_all(bytes)?;
        let reply = read_reply(&mut stream)?;
        if reply.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
            self.stream = Some(stream);
        }
        Ok(reply)
    }

    fn connect(&mut self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        self.connected = Some(clock::now());
        Ok(BufReader::with_capacity(64 << 10, stream))
    }
}

fn read_reply(stream: &mut impl BufRead) -> io::Result<Reply> {
    let status_line = read_line(stream)?;
    let status = status_line
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| broken(&format!("not a status line: {status_line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| broken(&format!("not a header: {line:?}")))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut reply = Reply { status, headers, body: Vec::new() };
    if reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        read_chunks(stream, &mut reply.body)?;
    } else {
        let length = reply.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        read_exactly(stream, &mut reply.body, length)?;
    }
    Ok(reply)
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(stream)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| broken(&format!("not a chunk size: {line:?}")))?;
        read_exactly(stream, body, size)?;
        read_line(stream)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn read_exactly(stream: &mut impl BufRead, body: &mut Vec<u8>, length: usize) -> io::Result<()> {
    if body.len() + length > BODY_BYTES_MAX {
        return Err(broken("an answer larger than any page can be"));
    }
    let start = body.len();
    body.resize(start + length, 0);
    stream.read_exact(&mut body[start..])
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.by_ref().take(64 << 10).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| broken("a header that is not text"))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
