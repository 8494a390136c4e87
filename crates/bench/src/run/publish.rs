//! Rows about publishing: rates against the raw server and against a short log, start, memory.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Bench;
use super::folder::{Folder, settle_disk};
use super::process::{Server, Usage, baseline_file};
use super::report::{Goal, Line, Side, Unit};
use crate::load;

/// A way to publish and what it must reach.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    row: &'static str,
    title: &'static str,
    mode: &'static str,
    connections: &'static str,
    ratio_min: f64,
}

pub(crate) const SINGLE: Way = Way {
    row: "single",
    title: "one event per POST, acked durable, 64 connections",
    mode: "single",
    connections: "64",
    ratio_min: 0.6,
};

pub(crate) const NDJSON: Way = Way {
    row: "ndjson",
    title: "NDJSON batches of 100, 8 connections",
    mode: "ndjson",
    connections: "8",
    ratio_min: 0.5,
};

/// A long log may cost this much of the rate, and this much memory.
const BEHIND_RATIO_MIN: f64 = 0.9;
const BEHIND_MEMORY_MIB_MAX: f64 = 64.0;
const START_SECONDS_MAX: f64 = 1.0;
const IDLE_MIB_MAX: f64 = 40.0;

/// An event for asking the server where its log ends.
const PROBE: &str = r#"{"eventType":"bench.probe","data":null}"#;

/// What one measurement of publishing found.
struct Published {
    rate: f64,
    usage: Usage,
    detail: Value,
}

impl Published {
    fn new(report: &load::Report, usage: Usage) -> Self {
        Self { rate: report.events_per_second, usage, detail: json!({"load": report, "server": usage}) }
    }
}

/// Tidings against the raw server, both with nothing behind them.
pub(crate) async fn against_baseline(bench: &Bench, way: Way) -> anyhow::Result<Vec<Line>> {
    let mut line = Line::new(way.row, way.title, Unit::EventsPerSecond, Goal::RatioAtLeast(way.ratio_min));
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            let folder = bench.work.folder()?;
            settle_disk();
            let found = match side {
                Side::Tidings => tidings(bench, way, folder.path(), 0).await?,
                Side::Baseline => baseline(bench, way, folder.path()).await?,
            };
            line.add(side, found.rate);
            line.note(side, found.detail);
        }
        line.tell(pair);
    }
    Ok(vec![line])
}

/// Tidings with a long log against itself with a short one.
pub(crate) async fn against_short_log(bench: &mut Bench, way: Way) -> anyhow::Result<Vec<Line>> {
    let (long, short) = (bench.sizes.behind, bench.sizes.behind_short);
    let title = format!("{}, {long} events behind against {short}", way.title);
    let row = format!("{}-behind", way.row);
    let mut rate = Line::new(&row, &title, Unit::EventsPerSecond, Goal::RatioAtLeast(BEHIND_RATIO_MIN));
    let memory = "memory afterwards (RssAnon)";
    let mut memory = Line::new(&row, memory, Unit::Mib, Goal::ApartAtMost(BEHIND_MEMORY_MIB_MAX));
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            let behind = match side {
                Side::Tidings => long,
                Side::Baseline => short,
            };
            let folder = filled_copy(bench, behind).await?;
            settle_disk();
            let found = tidings(bench, way, folder.path(), behind).await?;
            memory.add(side, found.usage.rss_anon_mib);
            rate.add(side, found.rate);
            rate.note(side, found.detail);
        }
        rate.tell(pair);
        memory.tell(pair);
    }
    Ok(vec![rate, memory])
}

/// Time from the start of the process to its first ack, after a `kill -9` with a long log.
pub(crate) async fn start_to_first_ack(bench: &mut Bench) -> anyhow::Result<Vec<Line>> {
    let behind = bench.sizes.behind;
    let title = format!("start to first ack with a log of {behind}, after kill -9");
    let mut line = Line::new("start", &title, Unit::Seconds, Goal::AtMost(START_SECONDS_MAX));
    for pair in 0..bench.sizes.pairs {
        let folder = filled_copy(bench, behind).await?;
        settle_disk();
        let mut server = bench.programs.start_tidings(folder.path())?;
        let (took, answer) = server.first_ack(PROBE).await?;
        ensure_behind(&answer, behind)?;
        server.stop().await?;
        line.add(Side::Tidings, took.as_secs_f64());
        line.tell(pair);
    }
    Ok(vec![line])
}

