//! Many webhooks that are down at once and come back together, each with a backlog: what came in no second may be far
//! above the mean.

use super::Bench;
use super::blackholes::create;
use super::clock;
use super::http::Client;
use super::server::{Launch, free_address};
use super::taker::{self, Post};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The busiest second against the mean.
const PEAK_MAX: f64 = 3.0;
const STALLED: Duration = Duration::from_mins(1);
const PORTS: std::ops::Range<u16> = 21_000..22_000;

/// How many, and how much waits.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Webhooks that are down.
    #[arg(long, default_value_t = 1_000)]
    webhooks: usize,
    /// Events that wait for each of them.
    #[arg(long, default_value_t = 100)]
    backlog: usize,
    /// For how many seconds they are down.
    #[arg(long, default_value_t = 20)]
    down: u64,
}

/// What came since the endpoint is back.
#[derive(Debug, Default)]
struct Came {
    /// `None`: it is down.
    back: Option<Instant>,
    /// When each request came, since then.
    after: Vec<Duration>,
    refused: u64,
}

/// How the endpoint is down.
#[derive(Debug, Clone, Copy)]
enum Down {
    /// It answers 503.
    Answers,
    /// Nobody listens: connections are refused.
    Closed,
}

/// Runs it, for each way to be down.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    [Down::Answers, Down::Closed].into_iter().try_for_each(|down| run_one(bench, options, down))
}

fn run_one(bench: &mut Bench, options: &Options, down: Down) -> Result<()> {
    let data = bench.path().join(format!("data-{down:?}"));
    let binary = bench.binary.clone();
    let server = Launch::plain(&binary, &data, free_address()?).start_ready()?;
    let came = Arc::new(Mutex::new(Came::default()));
    let listener = free_listener()?;
    let address = listener.local_addr()?;
    match down {
        Down::Answers => taker::serve(listener, endpoint(Arc::clone(&came))),
        Down::Closed => drop(listener),
    }
    create(server.address, address, options.webhooks)?;
    let lines: Vec<String> =
        (0..options.backlog).map(|n| json!({"eventType": "order.created", "data": n}).to_string()).collect();
    let kind = ["Content-Type: application/x-ndjson".to_owned()];
    let reply = Client::new(server.address).post("/events", &kind, (lines.join("\n") + "\n").as_bytes())?;
    ensure!(reply.status == 201, "POST /events: {} {}", reply.status, reply.excerpt());
    thread::sleep(Duration::from_secs(options.down));
    lock(&came).back = Some(clock::now());
    if let Down::Closed = down {
        taker::serve(TcpListener::bind(address)?, endpoint(Arc::clone(&came)));
    }
    let due = wait_all(&came, options.webhooks * options.backlog)?;
    judge(bench, down, &came, due);
    server.stop()
}

/// A listener below the ports that the system gives to whoever connects: a connection to one of those, with nobody there,
/// may meet itself.
fn free_listener() -> Result<TcpListener> {
    let found = PORTS.into_iter().find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    found.context("no free port")
}

fn endpoint(came: Arc<Mutex<Came>>) -> Arc<taker::Judge> {
    Arc::new(move |_: &Post| {
        let now = clock::now();
        let mut came = lock(&came);
        let Some(back) = came.back else {
            came.refused += 1;
            return 503;
        };
        came.after.push(now - back);
        200
    })
}

/// Waits until nothing more is to come: what was given up while it was down never comes.
fn wait_all(came: &Mutex<Came>, most: usize) -> Result<usize> {
    let (mut last, mut since) = (0, clock::now());
    loop {
        let count = lock(came).after.len();
        if count > last {
            (last, since) = (count, clock::now());
        }
        if count >= most || (count > 0 && since.elapsed() > Duration::from_secs(10)) {
            return Ok(count);
        }
        ensure!(since.elapsed() < STALLED, "nothing came in {STALLED:?} after they were back");
        thread::sleep(Duration::from_millis(100));
    }
}

fn judge(bench: &mut Bench, down: Down, came: &Mutex<Came>, count: usize) {
    let name = |fact: &str| format!("{}_{fact}", format!("{down:?}").to_lowercase());
    let came = lock(came);
    let seconds = came.after.iter().map(|at| usize::try_from(at.as_secs()).unwrap_or(0));
    let last = seconds.clone().max().unwrap_or(0);
    let mut each = vec![0_u32; last + 1];
    seconds.for_each(|second| each[second] += 1);
    let took = came.after.iter().max().map_or(0.0, Duration::as_secs_f64);
    let peak = f64::from(each.iter().copied().max().unwrap_or(0));
    let mean = f64::from(each.iter().sum::<u32>()) / took.max(1.0);
    bench.report.fact(&name("answered_while_down"), came.refused);
    bench.report.fact(&name("came"), count as u64);
    bench.report.fact(&name("seconds_until_all"), format!("{took:.1}"));
    bench.report.fact(&name("each_second"), Value::from(each));
    bench.report.fact(&name("peak_to_mean"), format!("{:.2}", peak / mean));
    if peak > PEAK_MAX * mean {
        bench.report.violation(format!("{down:?}: a second with {peak} requests, {mean:.0} in the mean"));
    }
}

fn lock(came: &Mutex<Came>) -> std::sync::MutexGuard<'_, Came> {
    came.lock().unwrap_or_else(PoisonError::into_inner)
}
