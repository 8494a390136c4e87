//! The watchers: many event streams on one thread, and a publisher beside them; tells what arrived, and how late.
//!
//! The publisher stays a window of events ahead of what has been delivered to all, so that neither side of a comparison
//! is measured while its queues only grow; or it keeps a rate, and every arrival is timed.

mod publisher;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use memchr::memmem;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::latency::{Latencies, Percentiles};
use crate::target::Target;
use publisher::{Pace, Publisher};

/// Room for what one read takes.
const READ_BYTES: usize = 256 * 1024;
/// Streams that take longer to open are broken.
const OPEN_TIME_MAX: Duration = Duration::from_secs(30);
/// How long nothing more than what was published may take to arrive.
const LAST_TIME_MAX: Duration = Duration::from_secs(30);
/// How long it waits for something to read.
const MOMENT: Duration = Duration::from_millis(20);
/// How the frame of an event ends; that of a heartbeat or a first block ends otherwise.
const END: &[u8] = b"}\n\n";
/// And that of a WebSocket: data, event and message.
const SOCKET_END: &[u8] = b"\"}}}";
/// Before the end of the longer one.
const SEAM: usize = SOCKET_END.len() - 1;
/// How a WebSocket is asked for.
const HANDSHAKE: &str = "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SUBSCRIBED: &[u8] = b"\"state\":\"subscribed\"";
/// Before the time at which an event was published, in nanoseconds since the publisher began.
const AT: &[u8] = b"\"at\":";

/// What `watch` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server, such as `http://127.0.0.1:8080`.
    #[arg(long)]
    url: Target,
    /// Streams to hold open.
    #[arg(long)]
    connections: usize,
    /// Of these, how many never read.
    #[arg(long, default_value_t = 0)]
    stalled: usize,
    /// Each stream asks for a channel of its own, and events go to the first alone.
    #[arg(long)]
    apart: bool,
    /// WebSockets in place of event streams, with one subscription each.
    #[arg(long)]
    websocket: bool,
    /// How long to publish.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Events a second; without it as many as arrive, 50 ahead.
    #[arg(long)]
    rate: Option<f64>,
    /// Bytes of `data` to fill an event up with.
    #[arg(long, default_value_t = 90)]
    fill: usize,
}

/// What arrived: the line that `watch` prints.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Events published.
    pub(crate) published: u64,
    /// Frames that arrived at all streams that read.
    pub(crate) deliveries: u64,
    pub(crate) deliveries_per_second: f64,
    /// Microseconds from before an event was sent to after it was read, if a rate was kept.
    pub(crate) late_us: Percentiles,
    /// Bytes of a frame, on average.
    pub(crate) frame_bytes: u64,
}

/// All streams that are read, and what was seen on them.
struct Watchers {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    all: Vec<(mio::net::TcpStream, Ends)>,
    /// When the publisher began, if arrivals are timed.
    timed: Option<Instant>,
    bytes: u64,
    latencies: Latencies,
}

/// Counts the ends of frames in what is read, also where one comes in two halves.
pub(crate) struct Ends {
    end: &'static [u8],
    kept: [u8; SEAM],
}

impl Default for Ends {
    fn default() -> Self {
        Self { end: END, kept: [0; SEAM] }
    }
}

impl Ends {
    /// Those of messages of a WebSocket, or of events of a stream.
    fn of(websocket: bool) -> Self {
        Self { end: if websocket { SOCKET_END } else { END }, kept: [0; SEAM] }
    }

    /// How many there are in `bytes`.
    pub(crate) fn count(&mut self, bytes: &[u8]) -> u64 {
        let over = self.end.len() - 1;
        let seam = [&self.kept[SEAM - over..], &bytes[..bytes.len().min(over)]].concat();
        let found = memmem::find_iter(&seam, self.end).count() + memmem::find_iter(bytes, self.end).count();
        let all = [&self.kept[..], &bytes[bytes.len().saturating_sub(SEAM)..]].concat();
        self.kept.copy_from_slice(&all[all.len() - SEAM..]);
        found as u64
    }
}

/// Watches while it publishes, then prints one line of JSON.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(&watch(args)?)?);
    Ok(())
}

