//! Thousands of webhooks whose endpoint accepts and never answers, beside a few healthy ones: those must not notice. And one
//! that is made after them, and of which nothing is known either: it must be asked within seconds.

use super::Bench;
use super::clock;
use super::http::Client;
use super::server::{Launch, Server, free_address};
use super::taker::{self, Post};
use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// An endpoint of which nothing is known may wait so long among those that never answer.
const FRESH_MAX: Duration = Duration::from_secs(20);
/// The healthy ones may be slower by this.
const RATIO_MAX: f64 = 2.0;
/// Of each side, in turn: what else the machine does falls on both. The starts of a side lie more than a minute apart, for
/// after two in a minute the server counts attempts before it makes them.
const ROUNDS: usize = 2;
const WARM_UP: u32 = 5;
/// So long a silent connection is held; longer than any attempt takes.
const HOLD: Duration = Duration::from_secs(30);
const CREATORS: usize = 8;
const STALLED: Duration = Duration::from_mins(1);

/// How many of each, and for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Webhooks to the endpoint that never answers.
    #[arg(long, default_value_t = 9_989)]
    webhooks: usize,
    /// Webhooks to the healthy one.
    #[arg(long, default_value_t = 10)]
    healthy: usize,
    /// Events a second.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Seconds of each of the measurements.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
}

/// When each event was sent, and how old it was when it came to a healthy webhook.
#[derive(Debug, Default)]
struct Times {
    sent: Vec<Instant>,
    /// What came first of each event at each webhook.
    ages: HashMap<(String, usize), Duration>,
}

type Shared = Arc<Mutex<Times>>;

/// A data folder with healthy webhooks, and others beside them or not.
struct Side {
    data: PathBuf,
    times: Shared,
    ages: Vec<Duration>,
}

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let mut sides = [prepare(bench, options, 0)?, prepare(bench, options, options.webhooks)?];
    for _ in 0..ROUNDS {
        sides.iter_mut().try_for_each(|side| measure(bench, options, side))?;
    }
    let [alone, beside] = sides.map(|side| p99(side.ages));
    let (alone, beside) = (alone.context("nothing came")?, beside.context("nothing came")?);
    bench.report.fact("alone_p99_us", micros(alone));
    bench.report.fact("beside_p99_us", micros(beside));
    let ratio = beside.as_secs_f64() / alone.as_secs_f64().max(f64::EPSILON);
    bench.report.fact("ratio", format!("{ratio:.2}"));
    if ratio > RATIO_MAX && !bench.binary.is_debug() {
        bench.report.violation(format!("p99 of the healthy is {beside:?}, alone {alone:?}"));
    }
    Ok(())
}

fn p99(mut ages: Vec<Duration>) -> Option<Duration> {
    ages.sort();
    ages.get(ages.len() * 99 / 100).copied()
}

/// Makes the webhooks of a side.
fn prepare(bench: &mut Bench, options: &Options, blackholes: usize) -> Result<Side> {
    let side =
        Side { data: bench.path().join(format!("data-{blackholes}")), times: Shared::default(), ages: Vec::new() };
    let server = Launch::plain(&bench.binary, &side.data, free_address()?).start_ready()?;
    // After the start: the server is tested within the limit that it was given.
    raise_files()?;
    create(server.address, taker::take(endpoint(Arc::clone(&side.times)))?, options.healthy)?;
    // Healthy is who is known to answer: among ten thousand that are new, nobody is.
    publish(&server, &side.times, options, options.rate)?;
    wait_all(&side.times, options.healthy)?;
    create(server.address, blackhole()?, blackholes)?;
    if blackholes > 0 {
        fresh(bench, &server, options)?;
    }
    server.kill()?;
    Ok(side)
}

/// How long the first event takes to a healthy webhook that is as new as all the others.
fn fresh(bench: &mut Bench, server: &Server, options: &Options) -> Result<()> {
    let times = Shared::default();
    create(server.address, taker::take(endpoint(Arc::clone(&times)))?, 1)?;
    publish(server, &times, options, 1)?;
    wait_all(&times, 1)?;
    let waited = lock(&times).ages.values().copied().max().unwrap_or_default();
    bench.report.fact("fresh_ms", micros(waited) / 1_000);
    if waited > FRESH_MAX && !bench.binary.is_debug() {
        bench.report.violation(format!("the first event to a new webhook took {waited:?}"));
    }
    Ok(())
}

