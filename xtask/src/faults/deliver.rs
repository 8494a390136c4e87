//! `kill -9` under load with webhooks: fast, slow and failing ones, some with filters.

use super::Bench;
use super::book::Book;
use super::chance::Chance;
use super::clock::{self, parse_duration};
use super::event::{Mark, Run};
use super::http::Client;
use super::ledger::Ledger;
use super::load::{Fleet, Mix};
use super::server::{Launch, Server, free_address};
use super::taker::{self, Post};
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Of a webhook, sent and its outcome not committed: what one kill may repeat.
const UNSETTLED_MAX: usize = 256;
/// So long after it is ready, everything that was in flight at the kill has come again.
const AGAIN_WITHIN: Duration = Duration::from_secs(2);
/// How long a slow endpoint takes.
const SLOW: Duration = Duration::from_millis(50);
/// A failing endpoint fails once in so many times.
const FAILS_ONE_IN: u64 = 5;
/// Two steps: three attempts, so that some deliveries are given up.
const SCHEDULE: [&str; 2] = ["1s", "2s"];
/// So long without anything new, and nothing more is waited for.
const STALLED: Duration = Duration::from_secs(15);
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
const WORKERS: u32 = 20;

/// How often, and on what.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How often the server is killed.
    #[arg(long, default_value_t = 30)]
    kills: u32,
    /// Webhooks: in turn a fast, a slow, a failing, a filtered one, and one of CloudEvents.
    #[arg(long, default_value_t = 20)]
    webhooks: usize,
    /// Events a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// The shortest time between ready and kill.
    #[arg(long, value_parser = parse_duration, default_value = "200ms")]
    after_min: Duration,
    /// The longest time between ready and kill.
    #[arg(long, value_parser = parse_duration, default_value = "2500ms")]
    after_max: Duration,
}

impl Options {
    pub(super) fn of_all(short: bool) -> Self {
        let (kills, after_max) = if short { (6, 1_500) } else { (30, 2_500) };
        let (after_min, after_max) = (Duration::from_millis(200), Duration::from_millis(after_max));
        Self { kills, webhooks: 20, rate: 500, after_min, after_max }
    }
}

/// From a kill to the next.
#[derive(Debug, Clone, Copy)]
struct Life {
    killed: Instant,
    ready: Instant,
}

/// How a webhook behaves, by its number.
#[derive(Debug, Clone, Copy)]
struct Kind(usize);

impl Kind {
    fn is_slow(self) -> bool {
        self.0 % 5 == 1
    }

    fn fails(self) -> bool {
        self.0 % 5 == 2
    }

    /// Whether it gets the events of a key.
    fn wants(self, key: u32) -> bool {
        self.0 % 5 != 3 || Run::event_type(key).starts_with("order.")
    }

    fn draft(self, address: SocketAddr, secret: &[u8]) -> Value {
        json!({
            "url": format!("http://{address}/{}", self.0),
            "secret": format!("whsec_{}", STANDARD.encode(secret)),
            "eventTypes": if self.wants(2) { vec![] } else { vec!["order.*"] },
            "format": if self.0 % 5 == 4 { "cloudevents" } else { "envelope" },
            "maxConcurrency": if self.is_slow() { 64 } else { 16 },
            "retry": {"schedule": SCHEDULE},
            "deactivateAfter": null,
        })
    }
}

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let data = bench.path().join("data");
    let binary = bench.binary.clone();
    let launch = Launch::plain(&binary, &data, free_address()?);
    let ledger = bench.ledger(1);
    let secrets = secrets(bench, options.webhooks);
    let attempts_max = u32::try_from(SCHEDULE.len())? + 1;
    let book = Arc::new(Book::new(ledger.run.clone(), secrets.clone(), attempts_max));
    let endpoint = taker::take(endpoint(Arc::clone(&book), bench.chance.fork(4).next()))?;
    let server = launch.start_ready()?;
    let ids = subscribe(&server, endpoint, &secrets)?;
    let pause = Duration::from_secs(1) * WORKERS / options.rate.max(1);
    let fleet = Fleet::new(launch.address, ledger, WORKERS, 0, Mix::Paced(pause), &bench.chance);
    let begun = clock::now();
    fleet.load();
    let (server, lives) = kill_and_return(bench, options, &launch, server)?;
    fleet.settle(SETTLE_WITHIN)?;
    let took = begun.elapsed();
    let ledger = fleet.end();
    drain(&book, &ledger, options.webhooks);
    bench.report.fact("events_per_second", ledger.acked_events(None) / took.as_secs().max(1));
    judge_deliveries(bench, &book, &ledger, &server, &ids)?;
    judge_lives(bench, &book, options.webhooks, &lives);
    super::kill::judge(bench, &ledger, server, &data)
}

