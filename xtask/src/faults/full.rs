//! A full disk: a small file system in memory, filled under load, then given room again; twice, once by the log itself
//! and once by something else.

use super::Bench;
use super::clock;
use super::http::Client;
use super::kill::judge;
use super::load::{Fleet, Mix, Refusal};
use super::server::{Launch, free_address};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

const WORKERS: u32 = 4;
const FILLED_WITHIN: Duration = Duration::from_mins(1);
const STAYS_FULL: Duration = Duration::from_secs(1);
const HEALS_WITHIN: Duration = Duration::from_secs(5);
const SETTLE_WITHIN: Duration = Duration::from_secs(20);

/// How small.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Size of the file system, in MiB.
    #[arg(long, default_value_t = 24)]
    size_mib: u32,
    /// What is given back each time, in MiB.
    #[arg(long, default_value_t = 6)]
    ballast_mib: u32,
}

impl Options {
    pub(super) fn of_all() -> Self {
        Self { size_mib: 24, ballast_mib: 6 }
    }
}

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    let mount = Mount::new(bench.path().join("small"), options.size_mib)?;
    let ballast = ["ballast-1", "ballast-2"].map(|name| mount.folder.join(name));
    for file in &ballast {
        fs::write(file, vec![1; options.ballast_mib as usize * 1024 * 1024])?;
    }
    let data = mount.folder.join("data");
    let output = bench.path().join("server");
    let plain = Launch::plain(&bench.binary, &data, free_address()?);
    let launch = Launch { output: Some(&output), ..plain };
    let server = launch.start_ready()?;
    let fleet = Fleet::new(launch.address, bench.ledger(1), WORKERS, 0, Mix::Everything, &bench.chance);
    fleet.load();
    // The log itself fills the disk.
    stay_full(bench, &fleet, "own").with_context(|| server.last_words())?;
    heal(bench, &fleet, "own", &ballast[..1])?;
    // Something else fills it to the last byte, at once, between two looks that the server takes at it.
    let filler = mount.folder.join("filler");
    fill(&filler)?;
    stay_full(bench, &fleet, "foreign").with_context(|| server.last_words())?;
    heal(bench, &fleet, "foreign", &[filler, ballast[1].clone()])?;
    fleet.settle(SETTLE_WITHIN)?;
    let ledger = fleet.end();
    judge(bench, &ledger, server, &data)?;
    mount.end()
}

/// Waits for refusals, and looks at them and at reads after a while.
fn stay_full(bench: &mut Bench, fleet: &Fleet, cause: &str) -> Result<()> {
    fleet.take_refusals();
    wait_for_refusals(fleet)?;
    sleep(STAYS_FULL);
    check_reads(bench, &mut Client::new(fleet.address()))?;
    let refusals = fleet.take_refusals();
    eprintln!("full: {cause}: {} refusals", refusals.len());
    bench.report.fact(&format!("refusals_{cause}"), refusals.len());
    check_refusals(bench, &refusals);
    Ok(())
}

/// Makes room and waits for the first acknowledgement.
fn heal(bench: &mut Bench, fleet: &Fleet, cause: &str, files: &[PathBuf]) -> Result<()> {
    let freed = clock::now();
    for file in files {
        fs::remove_file(file)?;
    }
    if let Some(wait) = wait_for_ack(fleet, freed) {
        bench.report.millis(&format!("healed_ms_{cause}"), wait);
    } else {
        let last = fleet.take_refusals().last().map_or_else(|| "none".to_owned(), ToString::to_string);
        bench.report.violation(format!("not healed {HEALS_WITHIN:?} after there was room; last refusal {last}"));
    }
    Ok(())
}

/// Writes until there is no room for another byte.
fn fill(file: &Path) -> Result<()> {
    let mut file = fs::File::create(file)?;
    for size in [1 << 20, 4096, 1] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}

fn wait_for_refusals(fleet: &Fleet) -> Result<()> {
    let until = clock::now() + FILLED_WITHIN;
    loop {
        let refusals = fleet.refusals();
        if refusals >= 3 {
            return Ok(());
        }
        ensure!(clock::now() < until, "the disk is not full after {FILLED_WITHIN:?}: {refusals} refusals");
        sleep(Duration::from_millis(10));
    }
}

/// Waits for the first acknowledgement after `moment`.
fn wait_for_ack(fleet: &Fleet, moment: std::time::Instant) -> Option<Duration> {
    while moment.elapsed() < HEALS_WITHIN {
        if let Some(acked) = fleet.acks().1.filter(|acked| *acked > moment) {
            return Some(acked - moment);
        }
        sleep(Duration::from_millis(2));
    }
    None
}

fn check_reads(bench: &mut Bench, client: &mut Client) -> Result<()> {
    for path in ["/events?after=0&limit=10&order=asc", "/health/live", "/audit/head"] {
        let reply = client.get(path).with_context(|| format!("GET {path} on a full disk"))?;
        if reply.status != 200 {
            bench.report.violation(format!("GET {path} on a full disk: {} {}", reply.status, reply.excerpt()));
        }
    }
    Ok(())
}

fn check_refusals(bench: &mut Bench, refusals: &[Refusal]) {
    let proper = |refusal: &&Refusal| {
        let seconds = refusal.retry_after.as_deref().is_some_and(|value| value.parse::<u32>().is_ok());
        let problem = refusal.content_type.as_deref().is_some_and(|kind| kind.starts_with("application/problem+json"));
        matches!(refusal.status, 503 | 507) && seconds && problem
    };
    let improper: Vec<&Refusal> = refusals.iter().filter(|refusal| !proper(refusal)).collect();
    if let Some(first) = improper.first() {
        bench.report.violation(format!(
            "{} of {} refusals are not a 503 or 507 problem with Retry-After, such as {first}",
            improper.len(),
            refusals.len()
        ));
    }
}

/// A file system in memory, gone when dropped.
#[derive(Debug)]
struct Mount {
    folder: PathBuf,
}

impl Mount {
    fn new(folder: PathBuf, size_mib: u32) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let size = format!("size={size_mib}m");
        command("mount", &["-t", "tmpfs", "-o", &size, "tidings-faults"], &folder)?;
        Ok(Self { folder })
    }

    fn end(self) -> Result<()> {
        let folder = self.folder.clone();
        std::mem::forget(self);
        command("umount", &[], &folder)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, since a failure may have left something open.
        let _ = command("umount", &["-l"], &self.folder);
    }
}

fn command(program: &str, arguments: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new(program).args(arguments).arg(folder).output().with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {} (this fault needs root)", said.trim());
    Ok(())
}
