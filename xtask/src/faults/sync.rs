//! One sync fails with `EIO`: the K-th, for several K. Nothing that the failed sync should have covered may be
//! acknowledged, then or later: the process refuses, says why, and ends.
//!
//! A restart is not the end of it: Linux keeps the pages that it failed to write, as clean ones, so the next process
//! reads what the disk does not have. What it acknowledges on top must survive a power loss all the same.
//!
//! SQLite syncs the folder once, after it has made the WAL, and does not tell anyone if that fails. At that point the
//! server need not end, but what it acknowledges must still be there.

use super::Bench;
use super::clock;
use super::disk::{Disk, Luck, Names};
use super::ledger::Ledger;
use super::load::{Fleet, Mix};
use super::reader;
use super::server::{Binary, Launch, free_address};
use super::strace::{self, Stamped, Step, Synced};
use anyhow::{Context, Result};
use clap::Args;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

const SHORT: [u32; 8] = [1, 3, 6, 10, 15, 21, 33, 52];
const LONG_LAST: u32 = 60;
const WORKERS: u32 = 4;
/// Long enough for any point to be reached and the process to end.
const ENDED_WITHIN: Duration = Duration::from_secs(8);
/// How often the power goes while the server starts again, and how many steps that start has at most.
const TORN_STARTS: usize = 3;
const START_STEPS: usize = 300;
const EXIT_WITHIN: Duration = Duration::from_secs(2);

/// Which syncs fail.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Every sync from the first to the sixtieth, instead of eight.
    #[arg(long)]
    long: bool,
    /// Only this one.
    #[arg(long, value_name = "K")]
    only: Option<u32>,
}

impl Options {
    pub(super) fn of_all(short: bool) -> Self {
        Self { long: !short, only: None }
    }
}

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    strace::ensure_installed()?;
    let points: Vec<u32> = match options.only {
        Some(k) => vec![k],
        None if options.long => (1..=LONG_LAST).collect(),
        None => SHORT.to_vec(),
    };
    let (mut acked, mut before_any) = (0, 0);
    for k in points {
        let place = format!("sync {k}");
        match fail(bench, k) {
            Ok(Outcome { acked: more, broken }) => {
                eprintln!("{place}: {more} acknowledged before, {} broken", broken.len());
                acked += more;
                before_any += u32::from(more == 0);
                bench.report.violations(&place, broken);
            }
            Err(error) => bench.report.violation(format!("{place}: {error:#}")),
        }
    }
    if acked == 0 {
        bench.report.violation("nothing was acknowledged at any point: this tested nothing");
    }
    bench.report.fact("acked", acked);
    bench.report.fact("points_before_any_ack", before_any);
    Ok(())
}

struct Outcome {
    acked: u64,
    broken: Vec<String>,
}

fn fail(bench: &Bench, k: u32) -> Result<Outcome> {
    let folder = bench.path().join(format!("k{k}"));
    std::fs::create_dir_all(&folder)?;
    let data = folder.join("data");
    let record = folder.join("record");
    let inject = format!("fsync,fdatasync:error=EIO:when={k}");
    let tracer = strace::recorder(&record, Some(&inject));
    let address = free_address()?;
    let mut server = Launch { tracer, ..Launch::plain(&bench.binary, &data, address) }.start()?;
    let fleet = Fleet::new(address, bench.ledger(u64::from(k)), WORKERS, 0, Mix::Everything, &bench.chance);
    fleet.load();
    let status = server.wait_exit(ENDED_WITHIN)?;
    let ended = clock::wall();
    fleet.rest();
    let before = fleet.ledger();
    let errors = server.errors();
    drop(server);
    let steps = strace::read(&record, &data)?;
    let mut broken = Vec::new();
    let failed = failed_sync(&steps, &data).context("no sync of the data folder failed: the server makes too few")?;
    if !failed.of_folder {
        check_end(&failed, status, ended, &errors, &mut broken);
    }
    if let Some(file) = &failed.again {
        broken.push(format!("{} was synced again after its sync had failed", file.display()));
    }
    // What a disk would hold that lost what the failed sync should have saved.
    let image = folder.join("image");
    let mut disk = Disk::new(Names::Ordered);
    for stamped in &steps {
        disk.follow(&stamped.step);
    }
    disk.leave(&data, &image, &mut Luck::None)?;
    broken.extend(judge_image(&bench.binary, &image, &before, ended)?);
    // The folder as it is, the unknown outcomes repeated; and then the power goes.
    let record = folder.join("record-restart");
    let tracer = strace::recorder(&record, None);
    let server = Launch { tracer, ..Launch::plain(&bench.binary, &data, address) }.start_ready()?;
    fleet.settle(Duration::from_secs(20))?;
    let (settled, ledger) = (clock::wall(), fleet.end());
    let findings = reader::judge(address, &ledger, None)?;
    broken.extend(findings.words().into_iter().map(|what| format!("after restart: {what}")));
    broken.extend(ledger.violations.iter().cloned());
    server.kill()?;
    broken.extend(bench.binary.audit_complaint(&data)?);
    disk.process_ended();
    let steps = strace::read(&record, &data)?;
    broken.extend(power_after_restart(bench, &folder, disk, &steps, &ledger, settled)?);
    Ok(Outcome { acked: before.acked_events(None), broken })
}