fn secrets(bench: &Bench, count: usize) -> Vec<Vec<u8>> {
    let mut chance = bench.chance.fork(5);
    (0..count).map(|_| (0..4).flat_map(|_| chance.next().to_le_bytes()).collect()).collect()
}

/// Takes what comes to all of them: the path is the webhook's number.
fn endpoint(book: Arc<Book>, seed: u64) -> Arc<taker::Judge> {
    let count = AtomicU64::new(seed);
    Arc::new(move |post: &Post| {
        let Some(number) = post.path.get(1..).and_then(|number| number.parse().ok()) else { return 404 };
        let Some(arrival) = book.arrive(number, post) else { return 200 };
        let kind = Kind(number);
        if kind.is_slow() {
            std::thread::sleep(SLOW);
        }
        if kind.fails() && Chance::new(count.fetch_add(1, Ordering::Relaxed)).one_in(FAILS_ONE_IN) {
            return 503;
        }
        book.accept(number, arrival.mark);
        200
    })
}

fn subscribe(server: &Server, endpoint: SocketAddr, secrets: &[Vec<u8>]) -> Result<Vec<String>> {
    let mut client = Client::new(server.address);
    let mut ids = Vec::new();
    for (number, secret) in secrets.iter().enumerate() {
        let body = Kind(number).draft(endpoint, secret).to_string();
        let reply = client.post("/webhooks", &["Content-Type: application/json".to_owned()], body.as_bytes())?;
        ensure!(reply.status == 201, "POST /webhooks: {} {}", reply.status, reply.excerpt());
        let answer: Value = serde_json::from_slice(&reply.body)?;
        ids.push(answer["id"].as_str().context("a webhook without an id")?.to_owned());
    }
    Ok(ids)
}

fn kill_and_return(
    bench: &mut Bench,
    options: &Options,
    launch: &Launch<'_>,
    mut server: Server,
) -> Result<(Server, Vec<Life>)> {
    let mut chance = bench.chance.fork(3);
    let mut lives = Vec::new();
    for kill in 1..=options.kills {
        std::thread::sleep(chance.between(options.after_min, options.after_max));
        server.kill()?;
        let killed = clock::now();
        server = launch.start_ready().with_context(|| format!("after kill {kill}"))?;
        lives.push(Life { killed, ready: clock::now() });
        if kill % 10 == 0 {
            eprintln!("deliver: {kill} of {}", options.kills);
        }
    }
    // The last life is judged too.
    std::thread::sleep(AGAIN_WITHIN);
    bench.report.fact("kills", options.kills);
    Ok((server, lives))
}

/// The acknowledged events that did not come to a webhook, or only came to be refused.
fn missing(book: &Book, ledger: &Ledger, number: usize) -> BTreeMap<Mark, String> {
    let hook = book.hook(number);
    let mut missing = BTreeMap::new();
    for request in &ledger.requests {
        let Some(ack) = &request.ack else { continue };
        for (mark, numbers) in request.marks.iter().zip(&ack.numbers) {
            if Kind(number).wants(mark.key) && !hook.has_accepted(*mark) {
                let id = numbers.event_id.as_deref().map_or_else(|| ledger.run.own_id(*mark), str::to_owned);
                missing.insert(*mark, id);
            }
        }
    }
    missing
}

/// Waits until everything came, or nothing new comes any more.
fn drain(book: &Book, ledger: &Ledger, webhooks: usize) {
    let (mut least, mut since) = (usize::MAX, clock::now());
    while least > 0 && since.elapsed() < STALLED {
        std::thread::sleep(Duration::from_millis(500));
        let left = (0..webhooks).map(|number| missing(book, ledger, number).len()).sum();
        if left < least {
            (least, since) = (left, clock::now());
        }
    }
}

