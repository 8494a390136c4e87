//! Rows about webhooks: deliveries by the second and how long an event takes to arrive.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Bench;
use super::folder::settle_disk;
use super::process::{Server, Usage};
use super::publish::filled_copy;
use super::report::{Goal, Line, Side, Unit};
use crate::clock;
use crate::receiver::Stats;

const DELIVER_RATIO_MIN: f64 = 0.7;
const BEHIND_RATIO_MIN: f64 = 0.9;
const SUSTAINED_RATIO_MIN: f64 = 0.5;
/// Processor time of a thousand deliveries, publishing included.
const CPU_SECONDS_MAX: f64 = 0.08;
const LATENCY_RATIO_MAX: f64 = 2.0;
const LATENCY_P99_MS_MAX: f64 = 5.0;
const SIBLING_RATIO_MAX: f64 = 2.0;
/// Between two looks at the receiver; the rate does not depend on it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A receiver that gets nothing new for this long will get nothing more.
const STALLED: Duration = Duration::from_secs(30);
/// Events a second of the latency row.
const PACE: &str = "50";

/// Webhooks to one receiver after a burst of events, against a client that posts one of them over and over.
pub(crate) async fn deliveries(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title = format!("{} webhook deliveries to one receiver", bench.sizes.deliveries);
    let mut line = Line::new("deliver", &title, Unit::DeliveriesPerSecond, Goal::RatioAtLeast(DELIVER_RATIO_MIN));
    let sample = bench.work.file("sample.json");
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            settle_disk();
            let (rate, detail) = match side {
                Side::Tidings => {
                    let folder = bench.work.folder()?;
                    delivered_by_tidings(bench, folder.path(), Some(&sample)).await?
                }
                Side::Baseline => posted_by_baseline(bench, &sample).await?,
            };
            line.add(side, rate);
            line.note(side, detail);
        }
        line.tell(pair);
    }
    Ok(vec![line])
}

/// Deliveries with a long log behind them, against the same with a short one.
pub(crate) async fn against_short_log(bench: &mut Bench) -> anyhow::Result<Vec<Line>> {
    let (long, short) = (bench.sizes.behind, bench.sizes.behind_short);
    let title = format!("{} webhook deliveries, {long} events behind against {short}", bench.sizes.deliveries);
    let goal = Goal::RatioAtLeast(BEHIND_RATIO_MIN);
    let mut line = Line::new("deliver-behind", &title, Unit::DeliveriesPerSecond, goal);
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            let folder = filled_copy(bench, if side == Side::Tidings { long } else { short }).await?;
            settle_disk();
            let (rate, detail) = delivered_by_tidings(bench, folder.path(), None).await?;
            line.add(side, rate);
            line.note(side, detail);
        }
        line.tell(pair);
    }
    Ok(vec![line])
}

/// Publishes in batches and waits for all of it; `sample` is where to leave one delivery.
async fn delivered_by_tidings(bench: &Bench, data: &Path, sample: Option<&Path>) -> anyhow::Result<(f64, Value)> {
    let receiver = bench.programs.receiver(&bench.work.file("receiver.log"), &[]).await?;
    let server = bench.programs.tidings(data).await?;
    subscribe(&server, &receiver).await?;
    let count = bench.sizes.deliveries.to_string();
    let args = ["--mode", "ndjson", "--connections", "8", "--count", &count];
    let published = bench.programs.load(&server, &args).await?;
    let stats = await_stats(&receiver, |stats| stats.distinct >= published.acked).await?;
    let usage = server.usage()?;
    if let Some(sample) = sample {
        let (_, captured) = receiver.ask("GET", "/sample", "").await?;
        fs::write(sample, captured)?;
    }
    server.stop().await?;
    receiver.stop().await?;
    // A second copy of a delivery is not a second delivery.
    let rate = clock::per_second(stats.distinct, Duration::from_secs_f64(stats.seconds));
    Ok((rate, detail(&stats, usage)))
}

async fn posted_by_baseline(bench: &Bench, sample: &Path) -> anyhow::Result<(f64, Value)> {
    let receiver = bench.programs.receiver(&bench.work.file("receiver.log"), &[]).await?;
    let (url, count) = (receiver.url("/"), bench.sizes.deliveries.to_string());
    let sample = sample.to_str().context("the work folder's name is not UTF-8")?;
    let args = ["baseline", "post", "--url", &url, "--sample", sample, "--connections", "16", "--count", &count];
    bench.programs.run_bench(&args).await?;
    let stats = stats(&receiver).await?;
    ensure!(stats.posts == bench.sizes.deliveries, "{} of {count} arrived", stats.posts);
    let usage = receiver.usage()?;
    receiver.stop().await?;
    Ok((stats.posts_per_second, json!({"received": stats, "receiver": usage})))
}

/// Time from just before publishing to the webhook's arrival, against a relay that syncs and posts on.
pub(crate) async fn latency(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let line = |title: &str, goal| {
        let title = format!("publish → webhook received at {PACE}/s, {title}");
        Line::new("latency", &title, Unit::Milliseconds, goal)
    };
    let mut p50 = line("p50", Goal::RatioAtMost(LATENCY_RATIO_MAX));
    let mut p99 = line("p99", Goal::AtMost(LATENCY_P99_MS_MAX));
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            settle_disk();
            let (stats, detail) = paced(bench, side).await?;
            p50.add(side, f64::from(stats.age_us.p50) / 1000.0);
            p99.add(side, f64::from(stats.age_us.p99) / 1000.0);
            p50.note(side, detail);
        }
        p50.tell(pair);
        p99.tell(pair);
    }
    Ok(vec![p50, p99])
}

