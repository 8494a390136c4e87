//! The comparison: starts baseline and Tidings in turn, pair by pair, and prints the medians of their ratios.
//!
//! Neither side ever runs while the other does; each measurement has fresh processes and a folder of its own, and
//! what one side wrote is synced away before the next begins. A row that fails is reported and fails the run, but
//! does not take the others' figures with it.

mod folder;
mod idle;
mod machine;
mod outbox;
mod process;
mod publish;
mod report;
mod returning;
mod streams;
mod webhooks;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};

use folder::{Folder, WorkFolder};
use process::Programs;
use report::{Line, Report, Settings};
use streams::Way;

/// What `run` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The binary under test.
    #[arg(long, default_value = "target/release/tidings")]
    tidings: PathBuf,
    /// Where to make the temporary folder; must be a real disk.
    #[arg(long, default_value = "target")]
    work: PathBuf,
    /// Rows to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Row::ALL)]
    rows: Vec<Row>,
    /// Interleaved pairs of each row.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Events in the log of the rows with a long one.
    #[arg(long, default_value_t = 1_000_000)]
    behind: u64,
    /// One short pair of everything: checks that all of it runs and the answers are right, not the ratios.
    #[arg(long)]
    smoke: bool,
    /// Where to write the figures as JSON; `bench.json` in the work folder unless `--smoke`.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The date to note, for example `2026-11-22`.
    #[arg(long)]
    date: Option<String>,
}

/// A row of the table, or two that come from the same runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// One event per POST, 64 connections.
    Single,
    /// NDJSON batches of 100, 8 connections.
    Ndjson,
    /// Time from spawn to the first ack with a long log.
    Start,
    /// One event per POST with a long log against a short one.
    SingleBehind,
    /// NDJSON batches with a long log against a short one.
    NdjsonBehind,
    /// Memory when nothing happens.
    Idle,
    /// Webhook deliveries to one receiver.
    Deliver,
    /// The same with a long log against a short one.
    DeliverBehind,
    /// Published one by one and delivered.
    Sustained,
    /// Time from publishing to the webhook's arrival, at 50/s.
    Latency,
    /// The same beside an endpoint with slow answers.
    Sibling,
    /// One event per POST with many webhooks that want none of it.
    IdleSubscriptions,
    /// Events to 1,000 streams.
    FanOut,
    /// Events to 10,000 streams.
    FanOutWide,
    /// Memory of streams on which nothing happens.
    IdleStreams,
    /// Events to 1,000 WebSockets.
    FanOutWs,
    /// Events to 10,000 WebSockets.
    FanOutWsWide,
    /// Memory of WebSockets on which nothing happens.
    IdleSockets,
    /// A stream from the beginning of a long log.
    CatchUp,
    /// Streams beside one that is not read.
    StalledReader,
    /// An event for one channel among many.
    OneAmong,
    /// Many streams that come back at once.
    ComeBack,
    /// Many streams that are sent away.
    Drain,
    /// Rows of an outbox on PostgreSQL into the log.
    Outbox,
    /// Time from a commit in it to a stream, at 500/s.
    OutboxDelay,
    /// What emitting costs the application.
    OutboxProducer,
    /// What reading an outbox costs while nothing happens.
    OutboxIdle,
    /// What it costs and gives that the database wakes its reader.
    OutboxWake,
}

/// What one run has at hand.
struct Bench {
    programs: Programs,
    work: WorkFolder,
    sizes: Sizes,
    /// Filled data folders, made when first needed: (events, folder).
    filled: Vec<(u64, Folder)>,
}

/// How much of everything.
struct Sizes {
    pairs: usize,
    seconds: f64,
    warmup: f64,
    behind: u64,
    behind_short: u64,
    deliveries: u64,
    subscriptions: usize,
    streams: usize,
    caught_up: u64,
    outbox_rows: u32,
    idle: Duration,
}

