//! An HTTP/1.1 answer, read piece by piece; pure (RFC 9112). Strict: what two readers could frame differently is refused.

use std::mem::MaybeUninit;
use std::sync::LazyLock;

use memchr::memmem;

use crate::chunked::Chunked;

/// How much of an answer's body is kept; one that is longer is cut there, and its connection closed.
pub const BODY_BYTES_MAX: usize = 16 << 10;
/// How much the heads of an answer may take, those before the final one (1xx) included.
pub const HEAD_BYTES_MAX: usize = 32 << 10;
/// Most headers of a head.
const HEADERS_MAX: usize = 100;

/// What the other side said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status, 200 to 999; redirects are not followed.
    pub status: u16,
    /// The `retry-after` header as it came.
    pub retry_after: Option<Box<str>>,
    /// The `content-type` header as it came.
    pub content_type: Option<Box<str>>,
    /// The body, or its first [`BODY_BYTES_MAX`] bytes.
    pub body_start: Vec<u8>,
}

/// An answer that is being read.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    response: Response,
    state: State,
    /// Of the heads that are done.
    head_bytes: usize,
    closes: bool,
}

#[derive(Debug, Default)]
enum State {
    /// No end of the head before this byte of the input.
    #[default]
    Before,
    Scanned(usize),
    /// So many bytes of the body are to come.
    Sized(u64),
    Chunked(Chunked),
    /// The body ends with the connection.
    Open,
    Done,
}

/// How the body is framed.
enum Framing {
    Sized(u64),
    Chunked,
    Open,
}

impl Answer {
    /// Takes from the start of `input` what it can; the rest is to be given again, with more behind it.
    pub(crate) fn take(&mut self, input: &[u8]) -> Result<usize, &'static str> {
        let mut taken = 0;
        loop {
            let rest = &input[taken..];
            let step = match &mut self.state {
                State::Before => self.head(rest, 0)?,
                State::Scanned(scanned) => {
                    let scanned = *scanned;
                    self.head(rest, scanned)?
                }
                State::Sized(left) => {
                    let step = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= step as u64;
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    self.keep(&rest[..step]);
                    step
                }
                State::Chunked(chunked) => {
                    let step = chunked.take(rest, &mut self.response.body_start)?;
                    if chunked.is_done() {
                        self.state = State::Done;
                    }
                    self.cut();
                    step
                }
                State::Open => {
                    self.keep(rest);
                    rest.len()
                }
                State::Done => 0,
            };
            taken += step;
            if step == 0 || taken == input.len() {
                return Ok(taken);
            }
        }
    }

    /// Notes that nothing more comes.
    pub(crate) fn end(&mut self) -> bool {
        if matches!(self.state, State::Open) {
            self.state = State::Done;
        }
        self.is_done()
    }

    /// Whether all is there, or as much as is read.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the connection can take another request afterwards.
    pub(crate) fn keeps(&self) -> bool {
        self.is_done() && !self.closes
    }

    pub(crate) fn into_response(self) -> Response {
        self.response
    }

    /// Takes a head if all of it is there.
    fn head(&mut self, input: &[u8], scanned: usize) -> Result<usize, &'static str> {
        let start = b"HTTP/1.";
        if !input.starts_with(&start[..start.len().min(input.len())]) {
            return Err("it does not begin with HTTP/1");
        }
        // Only what is whole is parsed: a head that trickles in costs one scan.
        let Some(end) = end_of_head(input, scanned) else {
            if self.head_bytes + input.len() > HEAD_BYTES_MAX {
                return Err("its head is too large");
            }
            self.state = State::Scanned(input.len());
            return Ok(0);
        };
        self.head_bytes += end;
        if self.head_bytes > HEAD_BYTES_MAX {
            return Err("its head is too large");
        }
        let framing = self.parse(&input[..end])?;
        self.state = match framing {
            None => State::Before,
            Some(Framing::Sized(0)) => State::Done,
            Some(Framing::Sized(length)) => State::Sized(length),
            Some(Framing::Chunked) => State::Chunked(Chunked::default()),
            Some(Framing::Open) => {
                self.closes = true;
                State::Open
            }
        };
        Ok(end)
    }

    /// Reads a whole head; `None` if it is one before the final one.
    fn parse(&mut self, head: &[u8]) -> Result<Option<Framing>, &'static str> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, head, &mut headers) {
            Ok(httparse::Status::Complete(end)) if end == head.len() => {}
            Ok(_) => return Err("its head ends in two places"),
            Err(httparse::Error::TooManyHeaders) => return Err("it has too many headers"),
            Err(_) => return Err("its head is malformed"),
        }
        let status = parsed.code.unwrap_or_default();
        match status {
            101 => return Err("it changes the protocol"),
            100..=199 => return Ok(None),
            200.. => {}
            _ => return Err("its status is not one"),
        }
        self.response.status = status;
        let http_10 = parsed.version == Some(0);
        self.closes = http_10;
        let (mut length, mut chunked) = (None, false);
        for header in parsed.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let text = || std::str::from_utf8(header.value).ok().map(Into::into);
            match header.name.len() {
                14 if is("content-length") => {
                    let given = number(header.value).ok_or("its content-length is not a number")?;
                    if length.replace(given).is_some_and(|other| other != given) {
                        return Err("it has two lengths");
                    }
                }
                17 if is("transfer-encoding") => {
                    if chunked || http_10 || !header.value.eq_ignore_ascii_case(b"chunked") {
                        return Err("its transfer-encoding is not chunked");
                    }
                    chunked = true;
                }
                10 if is("connection") => self.closes |= has_token(header.value, b"close"),
                11 if is("retry-after") => self.response.retry_after = text(),
                12 if is("content-type") => self.response.content_type = text(),
                _ => {}
            }
        }
        match (length, chunked) {
            (Some(_), true) => Err("it has a length and a transfer-encoding"),
            _ if matches!(status, 204 | 304) => Ok(Some(Framing::Sized(0))),
            (_, true) => Ok(Some(Framing::Chunked)),
            (Some(length), false) => Ok(Some(Framing::Sized(length))),
            (None, false) => Ok(Some(Framing::Open)),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = (BODY_BYTES_MAX + 1).saturating_sub(self.response.body_start.len());
        self.response.body_start.extend_from_slice(&bytes[..room.min(bytes.len())]);
        self.cut();
    }

    /// Ends a body that is longer than is kept.
    fn cut(&mut self) {
        if self.response.body_start.len() > BODY_BYTES_MAX {
            self.response.body_start.truncate(BODY_BYTES_MAX);
            self.state = State::Done;
            self.closes = true;
        }
    }
}

/// The end of a line and an empty one; prepared, for every answer is looked through.
static EMPTY_LINE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\r\n\r\n"));

/// Where the empty line ends that ends a head.
fn end_of_head(input: &[u8], scanned: usize) -> Option<usize> {
    // An end may have begun within what was looked at.
    let from = scanned.saturating_sub(3);
    EMPTY_LINE.find(&input[from..]).map(|at| from + at + 4)
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests;