/// Published one by one and delivered, against a relay that syncs and posts on.
pub(crate) async fn sustained(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title = "publish one by one → delivered, sustained, 64 connections";
    let goal = Goal::RatioAtLeast(SUSTAINED_RATIO_MIN);
    let mut rate = Line::new("sustained", title, Unit::DeliveriesPerSecond, goal);
    let title = "its processor time for 1,000 deliveries";
    let mut cpu = Line::new("sustained", title, Unit::Seconds, Goal::AtMost(CPU_SECONDS_MAX));
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            settle_disk();
            let seconds = bench.sizes.seconds.to_string();
            let args = ["--mode", "single", "--connections", "64", "--warmup", "0", "--seconds", &seconds];
            let (stats, usage) = relayed(bench, side, &args).await?;
            let (count, took) = (arrived(side, &stats), Duration::from_secs_f64(stats.seconds));
            rate.add(side, clock::per_second(count, took));
            cpu.add(side, 1_000.0 * usage.cpu_seconds / clock::per_second(count, Duration::from_secs(1)));
            rate.note(side, detail(&stats, usage));
        }
        rate.tell(pair);
        cpu.tell(pair);
    }
    Ok(vec![rate, cpu])
}

/// A healthy endpoint beside one of whose answers every second one takes long, against itself alone.
pub(crate) async fn sibling(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title =
        format!("publish → webhook received at {PACE}/s, p99, beside an endpoint with answers in 5 s, against alone");
    let mut line = Line::new("sibling", &title, Unit::Milliseconds, Goal::RatioAtMost(SIBLING_RATIO_MAX));
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            settle_disk();
            let folder = bench.work.folder()?;
            let receiver = bench.programs.receiver(&bench.work.file("receiver.log"), &[]).await?;
            let stalling = ["--stall-one-in", "2", "--stall-seconds", "5"];
            let sibling = bench.programs.receiver(&bench.work.file("sibling.log"), &stalling).await?;
            let server = bench.programs.tidings(folder.path()).await?;
            subscribe(&server, &receiver).await?;
            if side == Side::Tidings {
                subscribe(&server, &sibling).await?;
            }
            let seconds = bench.sizes.seconds.to_string();
            let args =
                ["--mode", "single", "--connections", "4", "--rate", PACE, "--warmup", "0", "--seconds", &seconds];
            let published = bench.programs.load(&server, &args).await?;
            let stats = await_stats(&receiver, |stats| stats.distinct >= published.acked).await?;
            line.add(side, f64::from(stats.age_us.p99) / 1000.0);
            line.note(side, detail(&stats, server.usage()?));
            server.stop().await?;
            sibling.stop().await?;
            receiver.stop().await?;
        }
        line.tell(pair);
    }
    Ok(vec![line])
}

async fn paced(bench: &Bench, side: Side) -> anyhow::Result<(Stats, Value)> {
    let seconds = bench.sizes.seconds.to_string();
    let args = ["--mode", "single", "--connections", "4", "--rate", PACE, "--warmup", "0", "--seconds", &seconds];
    let (stats, usage) = relayed(bench, side, &args).await?;
    let detail = detail(&stats, usage);
    Ok((stats, detail))
}

/// Publishes to Tidings with a webhook, or to the relay, and waits until all of it arrived.
async fn relayed(bench: &Bench, side: Side, load: &[&str]) -> anyhow::Result<(Stats, Usage)> {
    let folder = bench.work.folder()?;
    let receiver = bench.programs.receiver(&bench.work.file("receiver.log"), &[]).await?;
    let server = match side {
        Side::Tidings => {
            let server = bench.programs.tidings(folder.path()).await?;
            subscribe(&server, &receiver).await?;
            server
        }
        Side::Baseline => bench.programs.baseline(folder.path(), Some(&receiver)).await?,
    };
    let published = bench.programs.load(&server, load).await?;
    let stats = await_stats(&receiver, |stats| arrived(side, stats) >= published.acked).await?;
    let usage = server.usage()?;
    server.stop().await?;
    receiver.stop().await?;
    Ok((stats, usage))
}

/// A second copy of a delivery is not a second delivery; the relay has no ids.
fn arrived(side: Side, stats: &Stats) -> u64 {
    match side {
        Side::Tidings => stats.distinct,
        Side::Baseline => stats.posts,
    }
}

async fn subscribe(server: &Server, receiver: &Server) -> anyhow::Result<()> {
    let webhook = json!({"url": receiver.url("/hooks")}).to_string();
    let (status, answer) = server.ask("POST", "/webhooks", &webhook).await?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(status == 201, "POST /webhooks answered {status}: {answer}");
    Ok(())
}

/// Looks until `enough`; an error when nothing new arrives any more.
async fn await_stats(receiver: &Server, enough: impl Fn(&Stats) -> bool) -> anyhow::Result<Stats> {
    let mut progress = (0, clock::now());
    loop {
        let stats = stats(receiver).await?;
        if enough(&stats) {
            return Ok(stats);
        }
        if stats.posts > progress.0 {
            progress = (stats.posts, clock::now());
        }
        ensure!(progress.1.elapsed() < STALLED, "deliveries stopped short of all: {stats:?}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn stats(receiver: &Server) -> anyhow::Result<Stats> {
    let (_, answer) = receiver.ask("GET", "/stats", "").await?;
    Ok(serde_json::from_slice(&answer)?)
}

fn detail(stats: &Stats, usage: Usage) -> Value {
    json!({"received": stats, "server": usage})
}
