//! Publishes for the watchers, on a connection and a thread of its own.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use memchr::memmem;

use crate::clock;

/// Events of a request while it publishes as many as arrive.
const BATCH: u64 = 10;
/// How long it waits before it looks again whether enough arrived.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// How fast.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// So many events ahead of what has arrived everywhere.
    Ahead(u64),
    /// One event at a time, so many a second.
    Rate(f64),
}

pub(super) struct Publisher {
    pub(super) addr: SocketAddr,
    pub(super) pace: Pace,
    /// How many get each event.
    pub(super) audience: u64,
    pub(super) fill: usize,
    /// Events go to channel `c0`.
    pub(super) apart: bool,
    pub(super) begun: Instant,
}

impl Publisher {
    /// Publishes until then; how many.
    pub(super) fn publish(&self, until: Instant, delivered: &AtomicU64) -> anyhow::Result<u64> {
        let mut stream = TcpStream::connect(self.addr)?;
        stream.set_nodelay(true)?;
        let mut published = 0;
        let mut next = self.begun;
        while clock::now() < until {
            let batch = match self.pace {
                Pace::Ahead(window) => {
                    if published + BATCH > delivered.load(Ordering::Acquire) / self.audience + window {
                        std::thread::sleep(LOOK_AGAIN);
                        continue;
                    }
                    BATCH
                }
                Pace::Rate(rate) => {
                    std::thread::sleep(next.saturating_duration_since(clock::now()));
                    next += Duration::from_secs_f64(1.0 / rate);
                    1
                }
            };
            self.post(&mut stream, batch)?;
            published += batch;
        }
        Ok(published)
    }

    fn post(&self, stream: &mut TcpStream, count: u64) -> anyhow::Result<()> {
        let fill = "x".repeat(self.fill);
        let channels = if self.apart { r#","channels":["c0"]"# } else { "" };
        let mut body = String::new();
        for _ in 0..count {
            let at = self.begun.elapsed().as_nanos();
            // Writing to a string cannot fail.
            let _ = writeln!(body, r#"{{"eventType":"bench.tick"{channels},"data":{{"at":{at},"fill":"{fill}"}}}}"#);
        }
        let request = format!(
            "POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        read_answer(stream)
    }
}

/// Reads one answer with a length; anything but a `201` is an error.
fn read_answer(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "the connection ended");
        answer.extend_from_slice(&piece[..count]);
        let Some(head) = memmem::find(&answer, b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        ensure!(text.starts_with("http/1.1 201"), "publishing was answered {text}");
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
        if answer.len() >= head + 4 + length.unwrap_or(0_usize) {
            return Ok(());
        }
    }
}
