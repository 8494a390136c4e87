//! `kill -9` of workers that share a consumer: every message is processed, in order, and none is stuck.
//!
//! A worker is a process of its own ([`worker`]): it fetches, writes a line for each message to a file that all workers
//! append to, and acknowledges. So the file has the order in which messages were processed, whoever did it.

pub(super) mod worker;

use super::Bench;
use super::clock::{self, parse_duration};
use super::http::Client;
use super::server::{Launch, free_address};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const CONSUMER: &str = "work";
/// Events published at once.
const BATCH: u32 = 1_000;
/// So long without a new line, and nothing more is waited for: twice the time after which a message comes back.
const STALLED: Duration = Duration::from_secs(8);
const ACK_WAIT: &str = "2s";
const POLL: Duration = Duration::from_millis(20);

/// How much, and how often.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Messages.
    #[arg(long, default_value_t = 100_000)]
    messages: u32,
    /// Aggregates that they belong to.
    #[arg(long, default_value_t = 2_000)]
    aggregates: u32,
    /// Workers at a time.
    #[arg(long, default_value_t = 4)]
    workers: u32,
    /// Messages that a worker fetches at once.
    #[arg(long, default_value_t = 100)]
    batch: u32,
    /// How often a worker is killed.
    #[arg(long, default_value_t = 60)]
    kills: u32,
    /// The shortest time between two kills.
    #[arg(long, value_parser = parse_duration, default_value = "5ms")]
    after_min: Duration,
    /// The longest time between two kills.
    #[arg(long, value_parser = parse_duration, default_value = "60ms")]
    after_max: Duration,
}

impl Options {
    pub(super) fn of_all(short: bool) -> Self {
        let (messages, kills) = if short { (10_000, 8) } else { (100_000, 60) };
        let (after_min, after_max) = (Duration::from_millis(5), Duration::from_millis(60));
        Self { messages, aggregates: 2_000, workers: 4, batch: 100, kills, after_min, after_max }
    }
}

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let data = bench.path().join("data");
    let done = bench.path().join("done");
    fs::write(&done, b"")?;
    let binary = bench.binary.clone();
    let launch = Launch::plain(&binary, &data, free_address()?);
    let server = launch.start_ready()?;
    let mut client = Client::new(server.address);
    // A worker may be killed with the same message again and again: that must not give it up.
    let settings = json!({ "eventTypes": ["work.*"], "ackWait": ACK_WAIT, "maxRetries": 100 });
    let reply = client.put(&format!("/consumers/{CONSUMER}"), settings.to_string().as_bytes())?;
    ensure!(reply.status == 201, "PUT /consumers: {} {}", reply.status, reply.excerpt());
    publish(&mut client, options)?;
    let begun = clock::now();
    let killed = work(bench, options, server.address, &done)?;
    let took = begun.elapsed();
    let lines = fs::read_to_string(&done)?;
    bench.report.fact("kills", killed);
    judge(bench, options, &lines);
    bench.report.millis("took_ms", took);
    let per_second = u128::from(options.messages) * 1_000 / took.as_millis().max(1);
    bench.report.fact("messages_per_second", u64::try_from(per_second).unwrap_or(u64::MAX));
    judge_consumer(bench, &mut client)?;
    server.stop()?;
    bench.report.violations("log", bench.binary.audit_complaint(&data)?);
    Ok(())
}

fn publish(client: &mut Client, options: &Options) -> Result<()> {
    let headers = ["Content-Type: application/x-ndjson".to_owned()];
    let mut number = 0;
    while number < options.messages {
        let until = (number + BATCH).min(options.messages);
        let event = |number: u32| {
            let aggregate = format!("a{}", number % options.aggregates);
            json!({ "eventType": "work.asked", "aggregateId": aggregate, "data": number }).to_string() + "\n"
        };
        let body: String = (number..until).map(event).collect();
        let reply = client.post("/events", &headers, body.as_bytes())?;
        ensure!(reply.status == 201, "POST /events: {} {}", reply.status, reply.excerpt());
        number = until;
    }
    Ok(())
}