impl Row {
    const ALL: [Self; 28] = [
        Self::Single,
        Self::Ndjson,
        Self::Start,
        Self::SingleBehind,
        Self::NdjsonBehind,
        Self::Idle,
        Self::Deliver,
        Self::DeliverBehind,
        Self::Sustained,
        Self::Latency,
        Self::Sibling,
        Self::IdleSubscriptions,
        Self::FanOut,
        Self::FanOutWide,
        Self::IdleStreams,
        Self::FanOutWs,
        Self::FanOutWsWide,
        Self::IdleSockets,
        Self::CatchUp,
        Self::StalledReader,
        Self::OneAmong,
        Self::ComeBack,
        Self::Drain,
        Self::Outbox,
        Self::OutboxDelay,
        Self::OutboxProducer,
        Self::OutboxIdle,
        Self::OutboxWake,
    ];

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Sizes {
    fn new(args: &Args) -> anyhow::Result<Self> {
        if args.smoke {
            return Ok(Self {
                pairs: 1,
                seconds: 1.0,
                warmup: 0.2,
                behind: 20_000,
                behind_short: 1_000,
                deliveries: 2_000,
                subscriptions: 200,
                streams: 200,
                caught_up: 2_000,
                outbox_rows: 5_000,
                idle: Duration::from_secs(1),
            });
        }
        ensure!(args.pairs > 0, "--pairs must be at least 1");
        Ok(Self {
            pairs: args.pairs,
            seconds: args.seconds,
            warmup: 1.0,
            behind: args.behind,
            behind_short: 10_000,
            deliveries: 100_000,
            subscriptions: 100_000,
            streams: 10_000,
            caught_up: 100_000,
            outbox_rows: 300_000,
            idle: Duration::from_secs(5),
        })
    }
}

/// Runs the rows; an error if any of them could not be measured.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // What is dropped when a signal wins has its processes killed and its folders removed.
        tokio::select! {
            result = run_rows(args) => result,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn run_rows(args: Args) -> anyhow::Result<()> {
    let sizes = Sizes::new(&args)?;
    let settings = Settings { pairs: sizes.pairs, seconds: sizes.seconds, behind: sizes.behind, smoke: args.smoke };
    let mut bench = Bench {
        programs: Programs::new(&args.tidings)?,
        work: WorkFolder::new(&args.work)?,
        sizes,
        filled: Vec::new(),
    };
    let mut report = Report::new(machine::facts(args.date), settings);
    for row in args.rows {
        match bench.measure(row).await {
            Ok(lines) => report.lines.extend(lines),
            Err(error) => report.failures.push(format!("{}: {error:#}", row.name())),
        }
    }
    println!("{}", report.markdown());
    let json = args.json.or_else(|| (!args.smoke).then(|| args.work.join("bench.json")));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(report.failures.is_empty(), "{} of the rows failed", report.failures.len());
    Ok(())
}

impl Bench {
    async fn measure(&mut self, row: Row) -> anyhow::Result<Vec<Line>> {
        eprintln!("{}", row.name());
        match row {
            Row::Single => publish::against_baseline(self, publish::SINGLE).await,
            Row::Ndjson => publish::against_baseline(self, publish::NDJSON).await,
            Row::SingleBehind => publish::against_short_log(self, publish::SINGLE).await,
            Row::NdjsonBehind => publish::against_short_log(self, publish::NDJSON).await,
            Row::Start => publish::start_to_first_ack(self).await,
            Row::Idle => publish::idle_memory(self).await,
            Row::Deliver => webhooks::deliveries(self).await,
            Row::DeliverBehind => webhooks::against_short_log(self).await,
            Row::Sustained => webhooks::sustained(self).await,
            Row::Latency => webhooks::latency(self).await,
            Row::Sibling => webhooks::sibling(self).await,
            Row::IdleSubscriptions => idle::subscriptions(self).await,
            Row::FanOut => streams::fan_out(self, Way::Stream, self.sizes.streams / 10).await,
            Row::FanOutWide => streams::fan_out(self, Way::Stream, self.sizes.streams).await,
            Row::IdleStreams => streams::idle(self, Way::Stream).await,
            Row::FanOutWs => streams::fan_out(self, Way::Socket, self.sizes.streams / 10).await,
            Row::FanOutWsWide => streams::fan_out(self, Way::Socket, self.sizes.streams).await,
            Row::IdleSockets => streams::idle(self, Way::Socket).await,
            Row::CatchUp => streams::catch_up(self).await,
            Row::StalledReader => streams::stalled(self).await,
            Row::OneAmong => streams::one_among(self).await,
            Row::ComeBack => returning::come_back(self).await,
            Row::Drain => returning::drain(self).await,
            Row::Outbox => outbox::backlog(self).await,
            Row::OutboxDelay => outbox::delay(self).await,
            Row::OutboxProducer => outbox::producer(self).await,
            Row::OutboxIdle => outbox::idle(self).await,
            Row::OutboxWake => outbox::wake(self).await,
        }
    }
}