/// Opens streams one after the other and returns when each has had its head.
pub(crate) fn open(addr: SocketAddr, count: usize, path: impl Fn(usize) -> String) -> anyhow::Result<Vec<TcpStream>> {
    let mut streams = ask(addr, count, |number| format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", path(number)))?;
    for stream in &mut streams {
        // The head and, from Tidings, a first block.
        read_past(stream, b"\r\n\r\n", b"HTTP/1.1 200")?;
    }
    Ok(streams)
}

/// Opens WebSockets and returns when each has its subscription, whose members are those of `filter`.
pub(crate) fn open_sockets(
    addr: SocketAddr,
    count: usize,
    filter: impl Fn(usize) -> String,
) -> anyhow::Result<Vec<TcpStream>> {
    let request = format!("GET /events/ws HTTP/1.1\r\nhost: localhost\r\n{HANDSHAKE}\r\n");
    let mut sockets = ask(addr, count, |_| request.clone())?;
    for (number, socket) in sockets.iter_mut().enumerate() {
        // Behind the head the raw streamer has said already what Tidings says when it was asked.
        let ready = read_past(socket, b"\r\n\r\n", b"HTTP/1.1 101")?;
        let message = format!(r#"{{"type":"subscribe","id":"a"{}}}"#, filter(number));
        let length = u8::try_from(message.len()).ok().filter(|length| *length < 126).context("a short message")?;
        // Masked by zeros.
        socket.write_all(&[&[0x81, 0x80 | length, 0, 0, 0, 0], message.as_bytes()].concat())?;
        if memmem::find(&ready, SUBSCRIBED).is_none() {
            read_past(socket, SUBSCRIBED, b"")?;
        }
    }
    Ok(sockets)
}

/// Opens connections and sends a request on each.
fn ask(addr: SocketAddr, count: usize, request: impl Fn(usize) -> String) -> anyhow::Result<Vec<TcpStream>> {
    let open = |number| {
        let mut stream = TcpStream::connect(addr).context("no connection")?;
        stream.write_all(request(number).as_bytes())?;
        stream.set_read_timeout(Some(OPEN_TIME_MAX))?;
        Ok(stream)
    };
    (0..count).map(open).collect()
}

/// Reads up to `mark` and what came with it; it has to begin with `begin`.
fn read_past(stream: &mut TcpStream, mark: &[u8], begin: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut head = vec![0; 1024];
    let mut length = 0;
    while memmem::find(&head[..length], mark).is_none() {
        let count = stream.read(&mut head[length..])?;
        ensure!(count > 0, "a stream ended: {}", String::from_utf8_lossy(&head[..length]));
        length += count;
    }
    head.truncate(length);
    ensure!(head.starts_with(begin), "refused: {}", String::from_utf8_lossy(&head));
    Ok(head)
}

fn watch(args: &Args) -> anyhow::Result<Report> {
    let apart = |number: usize| format!("/events/stream?channels=c{number}");
    let (addr, count) = (args.url.addr, args.connections);
    let mut streams = match (args.websocket, args.apart) {
        (true, _) => open_sockets(addr, count, |_| String::new())?,
        (false, true) => open(addr, count, apart)?,
        (false, false) => open(addr, count, |_| "/events/stream".to_owned())?,
    };
    let stalled = streams.split_off(args.connections - args.stalled);
    let mut watchers = Watchers::new(streams, args.websocket)?;
    let audience = if args.apart { 1 } else { watchers.all.len() as u64 };
    let delivered = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let begun = clock::now();
    watchers.timed = args.rate.is_some().then_some(begun);
    let pace = args.rate.map_or(Pace::Ahead(50), Pace::Rate);
    let load = Publisher { addr: args.url.addr, pace, audience, fill: args.fill, apart: args.apart, begun };
    let until = begun + Duration::from_secs_f64(args.seconds);
    let hand = {
        let (delivered, done) = (Arc::clone(&delivered), Arc::clone(&done));
        std::thread::spawn(move || {
            let published = load.publish(until, &delivered);
            done.store(true, Ordering::Release);
            published
        })
    };
    let mut count = 0;
    while !done.load(Ordering::Acquire) {
        count += watchers.read()?;
        delivered.store(count, Ordering::Release);
    }
    let published = hand.join().map_err(|_| anyhow::anyhow!("the publisher broke"))??;
    while count < published * audience {
        ensure!(until.elapsed() < LAST_TIME_MAX, "only {count} of {} arrived", published * audience);
        count += watchers.read()?;
    }
    ensure!(count == published * audience, "{count} arrived instead of {}", published * audience);
    let took = begun.elapsed();
    drop(stalled);
    Ok(Report {
        published,
        deliveries: count,
        deliveries_per_second: clock::per_second(count, took),
        late_us: watchers.latencies.percentiles(),
        frame_bytes: watchers.bytes / count.max(1),
    })
}

impl Watchers {
    fn new(streams: Vec<TcpStream>, websocket: bool) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut all = Vec::with_capacity(streams.len());
        for (number, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            all.push((stream, Ends::of(websocket)));
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ_BYTES],
            all,
            timed: None,
            bytes: 0,
            latencies: Latencies::default(),
        })
    }

    /// Reads what is there on all streams, or comes within a moment; how many frames ended in it.
    fn read(&mut self) -> anyhow::Result<u64> {
        let mut frames = 0;
        self.poll.poll(&mut self.events, Some(MOMENT))?;
        for event in &self.events {
            let (stream, ends) = &mut self.all[event.token().0];
            loop {
                match stream.read(&mut self.buffer) {
                    Ok(0) => anyhow::bail!("a stream ended"),
                    Ok(length) => {
                        let bytes = &self.buffer[..length];
                        self.bytes += length as u64;
                        frames += ends.count(bytes);
                        if let Some(begun) = self.timed {
                            time(bytes, begun, &mut self.latencies);
                        }
                        if length < READ_BYTES {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(frames)
    }
}

/// Notes how late each event in `bytes` is that says when it was published.
fn time(bytes: &[u8], begun: Instant, latencies: &mut Latencies) {
    let now = begun.elapsed();
    for place in memmem::find_iter(bytes, AT) {
        let digits = bytes[place + AT.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        let at = digits.fold(0_u64, |at, digit| at * 10 + u64::from(digit - b'0'));
        latencies.push(now.saturating_sub(Duration::from_nanos(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::Ends;

    #[test]
    fn an_end_of_a_message_is_counted_once_wherever_it_is_cut() {
        let text = br#"{"state":"subscribed"}{"event":{"data":{"fill":""}}}{"event":{"data":{"fill":"x"}}}"#;
        for cut in 1..text.len() {
            let mut ends = Ends::of(true);
            assert_eq!(ends.count(&text[..cut]) + ends.count(&text[cut..]), 2, "{cut}");
        }
    }

    #[test]
    fn an_end_is_counted_once_wherever_it_is_cut() {
        let text = b"id: 1\nretry: 2\n\nid: 2\ndata: {}\n\n:keepalive\n\nid: 3\ndata: {}\n\n";
        for first in 1..text.len() {
            for second in first..text.len() {
                let mut ends = Ends::default();
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                let found: u64 = pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| ends.count(piece)).sum();
                assert_eq!(found, 2, "{first} {second}");
            }
        }
    }
}
