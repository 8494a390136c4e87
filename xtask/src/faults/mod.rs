//! Faults: breaks a running `tidings` in the ways machines break, and holds what is left against what was promised.
//!
//! | fault | what breaks | what must hold |
//! | --- | --- | --- |
//! | `kill` | the process, by `kill -9` under load | nothing acknowledged is lost, doubled or moved; back within a second |
//! | `sync` | one `fsync`, with `EIO` | no yes without a sync; the process fences, says so and ends |
//! | `full` | the disk has no room | refusals that say when to come back, reads go on, heals by itself |
//! | `power` | the power: unsynced writes are gone or torn | everything acknowledged before is there |
//! | `deliver` | the process, by `kill -9` with webhooks | each delivered, in order, signed; at most 256 repeated a webhook |
//! | `queue` | workers of a consumer, by `kill -9` | every message is processed, in order, none is stuck |
//! | `blackholes` | thousands of endpoints, which never answer | the healthy ones' p99 at most doubles |
//! | `herd` | a thousand endpoints, which come back together after 503s or refused connections | no second above three times the mean |
//! | `outbox` | applications, Tidings and their database, by `kill -9` in turn | each committed row once in the log, in order; no other |
//! | `flip` | one bit of the closed database | `audit verify` names the event |
//!
//! `server` runs the program, `load` sends and repeats, `ledger` is what was promised, `oracle` judges the log; `strace`
//! and `disk` rebuild what a power loss leaves.

mod answer;
mod blackholes;
mod book;
mod chance;
mod clock;
mod deliver;
mod disk;
mod event;
mod flip;
mod full;
mod herd;
mod http;
mod kill;
mod ledger;
mod load;
mod oracle;
mod outbox;
mod power;
mod queue;
mod reader;
mod report;
mod server;
mod strace;
mod sync;
mod taker;
mod worker;

use anyhow::Result;
use chance::Chance;
use clap::{Args, Subcommand};
use event::Run;
use ledger::Ledger;
use report::Report;
use server::Binary;
use std::path::{Path, PathBuf};

/// Arguments that every fault takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The program under test; the newest build in `target` if omitted.
    #[arg(long, value_name = "PATH")]
    tidings: Option<PathBuf>,
    /// Repeats a run's choices; printed by every run.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints the summary as JSON on stdout.
    #[arg(long)]
    json: bool,
    /// Keeps the data folders also of a run that passed.
    #[arg(long)]
    keep: bool,
}

/// What breaks.
#[derive(Debug, Subcommand)]
pub(crate) enum Fault {
    /// `kill -9` under load, again and again.
    Kill {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: kill::Options,
    },
    /// One failing sync.
    Sync {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: sync::Options,
    },
    /// A full disk (needs root, for a mount).
    Full {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: full::Options,
    },
    /// Power loss, with torn writes, and the control that must fail.
    Power {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: power::Options,
    },
    /// `kill -9` under load, with webhooks.
    Deliver {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: deliver::Options,
    },
    /// `kill -9` of the workers of a consumer.
    Queue {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: queue::Options,
    },
    /// A worker of `queue`.
    #[command(hide = true)]
    Worker(queue::worker::Options),
    /// Thousands of webhooks whose endpoint never answers.
    Blackholes {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: blackholes::Options,
    },
    /// Many webhooks that come back together.
    Herd {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: herd::Options,
    },
    /// `kill -9` of applications, Tidings and their database while an outbox is written.
    Outbox {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: outbox::Options,
    },
    /// A flipped bit at rest.
    Flip {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: flip::Options,
    },
    /// All of these but `blackholes` and `herd`, in order.
    All {
        #[command(flatten)]
        common: Common,
        /// The form that CI runs: the same faults, fewer and faster.
        #[arg(long)]
        short: bool,
    },
}

/// One run: the program, its choices, its folder.
#[derive(Debug)]
struct Bench {
    binary: Binary,
    chance: Chance,
    folder: tempfile::TempDir,
    report: Report,
}

