//! `kill -9` of applications, of Tidings and of their database, in turn, while transactions write to an outbox.
//!
//! Each transaction writes a row of its own into a table beside the event that it emits. So what was committed is what
//! the database says in the end, and the log must hold exactly that: each once, each aggregate in order.

mod database;

use super::Bench;
use super::chance::Chance;
use super::clock;
use super::http::Client;
use super::server::{Launch, Server, free_address};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use database::{Change, Database, Kind};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const APPLICATIONS: u64 = 8;
const AGGREGATES: u64 = 40;
/// Of so many transactions one is rolled back.
const ROLLED_BACK: u64 = 7;
const ARRIVE_WITHIN: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(50);
/// A new process of an application after one that ended.
const RESTART: Duration = Duration::from_millis(30);
const PAGE: usize = 250;

/// How often each is killed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How often each of the three is killed.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Whose outbox it is.
    #[arg(long, value_enum, default_value = "postgres")]
    database: Kind,
}

impl Options {
    /// For each kind of database.
    pub(super) fn of_all(short: bool) -> [Self; 3] {
        let kills = if short { 3 } else { 20 };
        [Kind::Postgres, Kind::Replication, Kind::Mariadb].map(|database| Self { kills, database })
    }

    /// What reports call it.
    pub(super) fn name(&self) -> &'static str {
        match self.database {
            Kind::Postgres => "outbox",
            Kind::Replication => "outbox-replication",
            Kind::Mariadb => "outbox-mariadb",
        }
    }
}

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let mut database = Database::start(options.database);
    let (data, config) = (bench.path().join("data"), bench.path().join("outbox.toml"));
    let mode = options.database.mode();
    let text = format!("[[outbox]]\nname = \"shop\"\nurl = \"{}\"\nmode = \"{mode}\"\n", database.url());
    std::fs::write(&config, text)?;
    let binary = bench.binary.clone();
    binary.run(&["outbox", "install", "--url", &database.url(), "--mode", mode])?;
    database.sql(&options.database.tables(AGGREGATES - 1));
    let launch = Launch { config: Some(&config), ..Launch::plain(&binary, &data, free_address()?) };
    let mut server = launch.start_ready()?;
    let applications = Applications::start(&database, options.database, &bench.chance);
    let mut chance = bench.chance.fork(5);
    for round in 0..options.kills {
        for victim in 0..3 {
            std::thread::sleep(chance.between(Duration::from_millis(80), Duration::from_millis(500)));
            match victim {
                0 => applications.kill_one(&mut chance),
                1 => {
                    server.kill()?;
                    server = launch.start()?;
                }
                _ => database.crash(),
            }
        }
        eprintln!("{}: {} of {} rounds", options.name(), round + 1, options.kills);
    }
    std::thread::sleep(Duration::from_millis(300));
    applications.end()?;
    bench.report.fact("kills_each", options.kills);
    judge(bench, &database, &mut server)?;
    server.stop()?;
    if let Some(complaint) = binary.audit_complaint(&data)? {
        bench.report.violation(complaint);
    }
    Ok(())
}

/// Processes of the database's client, each fed with transactions.
struct Applications {
    end: Arc<AtomicBool>,
    /// The process of each, while it runs.
    processes: Vec<Arc<Mutex<Option<Child>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Applications {
    fn start(database: &Database, kind: Kind, chance: &Chance) -> Self {
        let (end, mut processes, mut threads) = (Arc::new(AtomicBool::new(false)), Vec::new(), Vec::new());
        for number in 0..APPLICATIONS {
            let process = Arc::new(Mutex::new(None));
            let (end, chance, shared) = (Arc::clone(&end), chance.fork(100 + number), Arc::clone(&process));
            let client = database.client();
            threads.push(std::thread::spawn(move || application(client, kind, (number, chance), &end, &shared)));
            processes.push(process);
        }
        Self { end, processes, threads }
    }

    fn kill_one(&self, chance: &mut Chance) {
        let process = &self.processes[chance.index(self.processes.len())];
        if let Some(child) = &mut *process.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may have ended with its database.
            let _ = child.kill();
        }
    }

    fn end(self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads {
            ensure!(thread.join().is_ok(), "an application's thread ended badly");
        }
        Ok(())
    }
}

