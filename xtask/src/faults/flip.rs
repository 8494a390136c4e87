//! A bit flips in the closed database: `audit verify` must name the event, and find the folder whole once it is back.

use super::Bench;
use super::chance::Chance;
use super::event::Mark;
use super::ledger::Ledger;
use super::load::{Fleet, Mix};
use super::server::{Launch, free_address};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

const WORKERS: u32 = 2;
/// How far from its data the rest of an event is looked for.
const NEAR: usize = 2_048;

/// How many.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Bits flipped, one at a time.
    #[arg(long, default_value_t = 20)]
    flips: u32,
    /// Events in the log.
    #[arg(long, default_value_t = 5_000)]
    events: u32,
}

impl Options {
    pub(super) fn of_all(short: bool) -> Self {
        Self { flips: if short { 10 } else { 50 }, events: 5_000 }
    }
}

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let data = bench.path().join("data");
    let launch = Launch::plain(&bench.binary, &data, free_address()?);
    let server = launch.start_ready()?;
    let mix = Mix::Bulk { lines: 50, events: options.events.div_ceil(WORKERS) };
    let fleet = Fleet::new(launch.address, bench.ledger(1), WORKERS, 0, mix, &bench.chance);
    fleet.load_until_planned(options.events)?;
    fleet.settle(Duration::from_mins(2))?;
    let ledger = fleet.end();
    server.stop()?;
    if let Some(complaint) = bench.binary.audit_complaint(&data)? {
        bench.report.violation(format!("before any flip: {complaint}"));
        return Ok(());
    }
    let file = data.join("log.db");
    let bytes = fs::read(&file).context("log.db")?;
    let mut chance = bench.chance.fork(2);
    let mut skipped = 0;
    for flip in 1..=options.flips {
        let target = loop {
            match Target::choose(&ledger, &bytes, flip % 2 == 0, &mut chance) {
                Some(target) => break target,
                None => skipped += 1,
            }
            ensure!(skipped < 1_000, "events are not found in log.db: is it closed without its WAL being emptied?");
        };
        let place = format!("flip {flip} (offset {}, {} of byte {})", target.offset, target.part, target.byte);
        if let Some(broken) = flip_and_verify(bench, &data, &file, &target)? {
            bench.report.violation(format!("{place}: {broken}"));
        }
        eprintln!("{place}: done");
    }
    bench.report.fact("events", ledger.acked_events(None));
    bench.report.fact("flips", options.flips);
    bench.report.fact("not_found", skipped);
    if let Some(complaint) = bench.binary.audit_complaint(&data)? {
        bench.report.violation(format!("after the last bit was flipped back: {complaint}"));
    }
    Ok(())
}

/// A bit of a stored event.
#[derive(Debug)]
struct Target {
    offset: u64,
    part: &'static str,
    byte: usize,
    bit: u8,
}

impl Target {
    /// A random bit of a random event: of its data, or of its envelope. `None` if its bytes are not found, or more
    /// than once: pages that SQLite has moved leave copies that nobody reads.
    fn choose(ledger: &Ledger, bytes: &[u8], envelope: bool, chance: &mut Chance) -> Option<Self> {
        let request = ledger.requests.get(chance.index(ledger.requests.len()))?;
        let index = chance.index(request.marks.len());
        let mark: Mark = *request.marks.get(index)?;
        let offset = request.ack.as_ref()?.numbers.get(index)?.offset;
        let data = ledger.run.data(mark, request.place(index));
        let start = find_once(bytes, data.as_bytes())?;
        let (part, from, length) = if envelope {
            let near = start.saturating_sub(NEAR);
            let marker = ledger.run.envelope_marker(mark);
            let window = bytes.get(near..bytes.len().min(start + data.len() + NEAR))?;
            ("envelope", near + find_once(window, marker.as_bytes())?, marker.len())
        } else {
            ("data", start, data.len())
        };
        let bit = u8::try_from(chance.below(8)).unwrap_or(0);
        Some(Self { offset, part, byte: from + chance.index(length), bit })
    }
}

fn find_once(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let find = |from: usize| {
        let first = *needle.first()?;
        let starts = haystack[from..].iter().enumerate().filter(|(_, byte)| **byte == first);
        starts.map(|(at, _)| from + at).find(|&at| haystack[at..].starts_with(needle))
    };
    let at = find(0)?;
    find(at + 1).is_none().then_some(at)
}

/// Flips the bit, verifies, flips it back. What is wrong with the verdict, if anything.
fn flip_and_verify(bench: &Bench, data: &Path, file: &Path, target: &Target) -> Result<Option<String>> {
    flip(file, target)?;
    let verdict = bench.binary.audit_verify(data)?;
    flip(file, target)?;
    let (out, err) = (String::from_utf8_lossy(&verdict.stdout), String::from_utf8_lossy(&verdict.stderr));
    let said = format!("{} {} {}", verdict.status, out.trim(), err.trim());
    if verdict.status.code() != Some(1) {
        return Ok(Some(format!("exit 1 was due, not {said}")));
    }
    let named = serde_json::from_str::<Value>(&out).is_ok_and(|json| names_offset(&json, target.offset));
    Ok((!named).then(|| format!("offset {} is not named: {said}", target.offset)))
}

fn flip(file: &Path, target: &Target) -> Result<()> {
    let file = File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, target.byte as u64)?;
    byte[0] ^= 1 << target.bit;
    Ok(file.write_all_at(&byte, target.byte as u64)?)
}

/// Whether an `offset` anywhere in the answer is this one.
fn names_offset(json: &Value, offset: u64) -> bool {
    match json {
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| (name == "offset" && value.as_u64() == Some(offset)) || names_offset(value, offset)),
        Value::Array(items) => items.iter().any(|item| names_offset(item, offset)),
        _ => false,
    }
}