/// Each acknowledged event came to each webhook that wants it, or the server says that it is dead or yet to come.
fn judge_deliveries(bench: &mut Bench, book: &Book, ledger: &Ledger, server: &Server, ids: &[String]) -> Result<()> {
    let mut client = Client::new(server.address);
    let mut told = BTreeMap::<String, u64>::new();
    let (mut posts, mut lost) = (0, 0);
    for (number, id) in ids.iter().enumerate() {
        let mut doubts: HashSet<Mark> = book.hook(number).doubts.iter().copied().collect();
        for (mark, event) in missing(book, ledger, number) {
            let reply = client.get(&format!("/events/{event}/deliveries?limit=100"))?;
            let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            let found = answer["data"].as_array().into_iter().flatten().find(|item| item["webhook"] == **id);
            let status = found.and_then(|item| item["status"].as_str()).unwrap_or("unknown");
            *told.entry(status.to_owned()).or_default() += 1;
            if status == "dead" {
                doubts.remove(&mark);
            }
            if !matches!(status, "dead" | "pending" | "retrying") {
                lost += 1;
                if lost <= 5 {
                    bench.report.violation(format!("{mark:?}, {event}, never came to webhook {number}: {status}"));
                }
            }
        }
        for mark in doubts {
            bench.report.violation(format!("webhook {number} got what follows {mark:?}, which is not dead, before it"));
        }
        let hook = book.hook(number);
        posts += hook.posts;
        bench.report.violations("webhooks", hook.words());
    }
    if lost > 5 {
        bench.report.violation(format!("{lost} deliveries were lost"));
    }
    bench.report.fact("posts", posts);
    bench.report.fact("undelivered", json!(told));
    Ok(())
}

/// After each kill: how much came again to a webhook, and until when.
///
/// What comes a second time after a kill was refused the first time, and waits for its step; only the first counts. An
/// endpoint that refuses one in five may have to wait for that too: behind an event that came again and was refused, its
/// aggregate waits for the step (1 s, then 2 s), and after five refusals in a row all of it does. So it has no bound on
/// time, but its last is told.
fn judge_lives(bench: &mut Bench, book: &Book, webhooks: usize, lives: &[Life]) {
    let mut most = 0;
    let (mut waits, mut waits_of_failing) = (Vec::new(), Vec::new());
    for (at, life) in lives.iter().enumerate() {
        let end = lives.get(at + 1).map(|next| next.killed);
        let (mut last, mut last_of_failing) = (Duration::ZERO, Duration::ZERO);
        for number in 0..webhooks {
            let hook = book.hook(number);
            let within = |when: Instant| when >= life.killed && end.is_none_or(|end| when < end);
            let again = hook.repeats.iter().filter(|(when, _)| within(*when));
            let count = again.clone().count();
            let mut seen = HashSet::new();
            let again = again.filter(|(_, mark)| seen.insert(*mark)).map(|(when, _)| *when);
            most = most.max(count);
            if count > UNSETTLED_MAX {
                bench.report.violation(format!("kill {}: webhook {number} got {count} again", at + 1));
            }
            let last = if Kind(number).fails() { &mut last_of_failing } else { &mut last };
            *last = (*last).max(again.max().map_or(Duration::ZERO, |when| when.saturating_duration_since(life.ready)));
        }
        if last > AGAIN_WITHIN && !bench.binary.is_debug() {
            bench.report.violation(format!("kill {}: the last came again {last:?} after ready", at + 1));
        }
        waits.push(last);
        waits_of_failing.push(last_of_failing);
    }
    let early = |(when, _): &&(Instant, Mark)| lives.first().is_none_or(|first| *when < first.killed);
    let early: usize = (0..webhooks).map(|number| book.hook(number).repeats.iter().filter(early).count()).sum();
    if early > 0 {
        bench.report.violation(format!("{early} came again without a kill"));
    }
    let all: usize = (0..webhooks).map(|number| book.hook(number).repeats.len()).sum();
    bench.report.fact("again", all);
    bench.report.fact("again_max", most);
    waits.sort();
    if let (Some(median), Some(last)) = (waits.get(waits.len() / 2), waits.last()) {
        bench.report.millis("again_ms_median", *median);
        bench.report.millis("again_ms_max", *last);
    }
    bench.report.millis("again_ms_max_of_failing", waits_of_failing.into_iter().max().unwrap_or_default());
}