/// Runs one application until the end; a new process after each that was killed.
fn application(
    mut command: Command,
    kind: Kind,
    (number, mut chance): (u64, Chance),
    end: &AtomicBool,
    process: &Mutex<Option<Child>>,
) {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut count = 0_u64;
    while !end.load(Ordering::Relaxed) {
        let Ok(mut child) = command.spawn() else { return };
        let stdin = child.stdin.take();
        *process.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        if let Some(mut stdin) = stdin {
            while !end.load(Ordering::Relaxed) {
                count += 1;
                if stdin.write_all(kind.transaction(&change(number, count, &mut chance)).as_bytes()).is_err() {
                    break;
                }
            }
        }
        // Its input ended, so it ends after what it has read.
        let child = process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            let _ = child.wait();
        }
        std::thread::sleep(RESTART);
    }
}

fn change(number: u64, count: u64, chance: &mut Chance) -> Change {
    Change {
        name: format!("{number}-{count}"),
        looks: chance.one_in(2),
        thing: chance.below(AGGREGATES),
        pause: Duration::from_millis(chance.below(8)),
        rolled_back: chance.one_in(ROLLED_BACK),
    }
}

#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    offset: u64,
    aggregate_id: String,
    sequence_number: u64,
    data: Told,
}

#[derive(Debug, Deserialize)]
struct Told {
    name: String,
    v: u64,
}

/// Holds the log against what the database has.
fn judge(bench: &mut Bench, database: &Database, server: &mut Server) -> Result<()> {
    server.wait_ready(ARRIVE_WITHIN)?;
    let book = database.sql("SELECT name, thing, version FROM book");
    let committed: BTreeMap<&str, (&str, &str)> = book
        .lines()
        .map(|line| {
            let mut columns = line.split('|');
            let mut column = || columns.next().context("a line of the book has three columns");
            anyhow::Ok((column()?, (column()?, column()?)))
        })
        .collect::<Result<_>>()?;
    bench.report.fact("committed", committed.len());
    let seen = arrived(server.address, committed.len())?;
    bench.report.fact("in_log", seen.len());
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &seen {
        *counts.entry(&event.data.name).or_default() += 1;
        let before = last.insert(&event.aggregate_id, event.data.v).unwrap_or(0);
        if event.data.v != before + 1 || event.sequence_number != event.data.v {
            let Seen { offset, aggregate_id, sequence_number, data } = event;
            let what =
                format!("offset {offset}: {aggregate_id} is at {} after {before}, numbered {sequence_number}", data.v);
            bench.report.violation(what);
        }
        if !committed.contains_key(event.data.name.as_str()) {
            bench.report.violation(format!("{} is in the log and was never committed", event.data.name));
        }
    }
    let missing = committed.keys().filter(|name| !counts.contains_key(*name));
    bench.report.violations("lost", missing.map(|name| (*name).to_owned()));
    let repeated = counts.iter().filter(|(_, times)| **times > 1);
    bench.report.violations("repeated", repeated.map(|(name, times)| format!("{name}: {times} times")));
    Ok(())
}

/// The log, once it has as many events as were committed, or has stopped growing.
fn arrived(address: SocketAddr, count: usize) -> Result<Vec<Seen>> {
    let mut client = Client::new(address);
    let until = clock::now() + ARRIVE_WITHIN;
    let mut seen: Vec<Seen> = Vec::new();
    loop {
        let after = seen.last().map_or(0, |event| event.offset);
        let path = format!("/events?types=thing.changed&after={after}&limit={PAGE}&order=asc");
        let reply = client.get(&path)?;
        if reply.status != 200 {
            bail!("GET {path}: {} {}", reply.status, reply.excerpt());
        }
        let page: Page = serde_json::from_slice(&reply.body)?;
        let whole = page.data.len() < PAGE;
        seen.extend(page.data);
        if whole {
            if seen.len() >= count && settled(&mut client)? || clock::now() > until {
                return Ok(seen);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Whether the outbox was read to its end a moment ago.
fn settled(client: &mut Client) -> Result<bool> {
    let health: serde_json::Value = serde_json::from_slice(&client.get("/health/events")?.body)?;
    Ok(health["outboxes"]["reading"] == 1 && health["outboxDelayMs"].as_u64().is_some_and(|delay| delay < 1_000))
}
