//! Thousands of webhooks whose endpoint accepts and never answers, beside a few healthy ones: those must not notice.

use super::Bench;
use super::clock;
use super::http::Client;
use super::server::{Launch, Server, free_address};
use super::taker::{self, Post};
use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The healthy ones may be slower by this.
const RATIO_MAX: f64 = 2.0;
/// So long a silent connection is held; longer than any attempt takes.
const HOLD: Duration = Duration::from_secs(30);
const CREATORS: usize = 8;
const STALLED: Duration = Duration::from_mins(1);

/// How many of each, and for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Webhooks to the endpoint that never answers.
    #[arg(long, default_value_t = 9_990)]
    webhooks: usize,
    /// Webhooks to the healthy one.
    #[arg(long, default_value_t = 10)]
    healthy: usize,
    /// Events a second.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

/// When each event was sent, and how old it was when it came to a healthy webhook.
#[derive(Debug, Default)]
struct Times {
    sent: Vec<Instant>,
    ages: Vec<Duration>,
}

type Shared = Arc<Mutex<Times>>;

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let alone = measure(bench, options, 0)?;
    let beside = measure(bench, options, options.webhooks)?;
    bench.report.fact("alone_p99_us", micros(alone));
    bench.report.fact("beside_p99_us", micros(beside));
    let ratio = beside.as_secs_f64() / alone.as_secs_f64().max(f64::EPSILON);
    bench.report.fact("ratio", format!("{ratio:.2}"));
    if ratio > RATIO_MAX && !bench.binary.is_debug() {
        bench.report.violation(format!("p99 of the healthy is {beside:?}, alone {alone:?}"));
    }
    Ok(())
}

/// The 99th percentile of the healthy ones' ages, beside so many that never answer.
fn measure(bench: &mut Bench, options: &Options, blackholes: usize) -> Result<Duration> {
    let data = bench.path().join(format!("data-{blackholes}"));
    let binary = bench.binary.clone();
    let server = Launch::plain(&binary, &data, free_address()?).start_ready()?;
    // After the start: the server is tested within the limit that it was given.
    raise_files()?;
    let times = Shared::default();
    let healthy = taker::take(endpoint(Arc::clone(&times)))?;
    create(server.address, healthy, options.healthy)?;
    // They have shown that they take events before the others come.
    publish(&server, &times, options, 1)?;
    wait_all(&times, options.healthy)?;
    create(server.address, blackhole()?, blackholes)?;
    let warm_up = options.rate * 5;
    publish(&server, &times, options, warm_up)?;
    wait_all(&times, options.healthy)?;
    let before = lock(&times).ages.len();
    publish(&server, &times, options, options.rate * options.seconds)?;
    wait_all(&times, options.healthy)?;
    let mut ages = lock(&times).ages.split_off(before);
    ages.sort();
    let errors = server.errors();
    let files = errors.lines().filter(|line| line.contains("Too many open files")).count();
    if files > 0 {
        bench.report.violation(format!("{files} lines about too many open files"));
    }
    server.kill()?;
    ages.get(ages.len() * 99 / 100).copied().context("nothing came")
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
        if let Some(sent) = number.and_then(|number| times.sent.get(number).copied()) {
            times.ages.push(now - sent);
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