/// Has workers work until all is done or nothing happens any more, and kills one now and then.
fn work(bench: &mut Bench, options: &Options, address: SocketAddr, done: &Path) -> Result<u32> {
    let mut chance = bench.chance.fork(3);
    let start = || worker(address, done, options.batch);
    let mut workers = Workers((0..options.workers).map(|_| start()).collect::<Result<_>>()?);
    let mut killed = 0;
    let (mut length, mut changed) = (0, clock::now());
    let mut next_kill = changed + chance.between(options.after_min, options.after_max);
    loop {
        sleep(POLL);
        let now = clock::now();
        if killed < options.kills && now >= next_kill {
            let place = chance.index(workers.0.len());
            workers.replace(place, start()?)?;
            killed += 1;
            next_kill = now + chance.between(options.after_min, options.after_max);
        }
        let text = fs::metadata(done)?.len();
        if text > length {
            (length, changed) = (text, now);
        } else if is_over(now, changed, options, done)? {
            return Ok(killed);
        }
    }
}

fn is_over(now: Instant, changed: Instant, options: &Options, done: &Path) -> Result<bool> {
    if now.duration_since(changed) > STALLED {
        return Ok(true);
    }
    // Only when the file has stopped growing: it is read whole.
    let messages = usize::try_from(options.messages)?;
    let enough = now.duration_since(changed) > 5 * POLL;
    Ok(enough && distinct(&fs::read_to_string(done)?) >= messages)
}

fn distinct(lines: &str) -> usize {
    lines.lines().collect::<std::collections::HashSet<_>>().len()
}

/// Running workers; they end with this.
struct Workers(Vec<Child>);

impl Workers {
    fn replace(&mut self, place: usize, fresh: Child) -> Result<()> {
        let mut old = std::mem::replace(&mut self.0[place], fresh);
        let killed = old.kill();
        old.wait()?;
        Ok(killed?)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            // One that has ended needs no kill.
            worker.kill().ok();
            worker.wait().ok();
        }
    }
}

fn worker(address: SocketAddr, done: &Path, batch: u32) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["faults", "worker", CONSUMER]).arg(address.to_string()).arg(done).arg(batch.to_string());
    command.stdin(Stdio::null()).spawn().context("a worker")
}

/// A line is `aggregate sequence`. In each aggregate a message is the next one, or the last one again: its worker was
/// killed before it was acknowledged.
fn judge(bench: &mut Bench, options: &Options, lines: &str) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    let (mut repeated, mut wrong) = (0_u64, Vec::new());
    for line in lines.lines() {
        let parsed = line.split_once(' ').and_then(|(key, number)| Some((key, number.parse().ok()?)));
        let Some((key, number)) = parsed else {
            wrong.push(format!("a line of half a message: {line:?}"));
            continue;
        };
        let before = last.entry(key).or_default();
        match number {
            _ if number == *before + 1 => *before = number,
            _ if number == *before => repeated += 1,
            _ => wrong.push(format!("{key}: {number} after {before}")),
        }
    }
    let processed: u64 = last.values().sum();
    if processed != u64::from(options.messages) {
        wrong.push(format!("{processed} of {} messages were processed", options.messages));
    }
    // What a kill leaves is one batch at the most.
    if repeated > u64::from(options.kills) * u64::from(options.batch) {
        wrong.push(format!("{repeated} messages came again after {} kills", options.kills));
    }
    bench.report.fact("processed", processed);
    bench.report.fact("repeated", repeated);
    bench.report.violations("order", wrong);
}

/// Nothing is left: the last words of workers that were killed have come back and were taken.
fn judge_consumer(bench: &mut Bench, client: &mut Client) -> Result<()> {
    let begun = clock::now();
    loop {
        let reply = client.get(&format!("/consumers/{CONSUMER}"))?;
        let shown: Value = serde_json::from_slice(&reply.body)?;
        let left = |name: &str| shown[name].as_u64().unwrap_or(u64::MAX);
        if ["lag", "inFlight", "pending", "deadLetters"].into_iter().all(|name| left(name) == 0) {
            return Ok(());
        }
        if begun.elapsed() > STALLED {
            bench.report.violation(format!("the consumer is not done: {shown}"));
            return Ok(());
        }
        sleep(POLL);
    }
}
