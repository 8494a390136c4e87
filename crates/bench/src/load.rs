//! The publisher: keeps N connections busy with events and tells how fast they were acked.
//!
//! Only a `201` that says what it should counts as an ack; everything else is counted by what it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::clock;
use crate::events::Events;
use crate::http1::{Answer, Connection};
use crate::latency::{Latencies, Percentiles};
use crate::target::Target;

/// Events in a batch.
const BATCH: u64 = 100;
/// How long after the end an answer may still take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A run by count must end within this.
const COUNT_TIME_MAX: Duration = Duration::from_mins(10);
/// How much of the first refusal is reported.
const REFUSAL_CHARS_MAX: usize = 400;

/// What `load` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server, such as `http://127.0.0.1:8080`; events go to `/events`.
    #[arg(long)]
    url: Target,
    /// One event per request, or NDJSON batches of 100.
    #[arg(long, value_enum)]
    mode: Mode,
    /// Kept connections, one request at a time on each.
    #[arg(long)]
    connections: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How long to publish before measuring.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Publish this many events as fast as they are acked, instead of for a time.
    #[arg(long)]
    count: Option<u64>,
    /// Requests a second over all connections, instead of as many as possible.
    #[arg(long)]
    rate: Option<f64>,
    /// Give every event a `UUIDv7` of its own.
    #[arg(long)]
    with_ids: bool,
}

/// How events are published.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// `application/json`, one event.
    Single,
    /// `application/x-ndjson`, 100 events.
    Ndjson,
}

/// What happened: the line that `load` prints.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Events acked while measuring, by the second.
    pub(crate) events_per_second: f64,
    /// Microseconds from the request's first byte to the ack's last, of the acks while measuring.
    pub(crate) ack_us: Percentiles,
    /// Events acked in all, warm-up and last answers included: the server must have them.
    pub(crate) acked: u64,
    /// What was not a right `201`, by status or error; empty in a sound run.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The beginning of the first of them.
    pub(crate) first_refusal: Option<String>,
}

/// When to publish, when to measure, when to stop.
struct Plan {
    mode: Mode,
    begun: Instant,
    measure_from: Instant,
    until: Instant,
    left: Option<AtomicU64>,
    pace: Option<Duration>,
    turn: AtomicU64,
}

/// What one connection saw.
#[derive(Default)]
struct Tally {
    acked: u64,
    measured: u64,
    acks: Latencies,
    errors: BTreeMap<String, u64>,
    first_refusal: Option<String>,
}

/// Publishes, then prints one line of JSON; errors of the server are in the line, not in the result.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(publish_all(args))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn publish_all(args: &Args) -> anyhow::Result<Report> {
    let mut connections = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        connections.push(Connection::open(args.url.addr).await?);
    }
    let plan = Arc::new(Plan::new(args));
    let events = Events::new(0, args.with_ids);
    let seed = clock::wall_ns();
    let mut tasks = JoinSet::new();
    for (index, connection) in (0..).zip(connections) {
        let mut events = events.clone();
        events.reseed(seed.wrapping_add(index));
        tasks.spawn(work(Arc::clone(&plan), connection, events));
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.append(tally?);
    }
    let took = if plan.left.is_some() { plan.begun.elapsed() } else { plan.until - plan.measure_from };
    Ok(Report {
        events_per_second: clock::per_second(all.measured, took),
        ack_us: all.acks.percentiles(),
        acked: all.acked,
        errors: all.errors,
        first_refusal: all.first_refusal,
    })
}

impl Plan {
    fn new(args: &Args) -> Self {
        let begun = clock::now();
        let (warmup, length) = match args.count {
            Some(_) => (Duration::ZERO, COUNT_TIME_MAX),
            None => (Duration::from_secs_f64(args.warmup), Duration::from_secs_f64(args.seconds)),
        };
        Self {
            mode: args.mode,
            begun,
            measure_from: begun + warmup,
            until: begun + warmup + length,
            left: args.count.map(AtomicU64::new),
            pace: args.rate.map(|rate| Duration::from_secs_f64(rate.recip())),
            turn: AtomicU64::new(0),
        }
    }

    /// How many events the next request takes; waits for its turn when paced. `None` at the end.
    async fn next(&self) -> Option<u64> {
        if let Some(pace) = self.pace {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let due = self.begun + pace.mul_f64(f64::from(u32::try_from(turn).ok()?));
            tokio::time::sleep_until(due.min(self.until).into()).await;
        }
        if clock::now() >= self.until {
            return None;
        }
        let wanted = match self.mode {
            Mode::Single => 1,
            Mode::Ndjson => BATCH,
        };
        let Some(left) = &self.left else {
            return Some(wanted);
        };
        let before = left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)))
            .unwrap_or_default();
        (before > 0).then(|| before.min(wanted))
    }
}

async fn work(plan: Arc<Plan>, mut connection: Connection, mut events: Events) -> Tally {
    let mut tally = Tally::default();
    let (mut request, mut body) = (Vec::new(), Vec::new());
    let mut expected = String::new();
    while let Some(count) = plan.next().await {
        write_request(plan.mode, count, &mut events, &mut request, &mut body);
        expected.clear();
        let _ = match plan.mode {
            Mode::Single => write!(expected, r#""eventId":"#),
            Mode::Ndjson => write!(expected, r#""accepted":{count}"#),
        };
        let sent = clock::now();
        let deadline = plan.until + PATIENCE;
        match tokio::time::timeout_at(deadline.into(), connection.exchange(&request)).await {
            Ok(Ok(answer)) => tally.settle(&plan, &answer, &expected, count, sent),
            // The connection is of no more use; the others go on.
            Ok(Err(error)) => {
                tally.refuse(error.kind().to_string(), &error.to_string());
                break;
            }
            Err(_) => {
                let why = format!("none within {PATIENCE:?} after the end");
                tally.refuse("no answer".to_owned(), &why);
                break;
            }
        }
    }
    tally
}

fn write_request(mode: Mode, count: u64, events: &mut Events, request: &mut Vec<u8>, body: &mut Vec<u8>) {
    body.clear();
    request.clear();
    for _ in 0..count {
        events.write_next(body);
        if mode == Mode::Ndjson {
            body.push(b'\n');
        }
    }
    let content_type = match mode {
        Mode::Single => "application/json",
        Mode::Ndjson => "application/x-ndjson",
    };
    // Writing to a vector cannot fail.
    let _ = write!(
        request,
        "POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    request.extend_from_slice(body);
}

impl Tally {
    fn settle(&mut self, plan: &Plan, answer: &Answer<'_>, expected: &str, count: u64, sent: Instant) {
        let now = clock::now();
        if answer.status != 201 {
            let text = String::from_utf8_lossy(answer.body);
            self.refuse(answer.status.to_string(), &text);
            return;
        }
        if memmem::find(answer.body, expected.as_bytes()).is_none() {
            let text = String::from_utf8_lossy(answer.body);
            self.refuse(format!("201 without {expected}"), &text);
            return;
        }
        self.acked += count;
        if (plan.measure_from..plan.until).contains(&now) {
            self.measured += count;
            self.acks.push(now - sent);
        }
    }

    fn refuse(&mut self, kind: String, text: &str) {
        *self.errors.entry(kind).or_default() += 1;
        self.first_refusal.get_or_insert_with(|| text.chars().take(REFUSAL_CHARS_MAX).collect());
    }

    fn append(&mut self, other: Self) {
        self.acked += other.acked;
        self.measured += other.measured;
        self.acks.append(other.acks);
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.first_refusal = self.first_refusal.take().or(other.first_refusal);
    }
}