impl Bench {
    fn open(fault: &'static str, common: &Common) -> Result<Self> {
        let binary = Binary::find(common.tidings.as_deref())?;
        let entropy = u64::try_from(clock::wall().as_nanos() & u128::from(u32::MAX)).unwrap_or(1);
        let seed = common.seed.unwrap_or(entropy);
        let folder = binary.workbench(fault)?;
        eprintln!("{fault}: seed {seed}, in {}", folder.path().display());
        Ok(Self { binary, chance: Chance::new(seed), folder, report: Report::new(fault, seed) })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The ledger of the part called `label`.
    fn ledger(&self, label: u64) -> Ledger {
        Ledger::new(Run::new(self.chance.fork(label).next()))
    }
}

/// Runs a fault. Ends the process with 1 if a promise was broken; an error if the fault could not be tried.
pub(crate) fn run(fault: Fault) -> Result<()> {
    let passed = match fault {
        Fault::Kill { common, options } => one("kill", &common, |bench| kill::run(bench, &options)),
        Fault::Sync { common, options } => one("sync", &common, |bench| sync::run(bench, &options)),
        Fault::Full { common, options } => one("full", &common, |bench| full::run(bench, &options)),
        Fault::Power { common, options } => one("power", &common, |bench| power::run(bench, &options)),
        Fault::Deliver { common, options } => one("deliver", &common, |bench| deliver::run(bench, &options)),
        Fault::Queue { common, options } => one("queue", &common, |bench| queue::run(bench, &options)),
        Fault::Worker(options) => queue::worker::run(&options).map(|()| true),
        Fault::Blackholes { common, options } => one("blackholes", &common, |bench| blackholes::run(bench, &options)),
        Fault::Herd { common, options } => one("herd", &common, |bench| herd::run(bench, &options)),
        Fault::Outbox { common, options } => one(options.name(), &common, |bench| outbox::run(bench, &options)),
        Fault::Flip { common, options } => one("flip", &common, |bench| flip::run(bench, &options)),
        Fault::All { common, short } => all(&common, short),
    }?;
    if !passed {
        std::process::exit(1);
    }
    Ok(())
}

fn one(fault: &'static str, common: &Common, run: impl FnOnce(&mut Bench) -> Result<()>) -> Result<bool> {
    let report = observe(fault, common, run)?;
    if common.json {
        println!("{}", report.json());
    }
    Ok(report.passed())
}

fn all(common: &Common, short: bool) -> Result<bool> {
    let (kill, sync, full) = (kill::Options::of_all(short), sync::Options::of_all(short), full::Options::of_all());
    let (power, flip) = (power::Options::of_all(short), flip::Options::of_all(short));
    let (deliver, queue) = (deliver::Options::of_all(short), queue::Options::of_all(short));
    let [outbox, replication, mariadb] = outbox::Options::of_all(short);
    let started = clock::now();
    let reports = [
        observe("kill", common, |bench| kill::run(bench, &kill))?,
        observe("sync", common, |bench| sync::run(bench, &sync))?,
        observe("full", common, |bench| full::run(bench, &full))?,
        observe("power", common, |bench| power::run(bench, &power))?,
        observe("deliver", common, |bench| deliver::run(bench, &deliver))?,
        observe("queue", common, |bench| queue::run(bench, &queue))?,
        observe(outbox.name(), common, |bench| outbox::run(bench, &outbox))?,
        observe(replication.name(), common, |bench| outbox::run(bench, &replication))?,
        observe(mariadb.name(), common, |bench| outbox::run(bench, &mariadb))?,
        observe("flip", common, |bench| flip::run(bench, &flip))?,
    ];
    let failed = reports.iter().filter(|report| !report.passed()).count();
    let verdict = if failed == 0 { "PASS" } else { "FAIL" };
    let line = format!("{verdict} all: {failed} of {} failed, {} s", reports.len(), started.elapsed().as_secs());
    if common.json {
        eprintln!("{line}");
        let parts: Vec<_> = reports.iter().map(Report::json).collect();
        println!("{}", serde_json::json!({ "fault": "all", "verdict": verdict.to_lowercase(), "parts": parts }));
    } else {
        println!("{line}");
    }
    Ok(failed == 0)
}

/// Runs one fault to its verdict. What it could not finish is a broken promise too: a server that does not come back
/// is the worst of them.
fn observe(fault: &'static str, common: &Common, run: impl FnOnce(&mut Bench) -> Result<()>) -> Result<Report> {
    let mut bench = Bench::open(fault, common)?;
    let started = clock::now();
    if let Err(error) = run(&mut bench) {
        bench.report.violation(format!("{error:#}"));
    }
    bench.report.fact("seconds", started.elapsed().as_secs());
    if common.keep || !bench.report.passed() {
        eprintln!("{fault}: kept {}", bench.folder.keep().display());
    }
    let text = bench.report.text();
    if common.json {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
    Ok(bench.report)
}