/// Memory of a fresh node some seconds after it is ready.
pub(crate) async fn idle_memory(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title = "idle memory of a fresh node (RssAnon)";
    let mut line = Line::new("idle", title, Unit::Mib, Goal::AtMost(IDLE_MIB_MAX));
    for pair in 0..bench.sizes.pairs {
        let folder = bench.work.folder()?;
        let server = bench.programs.tidings(folder.path()).await?;
        // Not a wait for something: that nothing happens meanwhile is what is measured.
        tokio::time::sleep(bench.sizes.idle).await;
        let usage = server.usage()?;
        server.stop().await?;
        line.add(Side::Tidings, usage.rss_anon_mib);
        line.tell(pair);
    }
    Ok(vec![line])
}

async fn baseline(bench: &Bench, way: Way, data: &Path) -> anyhow::Result<Published> {
    let server = bench.programs.baseline(data, None).await?;
    let report = load(bench, way, &server).await?;
    let usage = server.usage()?;
    server.stop().await?;
    let lines = count_lines(&baseline_file(data))?;
    ensure!(lines == report.acked, "{} were acked, {lines} are in the file", report.acked);
    Ok(Published::new(&report, usage))
}

/// Counts without taking gigabytes into memory at once.
fn count_lines(file: &Path) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(file)?);
    let mut lines = 0;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(lines);
        }
        lines += memchr::memchr_iter(b'\n', chunk).count() as u64;
        let taken = chunk.len();
        reader.consume(taken);
    }
}

async fn tidings(bench: &Bench, way: Way, data: &Path, behind: u64) -> anyhow::Result<Published> {
    let mut server = bench.programs.tidings(data).await?;
    let report = load(bench, way, &server).await?;
    let usage = server.usage()?;
    let (_, answer) = server.first_ack(PROBE).await?;
    ensure_behind(&answer, behind + report.acked)?;
    server.stop().await?;
    Ok(Published::new(&report, usage))
}

async fn load(bench: &Bench, way: Way, server: &Server) -> anyhow::Result<load::Report> {
    let (seconds, warmup) = (bench.sizes.seconds.to_string(), bench.sizes.warmup.to_string());
    let args = ["--mode", way.mode, "--connections", way.connections, "--seconds", &seconds, "--warmup", &warmup];
    bench.programs.load(server, &args).await
}

/// Offsets are dense: whoever has taken `acked` events gives the next one a larger offset.
fn ensure_behind(answer: &Value, acked: u64) -> anyhow::Result<()> {
    let offset = answer["offset"].as_u64().with_context(|| format!("no offset in {answer}"))?;
    ensure!(offset > acked, "{acked} were acked, but the next offset is {offset}");
    Ok(())
}

/// A folder with `events` in its log, left as `kill -9` leaves it: a copy, so that every measurement starts alike.
pub(crate) async fn filled_copy(bench: &mut Bench, events: u64) -> anyhow::Result<Folder> {
    if !bench.filled.iter().any(|(found, _)| *found == events) {
        let folder = bench.work.folder()?;
        let server = bench.programs.tidings(folder.path()).await?;
        let count = events.to_string();
        let args = ["--mode", "ndjson", "--connections", "8", "--count", &count];
        let report = bench.programs.load(&server, &args).await?;
        ensure!(report.acked == events, "only {} of {events} were taken", report.acked);
        server.stop().await?;
        bench.filled.push((events, folder));
    }
    let (_, filled) = bench.filled.iter().find(|(found, _)| *found == events).context("just filled")?;
    bench.work.copy_of(filled)
}
