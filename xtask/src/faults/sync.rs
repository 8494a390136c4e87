//! One sync fails with `EIO`: the K-th, for several K. Nothing that the failed sync should have covered may be
//! acknowledged, then or later: the process refuses, says why, and ends.

use super::Bench;
use super::clock;
use super::disk::{Disk, Luck};
use super::ledger::Ledger;
use super::load::{Fleet, Mix};
use super::reader;
use super::server::{Binary, Launch, Server, free_address};
use super::strace::{self, Stamped, Step, Synced};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

const SHORT: [u32; 8] = [1, 3, 6, 10, 15, 21, 33, 52];
const LONG_LAST: u32 = 60;
const WORKERS: u32 = 4;
const EXIT_WITHIN: Duration = Duration::from_secs(2);

/// Which syncs fail.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
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
    let points: Vec<u32> = match options.only {
        Some(k) => vec![k],
        None if options.long => (1..=LONG_LAST).collect(),
        None => SHORT.to_vec(),
    };
    let (mut acked, mut during_start) = (0, 0);
    for k in points {
        let place = format!("sync {k}");
        match fail(bench, k) {
            Ok(Outcome { acked: more, ready, broken }) => {
                eprintln!("{place}: {more} acknowledged before, {} broken", broken.len());
                acked += more;
                during_start += u32::from(!ready);
                bench.report.violations(&place, broken);
            }
            Err(error) => bench.report.violation(format!("{place}: {error:#}")),
        }
    }
    if acked == 0 {
        bench.report.violation("nothing was acknowledged at any point: this tested nothing");
    }
    bench.report.fact("acked", acked);
    bench.report.fact("failed_during_start", during_start);
    Ok(())
}

struct Outcome {
    acked: u64,
    ready: bool,
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
    let status = server.wait_exit(Duration::from_secs(20))?;
    let ended = clock::wall();
    fleet.rest();
    let before = fleet.ledger();
    let errors = server.errors();
    drop(server);
    let steps = strace::read(&record, &data)?;
    let mut broken = Vec::new();
    check_end(&steps, status, ended, &errors, &mut broken)?;
    // What a disk would hold that lost what the failed sync should have saved.
    let image = folder.join("image");
    let mut disk = Disk::default();
    steps.iter().for_each(|stamped| disk.follow(&stamped.step));
    disk.leave(&data, &image, &mut Luck::None)?;
    broken.extend(judge_image(&bench.binary, &image, &before, ended)?);
    // The folder as it is, and the unknown outcomes repeated.
    let server = Launch::plain(&bench.binary, &data, address).start_ready()?;
    fleet.settle(Duration::from_secs(20))?;
    let ledger = fleet.end();
    let findings = reader::judge(address, &ledger, None)?;
    broken.extend(findings.words().into_iter().map(|what| format!("after restart: {what}")));
    broken.extend(ledger.violations.iter().cloned());
    server.kill()?;
    broken.extend(bench.binary.audit_complaint(&data)?);
    Ok(Outcome { acked: before.acked_events(None), ready: before.acked_events(None) > 0, broken })
}

/// Checks how the process ended: soon, with an error, saying why, without asking for that sync again.
fn check_end(
    steps: &[Stamped],
    status: Option<ExitStatus>,
    ended: Duration,
    errors: &str,
    broken: &mut Vec<String>,
) -> Result<()> {
    let failed = steps.iter().position(|stamped| matches!(stamped.step, Step::SyncEnd(_, Synced::Failed)));
    let failed = failed.context("no sync of the data folder failed: the server makes too few")?;
    match status {
        None => broken.push(format!("the process did not end; stderr: {}", errors.trim())),
        Some(status) if status.success() => broken.push("the process ended with success".to_owned()),
        Some(_) => {
            let after = ended.saturating_sub(steps[failed].at);
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
    if let Some(file) = synced_again(steps, failed) {
        broken.push(format!("{} was synced again after its sync had failed", file.display()));
    }
    Ok(())
}

/// The file whose failed sync was followed by another one.
fn synced_again(steps: &[Stamped], failed: usize) -> Option<PathBuf> {
    let mut open: HashMap<u32, &Path> = HashMap::new();
    let mut running: HashMap<u32, &Path> = HashMap::new();
    let mut lost: HashSet<&Path> = HashSet::new();
    for (index, stamped) in steps.iter().enumerate() {
        match &stamped.step {
            Step::Open { fd, path, .. } => drop(open.insert(*fd, path)),
            Step::SyncBegin(thread, fd) => {
                let path = open.get(fd).copied()?;
                if index > failed && lost.contains(path) {
                    return Some(path.to_owned());
                }
                running.insert(*thread, path);
            }
            Step::SyncEnd(thread, Synced::Failed) => lost.extend(running.get(thread)),
            _ => {}
        }
    }
    None
}

/// What is wrong with an image of the data folder, of which only acknowledgements before `cutoff` are asked.
pub(super) fn judge_image(binary: &Binary, image: &Path, ledger: &Ledger, cutoff: Duration) -> Result<Vec<String>> {
    let (findings, complaint) = read_image(binary, image, ledger, cutoff)?;
    let mut broken: Vec<String> = findings.words().into_iter().map(|what| format!("after power loss: {what}")).collect();
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
    let server: Server = Launch::plain(binary, image, free_address()?).start_ready().context("on the image")?;
    let findings = reader::judge(server.address, ledger, Some(cutoff))?;
    server.kill()?;
    ensure!(image.exists(), "the image is gone");
    Ok((findings, binary.audit_complaint(image)?))
}