/// Adds to the ages of a side.
fn measure(bench: &mut Bench, options: &Options, side: &mut Side) -> Result<()> {
    let binary = bench.binary.clone();
    let server = Launch::plain(&binary, &side.data, free_address()?).start_ready()?;
    publish(&server, &side.times, options, options.rate * WARM_UP)?;
    wait_all(&side.times, options.healthy)?;
    let before = lock(&side.times).sent.len();
    publish(&server, &side.times, options, options.rate * options.seconds)?;
    wait_all(&side.times, options.healthy)?;
    let times = lock(&side.times);
    side.ages.extend(times.ages.iter().filter(|((_, number), _)| *number >= before).map(|(_, age)| *age));
    let files = server.errors().lines().filter(|line| line.contains("Too many open files")).count();
    if files > 0 {
        bench.report.violation(format!("{files} lines about too many open files"));
    }
    server.kill()
}

fn raise_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("raising the limit of open files")
}

/// Takes connections and holds them, silent.
fn blackhole() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let mut held = VecDeque::new();
        for stream in listener.incoming().flatten() {
            let now = clock::now();
            held.push_back((now, stream));
            while held.front().is_some_and(|(since, _)| now.duration_since(*since) > HOLD) {
                held.pop_front();
            }
        }
    });
    Ok(address)
}

/// Notes how old each event is.
fn endpoint(times: Shared) -> Arc<taker::Judge> {
    Arc::new(move |post: &Post| {
        let now = clock::now();
        let number = serde_json::from_slice::<serde_json::Value>(&post.body).ok();
        let number = number.and_then(|event| usize::try_from(event["data"]["number"].as_u64()?).ok());
        let mut times = lock(&times);
        if let Some((event, sent)) = number.and_then(|number| Some((number, *times.sent.get(number)?))) {
            times.ages.entry((post.path.clone(), event)).or_insert(now - sent);
        }
        200
    })
}

/// Makes webhooks over a few connections.
pub(super) fn create(server: SocketAddr, endpoint: SocketAddr, count: usize) -> Result<()> {
    let threads: Vec<_> = (0..CREATORS.min(count))
        .map(|first| thread::spawn(move || create_each(server, endpoint, (first..count).step_by(CREATORS))))
        .collect();
    for thread in threads {
        thread.join().ok().context("a creator panicked")??;
    }
    Ok(())
}

fn create_each(server: SocketAddr, endpoint: SocketAddr, numbers: impl Iterator<Item = usize>) -> Result<()> {
    let mut client = Client::new(server);
    for number in numbers {
        let url = format!("http://{endpoint}/{number}");
        let body = json!({"url": url, "retry": {"schedule": ["1s", "2s", "4s"]}, "deactivateAfter": null}).to_string();
        let reply = client.post("/webhooks", &["Content-Type: application/json".to_owned()], body.as_bytes())?;
        ensure!(reply.status == 201, "POST /webhooks: {} {}", reply.status, reply.excerpt());
    }
    Ok(())
}

/// Publishes so many events at the rate.
fn publish(server: &Server, times: &Shared, options: &Options, count: u32) -> Result<()> {
    let mut client = Client::new(server.address);
    let begun = clock::now();
    for turn in 0..count {
        let due = begun + Duration::from_secs(1) * turn / options.rate.max(1);
        thread::sleep(due.saturating_duration_since(clock::now()));
        let number = {
            let mut times = lock(times);
            times.sent.push(clock::now());
            times.sent.len() - 1
        };
        let body = json!({"eventType": "order.created", "data": {"number": number}}).to_string();
        let reply = client.post("/events", &["Content-Type: application/json".to_owned()], body.as_bytes())?;
        ensure!(reply.status == 201, "POST /events: {} {}", reply.status, reply.excerpt());
    }
    Ok(())
}

/// Waits until every healthy webhook got every event.
fn wait_all(times: &Shared, healthy: usize) -> Result<()> {
    let until = clock::now() + STALLED;
    loop {
        let (came, due) = {
            let times = lock(times);
            (times.ages.len(), times.sent.len() * healthy)
        };
        if came >= due {
            return Ok(());
        }
        ensure!(clock::now() < until, "only {came} of {due} came to the healthy webhooks");
        thread::sleep(Duration::from_millis(20));
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn lock(times: &Mutex<Times>) -> std::sync::MutexGuard<'_, Times> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}
