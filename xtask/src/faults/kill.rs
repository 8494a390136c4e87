//! `kill -9` under load, again and again on one folder.

use super::Bench;
use super::clock::parse_duration;
use super::ledger::Ledger;
use super::load::{Fleet, Mix};
use super::reader;
use super::server::{Launch, Server, free_address};
use anyhow::{Context, Result};
use clap::Args;
use std::path::Path;
use std::time::Duration;

const WORKERS: u32 = 6;
const LOADERS: u32 = 4;
const KEYS_OF_LOADERS: u32 = 1_000;
const SETTLE_WITHIN: Duration = Duration::from_secs(30);

/// How often, and on what.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How often the server is killed.
    #[arg(long, default_value_t = 30)]
    kills: u32,
    /// Events loaded before the first kill.
    #[arg(long, default_value_t = 0)]
    behind: u32,
    /// The longest wait from start to first acknowledgement [default: 1s, of a debug build 5s]
    #[arg(long, value_parser = parse_duration)]
    first_ack_max: Option<Duration>,
    /// The shortest time between first acknowledgement and kill.
    #[arg(long, value_parser = parse_duration, default_value = "200ms")]
    after_min: Duration,
    /// The longest time between first acknowledgement and kill.
    #[arg(long, value_parser = parse_duration, default_value = "1500ms")]
    after_max: Duration,
}

impl Options {
    pub(super) fn of_all(short: bool) -> Self {
        let (after_min, after_max) = if short { (50, 400) } else { (200, 1_500) };
        Self {
            kills: if short { 30 } else { 100 },
            behind: 0,
            first_ack_max: None,
            after_min: Duration::from_millis(after_min),
            after_max: Duration::from_millis(after_max),
        }
    }
}

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let data = bench.path().join("data");
    let binary = bench.binary.clone();
    let launch = Launch::plain(&binary, &data, free_address()?);
    let mut server = launch.start_ready()?;
    let ledger = load_behind(bench, &server, options.behind)?;
    let fleet = Fleet::new(launch.address, ledger, WORKERS, 0, Mix::Everything, &bench.chance);
    fleet.load();
    let first_ack = fleet.first_ack_after(server.started, SETTLE_WITHIN);
    first_ack.with_context(|| format!("no acknowledgement at all; {}", server.last_words()))?;
    server = kill_and_return(bench, options, &launch, &fleet, server)?;
    fleet.settle(SETTLE_WITHIN)?;
    let ledger = fleet.end();
    judge(bench, &ledger, server, &data)
}

/// Loads `behind` events by NDJSON.
fn load_behind(bench: &Bench, server: &Server, behind: u32) -> Result<Ledger> {
    let ledger = bench.ledger(1);
    if behind == 0 {
        return Ok(ledger);
    }
    let mix = Mix::Bulk { lines: 1_000, events: behind.div_ceil(LOADERS) };
    let fleet = Fleet::new(server.address, ledger, LOADERS, KEYS_OF_LOADERS, mix, &bench.chance.fork(2));
    fleet.load_until_planned(behind)?;
    fleet.settle(Duration::from_mins(5))?;
    let ledger = fleet.end();
    eprintln!("kill: {} events behind", ledger.acked_events(None));
    Ok(ledger)
}

fn kill_and_return(
    bench: &mut Bench,
    options: &Options,
    launch: &Launch<'_>,
    fleet: &Fleet,
    mut server: Server,
) -> Result<Server> {
    let bound = if bench.binary.is_debug() { 5 } else { 1 };
    let bound = options.first_ack_max.unwrap_or(Duration::from_secs(bound));
    let mut chance = bench.chance.fork(3);
    let mut waits = Vec::new();
    for kill in 1..=options.kills {
        std::thread::sleep(chance.between(options.after_min, options.after_max));
        server.kill()?;
        // Now and then it dies again while it recovers.
        if chance.one_in(5) {
            let recovering = launch.start()?;
            std::thread::sleep(chance.between(Duration::ZERO, Duration::from_millis(80)));
            recovering.kill()?;
        }
        server = launch.start()?;
        let wait = fleet.first_ack_after(server.started, SETTLE_WITHIN);
        let wait = wait.with_context(|| format!("no acknowledgement after kill {kill}; {}", server.last_words()))?;
        if wait > bound {
            bench.report.violation(format!("kill {kill}: first acknowledgement after {wait:?}, allowed {bound:?}"));
        }
        waits.push(wait);
        if kill % 10 == 0 {
            eprintln!("kill: {kill} of {}, {} acknowledgements", options.kills, fleet.acks().0);
        }
    }
    waits.sort();
    bench.report.fact("kills", options.kills);
    if let (Some(median), Some(last)) = (waits.get(waits.len() / 2), waits.last()) {
        bench.report.millis("first_ack_ms_median", *median);
        bench.report.millis("first_ack_ms_max", *last);
    }
    Ok(server)
}

/// Holds the log of a server at rest against the ledger, then stops it and lets it verify its folder.
pub(super) fn judge(bench: &mut Bench, ledger: &Ledger, server: Server, data: &Path) -> Result<()> {
    let findings = reader::judge(server.address, ledger, None)?;
    let head = super::http::Client::new(server.address).get("/audit/head")?;
    if head.status != 200 {
        bench.report.violation(format!("GET /audit/head: {} {}", head.status, head.excerpt()));
    }
    server.stop()?;
    bench.report.fact("acked", ledger.acked_events(None));
    bench.report.fact("in_log", findings.events);
    bench.report.violations("answers", ledger.violations.iter().cloned());
    bench.report.violations("log", findings.words());
    if let Some(complaint) = bench.binary.audit_complaint(data)? {
        bench.report.violation(complaint);
    }
    Ok(())
}
