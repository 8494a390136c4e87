//! The endpoint of the benchmarks: takes webhooks, answers 200, counts, and measures how old each event was.
//!
//! Written by hand over the socket like the load, so that what is measured is the sender.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::clock;
use crate::events::SENT_AT;
use crate::http1::{HEADERS_MAX, content_length, invalid};
use crate::latency::{Latencies, Percentiles};
use crate::poster::Sample;

/// Latencies kept; a longer run is counted on, but no longer timed.
const LATENCIES_MAX: usize = 4 << 20;
/// Largest request taken.
const REQUEST_BYTES_MAX: usize = 1 << 20;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// What `receiver` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen; the address is printed, for port 0.
    #[arg(long)]
    listen: SocketAddr,
    /// Let one answer in so many take as long as `--stall-seconds`.
    #[arg(long)]
    stall_one_in: Option<u64>,
    /// How long such an answer takes.
    #[arg(long, default_value_t = 5.0)]
    stall_seconds: f64,
}

/// Which answers take long: one in so many.
#[derive(Clone, Copy)]
struct Stall {
    one_in: u64,
    time: Duration,
}

/// What came so far: the answer to `GET /stats`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// Every webhook.
    pub(crate) posts: u64,
    /// Different `webhook-id`s among them.
    pub(crate) distinct: u64,
    /// From the first to the last, in seconds.
    pub(crate) seconds: f64,
    /// `posts` over `seconds`.
    pub(crate) posts_per_second: f64,
    /// How old, in microseconds, the events were that said when they were sent.
    pub(crate) age_us: Percentiles,
}

#[derive(Default)]
struct Received {
    posts: u64,
    ids: HashSet<u64>,
    first: Option<Instant>,
    last: Option<Instant>,
    ages: Latencies,
    sample: Option<Sample>,
}

/// Serves until killed; prints a line of JSON each second in which something came.
pub(crate) fn serve(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await?;
        println!(r#"{{"listening":"{}"}}"#, listener.local_addr()?);
        let received = Arc::new(Mutex::new(Received::default()));
        let stall = args.stall_one_in.map(|one_in| Stall { one_in, time: Duration::from_secs_f64(args.stall_seconds) });
        tokio::spawn(print_rate(Arc::clone(&received)));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let received = Arc::clone(&received);
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &received, stall).await {
                    eprintln!("connection ended: {error}");
                }
            });
        }
    })
}

async fn print_rate(received: Arc<Mutex<Received>>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut before = 0;
    loop {
        ticks.tick().await;
        let posts = lock(&received).posts;
        if posts != before {
            println!(r#"{{"posts":{posts},"posts_per_second":{}}}"#, posts - before);
            before = posts;
        }
    }
}

async fn converse(mut stream: TcpStream, received: &Mutex<Received>, stall: Option<Stall>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        let mut taken = 0;
        let mut answers = Vec::new();
        while let Some(length) = whole_request(&buffer[taken..])? {
            answer(&buffer[taken..taken + length], received, &mut answers)?;
            taken += length;
        }
        buffer.drain(..taken);
        if !answers.is_empty() {
            if let Some(stall) = stall.filter(|stall| lock(received).posts.is_multiple_of(stall.one_in)) {
                tokio::time::sleep(stall.time).await;
            }
            stream.write_all(&answers).await?;
        }
        if buffer.len() > REQUEST_BYTES_MAX {
            return Err(invalid("a request too large for the benchmark"));
        }
        buffer.reserve(8 << 10);
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// The length of the first request, if all of it is here.
fn whole_request(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(body_start) = request.parse(bytes).map_err(invalid)? else {
        return Ok(None);
    };
    let length = match content_length(request.headers) {
        Some(length) => length,
        None if request.method == Some("GET") => 0,
        None => return Err(invalid("a webhook without a content-length")),
    };
    let end = body_start + length;
    Ok((bytes.len() >= end).then_some(end))
}

fn answer(bytes: &[u8], received: &Mutex<Received>, answers: &mut Vec<u8>) -> io::Result<()> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(body_start) = request.parse(bytes).map_err(invalid)? else {
        return Err(invalid("a request that was whole before"));
    };
    match (request.method, request.path) {
        (Some("POST"), _) => {
            lock(received).take(&request, &bytes[body_start..]);
            answers.extend_from_slice(OK);
        }
        (_, Some("/stats")) => answer_json(&lock(received).stats(), answers),
        (_, Some("/sample")) => answer_json(&lock(received).sample, answers),
        _ => answers.extend_from_slice(OK),
    }
    Ok(())
}

fn answer_json(value: &impl Serialize, answers: &mut Vec<u8>) {
    let body = serde_json::to_string(value).unwrap_or_default();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    answers.extend_from_slice(head.as_bytes());
    answers.extend_from_slice(body.as_bytes());
}

impl Received {
    fn take(&mut self, request: &httparse::Request<'_, '_>, body: &[u8]) {
        self.posts += 1;
        let id = request.headers.iter().find(|header| header.name == "webhook-id");
        if let Some(id) = id {
            let mut hasher = DefaultHasher::new();
            id.value.hash(&mut hasher);
            self.ids.insert(hasher.finish());
        }
        if self.ages.len() < LATENCIES_MAX
            && let Some(sent_at) = sent_at_ns(body)
        {
            let age = clock::wall_ns().saturating_sub(sent_at);
            self.ages.push(Duration::from_nanos(age));
        }
        if self.sample.is_none() {
            self.sample = Some(sample(request, body));
        }
        let now = clock::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    fn stats(&mut self) -> Stats {
        let took = match (self.first, self.last) {
            (Some(first), Some(last)) => last - first,
            _ => Duration::ZERO,
        };
        Stats {
            posts: self.posts,
            distinct: self.ids.len() as u64,
            seconds: took.as_secs_f64(),
            posts_per_second: clock::per_second(self.posts, took),
            age_us: self.ages.percentiles(),
        }
    }
}

fn sent_at_ns(body: &[u8]) -> Option<u64> {
    let start = memmem::find(body, SENT_AT.as_bytes())? + SENT_AT.len();
    let digits = body[start..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0_u64, |value, byte| value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'))))
}

fn sample(request: &httparse::Request<'_, '_>, body: &[u8]) -> Sample {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // The sender sets its own length.
    let headers = request
        .headers
        .iter()
        .filter(|header| !header.name.eq_ignore_ascii_case("content-length"))
        .map(|header| (header.name.to_owned(), text(header.value)))
        .collect();
    Sample { path: request.path.unwrap_or("/").to_owned(), headers, body: text(body) }
}

fn lock(received: &Mutex<Received>) -> MutexGuard<'_, Received> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}