/// Takes the power away from the restarted server: at moments of its start, and at the end.
fn power_after_restart(
    bench: &Bench,
    folder: &Path,
    mut disk: Disk,
    steps: &[Stamped],
    ledger: &Ledger,
    settled: Duration,
) -> Result<Vec<String>> {
    let data = folder.join("data");
    let mut chance = bench.chance.fork(4);
    let mut points: Vec<usize> = (0..TORN_STARTS).map(|_| chance.index(steps.len().min(START_STEPS))).collect();
    points.sort_unstable();
    let (mut followed, mut broken) = (0, Vec::new());
    for (no, point) in points.into_iter().chain([steps.len()]).enumerate() {
        for stamped in &steps[followed..point] {
            disk.follow(&stamped.step);
        }
        followed = point;
        let cutoff = steps.get(point).map_or(settled, |stamped| stamped.at);
        let mut luck = if point < steps.len() { Luck::Torn(chance.fork(no as u64)) } else { Luck::None };
        let image = folder.join(format!("image-restart-{no}"));
        disk.leave(&data, &image, &mut luck)?;
        let place = format!("{no} restarted, at step {point} of {}", steps.len());
        match judge_image(&bench.binary, &image, ledger, cutoff) {
            Ok(lost) => broken.extend(lost.into_iter().map(|what| format!("{place}, {what}"))),
            Err(error) => broken.push(format!("{place}: {error:#}")),
        }
    }
    Ok(broken)
}

/// Checks how the process ended: soon, with an error, saying why.
fn check_end(failed: &Failed, status: Option<ExitStatus>, ended: Duration, errors: &str, broken: &mut Vec<String>) {
    match status {
        None => broken.push(format!("the process did not end; stderr: {}", errors.trim())),
        Some(status) if status.success() => broken.push("the process ended with success".to_owned()),
        Some(_) => {
            let after = ended.saturating_sub(failed.at);
            if after > EXIT_WITHIN {
                broken.push(format!("the process ended {after:?} after the failed sync"));
            }
        }
    }
    let says_why = |line: &str| {
        let line = line.to_lowercase();
        !line.starts_with("strace") && line.contains("sync") && (line.contains("fail") || line.contains("error"))
    };
    if !errors.lines().any(says_why) {
        broken.push(format!("no line on stderr names the failed sync: {:?}", errors.trim()));
    }
}

/// The sync that failed.
#[derive(Debug)]
struct Failed {
    at: Duration,
    of_folder: bool,
    /// The file, if it was synced again later. Only once the log is in WAL mode: before, SQLite works with a rollback
    /// journal, and rolls that back by itself.
    again: Option<PathBuf>,
}

/// Finds the first failed sync; one of a file, if there is any.
fn failed_sync(steps: &[Stamped], data: &Path) -> Option<Failed> {
    let is = |path: &Path, end: &str| path.to_string_lossy().ends_with(end);
    let mut open: HashMap<u32, &Path> = HashMap::new();
    let mut running: HashMap<u32, &Path> = HashMap::new();
    let mut lost: Vec<(Duration, &Path)> = Vec::new();
    let (mut in_wal_mode, mut again) = (false, None);
    for stamped in steps {
        match &stamped.step {
            Step::Open { fd, path, .. } => {
                in_wal_mode |= lost.is_empty() && is(path, "-wal");
                open.insert(*fd, path);
            }
            Step::SyncBegin(thread, fd) => {
                let Some(path) = open.get(fd).copied() else { continue };
                let counts = in_wal_mode && path != data && !is(path, "-journal");
                if counts && lost.iter().any(|(_, lost)| *lost == path) {
                    again = again.or_else(|| Some(path.to_owned()));
                }
                running.insert(*thread, path);
            }
            Step::SyncEnd(thread, Synced::Failed) => {
                lost.extend(running.get(thread).map(|path| (stamped.at, *path)));
            }
            _ => {}
        }
    }
    let first = lost.iter().find(|(_, path)| *path != data).or(lost.first())?;
    Some(Failed { at: first.0, of_folder: first.1 == data, again })
}

/// What is wrong with an image of the data folder, of which only acknowledgements before `cutoff` are asked.
pub(super) fn judge_image(binary: &Binary, image: &Path, ledger: &Ledger, cutoff: Duration) -> Result<Vec<String>> {
    let (findings, complaint) = read_image(binary, image, ledger, cutoff)?;
    let mut broken: Vec<String> =
        findings.words().into_iter().map(|what| format!("after power loss: {what}")).collect();
    broken.extend(complaint.map(|complaint| format!("after power loss: {complaint}")));
    Ok(broken)
}

/// Starts the server on an image, reads its log, kills it and lets it verify.
pub(super) fn read_image(
    binary: &Binary,
    image: &Path,
    ledger: &Ledger,
    cutoff: Duration,
) -> Result<(super::oracle::Findings, Option<String>)> {
    let server = Launch::plain(binary, image, free_address()?).start_ready().context("on the image")?;
    let findings = reader::judge(server.address, ledger, Some(cutoff))?;
    server.kill()?;
    Ok((findings, binary.audit_complaint(image)?))
}
