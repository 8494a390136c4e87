//! Power loss: a run is recorded call by call, and the data folder rebuilt as a disk would hold it had the power gone
//! at some step. The same with syncs that do nothing is the control: it must lose what was acknowledged, or the check
//! is blind.

use super::Bench;
use super::clock::parse_duration;
use super::disk::{Disk, Luck, Names};
use super::ledger::Ledger;
use super::load::{Fleet, Mix};
use super::oracle::Breach;
use super::server::{Launch, free_address};
use super::strace::{self, Stamped};
use super::sync::{judge_image, read_image};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const WORKERS: u32 = 4;
const ACKED_MIN: u64 = 100;
/// Syncs that the control still makes, so that what it loses is lost from a log that opens.
const CONTROL_SYNCS: u32 = 20;

/// How long, and at how many points.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Moments at which the power goes, each seen twice: with all unsynced writes gone, and with some of them torn;
    /// a quarter as many again lie in the first start.
    #[arg(long, default_value_t = 10)]
    points: u32,
    /// How long the recorded load lasts.
    #[arg(long, value_parser = parse_duration, default_value = "3s")]
    load: Duration,
    /// Makes the control by the setting `log.synchronous = "off"` instead of taking its syncs away.
    #[arg(long)]
    synchronous_off: bool,
}

impl Options {
    pub(super) fn of_all(short: bool) -> Self {
        let (points, load) = if short { (5, 2) } else { (50, 10) };
        Self { points, load: Duration::from_secs(load), synchronous_off: false }
    }
}

/// Runs it.
pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<()> {
    strace::ensure_installed()?;
    let recording = record(bench, options, Syncs::Real)?;
    bench.report.fact("acked", recording.ledger.acked_events(None));
    bench.report.fact("steps", recording.steps.len());
    let mut chance = bench.chance.fork(12);
    let mut images = Images::of(&recording, "real");
    for (no, point) in recording.points(&mut chance, options.points)?.into_iter().enumerate() {
        let at = images.advance(point);
        for (name, luck) in [("lost", Luck::None), ("torn", Luck::Torn(chance.fork(no as u64)))] {
            let place = format!("point {no} (step {point}, {name})");
            let image = images.develop(bench, no, name, luck)?;
            match judge_image(&bench.binary, &image, &recording.ledger, at) {
                Ok(broken) => {
                    eprintln!("power: {place}: {} broken", broken.len());
                    keep_if(!broken.is_empty(), &image)?;
                    bench.report.violations(&place, broken);
                }
                Err(error) => bench.report.violation(format!("{place}: {error:#}")),
            }
        }
    }
    control(bench, options)
}

/// The control passes if at least one image of it fails.
fn control(bench: &mut Bench, options: &Options) -> Result<()> {
    let syncs = if options.synchronous_off { Syncs::SwitchedOff } else { Syncs::Pretended };
    let recording = record(bench, options, syncs)?;
    let mut chance = bench.chance.fork(13);
    let mut images = Images::of(&recording, "control");
    let (mut lost, mut unopened) = (0, 0);
    for (no, point) in recording.points(&mut chance, options.points)?.into_iter().enumerate() {
        let at = images.advance(point);
        let image = images.develop(bench, no, "lost", Luck::None)?;
        match read_image(&bench.binary, &image, &recording.ledger, at) {
            Ok((findings, _)) => lost += findings.count(Breach::Lost),
            Err(error) => {
                eprintln!("power: control, point {no}: {error:#}");
                unopened += 1;
            }
        }
        keep_if(false, &image)?;
    }
    eprintln!("power: control: {lost} acknowledged events lost, {unopened} images not opened");
    bench.report.fact("control_lost", lost);
    bench.report.fact("control_unopened", unopened);
    if lost == 0 {
        bench.report.violation("the control without syncs lost nothing: this check is blind");
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syncs {
    Real,
    Pretended,
    SwitchedOff,
}

/// A recorded run.
#[derive(Debug)]
struct Recording {
    root: PathBuf,
    steps: Vec<Stamped>,
    ledger: Ledger,
}

fn record(bench: &Bench, options: &Options, syncs: Syncs) -> Result<Recording> {
    let folder = bench.path().join(format!("record-{syncs:?}").to_lowercase());
    fs::create_dir_all(&folder)?;
    let (data, file, config) = (folder.join("data"), folder.join("record"), folder.join("tidings.toml"));
    let pretend = format!("fsync,fdatasync:retval=0:when={CONTROL_SYNCS}+");
    let tracer = strace::recorder(&file, (syncs == Syncs::Pretended).then_some(pretend.as_str()));
    let address = free_address()?;
    let mut launch = Launch { tracer, ..Launch::plain(&bench.binary, &data, address) };
    if syncs == Syncs::SwitchedOff {
        fs::write(&config, "[log]\nsynchronous = \"off\"\n")?;
        launch.config = Some(&config);
    }
    let server = launch.start_ready()?;
    let ledger = bench.ledger(20 + syncs as u64);
    let fleet = Fleet::new(address, ledger, WORKERS, 0, Mix::Everything, &bench.chance);
    fleet.load();
    std::thread::sleep(options.load);
    fleet.rest();
    let ledger = fleet.end();
    server.kill()?;
    let steps = strace::read(&file, &data)?;
    fs::remove_file(&file)?;
    let acked = ledger.acked_events(None);
    eprintln!("power: {syncs:?}: {acked} events acknowledged in {} steps", steps.len());
    ensure!(acked >= ACKED_MIN, "only {acked} events were acknowledged under strace: nothing to lose");
    Ok(Recording { root: data, steps, ledger })
}

impl Recording {
    /// Random steps, in order: `count` after the first acknowledgement, of which the last step is always one, and a
    /// quarter as many of the very first start.
    fn points(&self, chance: &mut super::chance::Chance, count: u32) -> Result<Vec<usize>> {
        let first = self.ledger.requests.iter().filter_map(|request| request.ack.as_ref()).map(|ack| ack.at).min();
        let first = first.context("nothing was acknowledged")?;
        let start =
            self.steps.iter().position(|stamped| stamped.at > first).context("nothing was recorded after it")?;
        let last = self.steps.len() - 1;
        let mut points: Vec<usize> = (1..count).map(|_| start + chance.index(last - start)).collect();
        points.extend((0..count.div_ceil(4)).map(|_| chance.index(start)));
        points.push(last);
        points.sort_unstable();
        Ok(points)
    }
}

/// The disk at growing points of a recording.
struct Images<'a> {
    recording: &'a Recording,
    name: &'static str,
    disk: Disk,
    followed: usize,
}

impl<'a> Images<'a> {
    fn of(recording: &'a Recording, name: &'static str) -> Self {
        Self { recording, name, disk: Disk::new(Names::Strict), followed: 0 }
    }

    /// Follows the record up to and with the step at `point`; when that step was begun: what was acknowledged before
    /// must be on the disk.
    fn advance(&mut self, point: usize) -> Duration {
        while self.followed <= point {
            self.disk.follow(&self.recording.steps[self.followed].step);
            self.followed += 1;
        }
        self.recording.steps[point].at
    }

    fn develop(&self, bench: &Bench, no: usize, kind: &str, mut luck: Luck) -> Result<PathBuf> {
        let image = bench.path().join(format!("{}-{no}-{kind}", self.name)).join("data");
        self.disk.leave(&self.recording.root, &image, &mut luck)?;
        Ok(image)
    }
}

fn keep_if(keep: bool, image: &std::path::Path) -> Result<()> {
    let folder = image.parent().context("an image without a folder")?;
    if !keep {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}
