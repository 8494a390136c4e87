//! Reads an event stream as a browser does (WHATWG HTML, section 9.2).

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::http::{Answer, Client, Connection};
use super::instant;

/// Heartbeats come for ever: whoever waits for something else has an end too.
const PATIENCE: Duration = Duration::from_secs(30);

/// One block between blank lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<u64>,
    pub(crate) comment: Option<String>,
    /// As it came, without the blank line.
    pub(crate) raw: String,
}

impl Block {
    pub(crate) fn is_event(&self) -> bool {
        self.data.is_some() && self.event.as_deref() != Some("tidings.status")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().unwrap()).unwrap()
    }
}

/// An open stream.
pub(crate) struct Stream {
    pub(crate) head: Answer,
    /// What a browser would send as `Last-Event-ID` now.
    pub(crate) last_id: String,
    connection: Connection,
    buffer: Vec<u8>,
}

impl Stream {
    #[track_caller]
    pub(crate) fn open(client: &Client, path: &str) -> Self {
        Self::try_open(client, path, &[]).unwrap()
    }

    /// Opens a stream after `last_id`, as a browser does when it comes back.
    pub(crate) fn resume(client: &Client, path: &str, last_id: &str) -> Self {
        Self::try_open(client, path, &[("last-event-id", last_id)]).unwrap()
    }

    pub(crate) fn try_open(client: &Client, path: &str, headers: &[(&str, &str)]) -> io::Result<Self> {
        let mut connection = client.connect()?;
        connection.write(&client.request("GET", path, headers, None, b""))?;
        let head = connection.head()?;
        assert_eq!(head.status, 200, "{path}: {:?}", head.headers);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        // An answer that is closed at once has a length.
        let length = head.header("content-length").map_or(0, |length| length.parse().unwrap());
        let buffer = connection.bytes(length)?;
        Ok(Self { head, last_id: String::new(), connection, buffer })
    }

    /// The next block; an error when the stream ends or breaks.
    pub(crate) fn try_next(&mut self) -> io::Result<Block> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let raw: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let block = parse(str::from_utf8(&raw[..end]).unwrap());
                if let Some(id) = &block.id {
                    self.last_id.clone_from(id);
                }
                return Ok(block);
            }
            if self.head.header("content-length").is_some() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // A stream that HTTP frames comes in chunks; one that left HTTP ends with the connection.
            let chunk = match self.head.header("transfer-encoding") {
                Some(_) => self.connection.chunk()?,
                None => Some(self.connection.some()?).filter(|bytes| !bytes.is_empty()),
            };
            self.buffer.extend(chunk.ok_or(io::ErrorKind::UnexpectedEof)?);
        }
    }

    #[track_caller]
    pub(crate) fn next(&mut self) -> Block {
        self.try_next().unwrap()
    }

    /// The next block that is an event of the log.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Block {
        let begun = instant();
        loop {
            let block = self.next();
            assert!(begun.elapsed() < PATIENCE, "no event comes");
            if block.is_event() {
                return block;
            }
        }
    }

    /// The next `tidings.status`.
    #[track_caller]
    pub(crate) fn status(&mut self) -> Value {
        let begun = instant();
        loop {
            let block = self.next();
            assert!(begun.elapsed() < PATIENCE, "no status comes");
            if block.event.as_deref() == Some("tidings.status") {
                return block.json();
            }
            assert!(!block.is_event(), "an event before the status: {block:?}");
        }
    }

    /// Reads to the end of the stream; how long that took, and what came.
    pub(crate) fn rest(&mut self) -> (Duration, Vec<Block>) {
        let begun = instant();
        let mut blocks = Vec::new();
        while let Ok(block) = self.try_next() {
            blocks.push(block);
            assert!(begun.elapsed() < PATIENCE, "the stream does not end");
        }
        (begun.elapsed(), blocks)
    }
}

/// Every CR, LF and CRLF ends a line; lines of `data` are joined.
fn parse(raw: &str) -> Block {
    let mut block = Block { raw: raw.to_owned(), ..Block::default() };
    let normal = raw.replace("\r\n", "\n").replace('\r', "\n");
    for line in normal.split('\n') {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match name {
            "" => block.comment = Some(value),
            "id" => block.id = Some(value),
            "event" => block.event = Some(value),
            "retry" => block.retry = Some(value.parse().unwrap()),
            "data" => match &mut block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => block.data = Some(value),
            },
            other => panic!("unknown field {other:?} in {raw:?}"),
        }
    }
    block
}
