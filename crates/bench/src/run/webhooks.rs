//! Rows about webhooks: deliveries by the second and how long an event takes to arrive.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Bench;
use super::folder::settle_disk;
use super::process::{Server, Usage};
use super::report::{Goal, Line, Side, Unit};
use crate::clock;
use crate::receiver::Stats;

/// Between two looks at the receiver; the rate does not depend on it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A receiver that gets nothing new for this long will get nothing more.
const STALLED: Duration = Duration::from_secs(30);
/// Events a second of the latency row.
const PACE: &str = "50";

/// Webhooks to one receiver after a burst of events, against a client that posts one of them over and over.
pub(crate) async fn deliveries(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title = format!("{} webhook deliveries to one receiver (thin thread)", bench.sizes.deliveries);
    let mut line = Line::new("deliver", &title, Unit::DeliveriesPerSecond, Goal::RatioOnly);
    let sample = bench.work.file("sample.json");
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            settle_disk();
            let (rate, detail) = match side {
                Side::Tidings => delivered_by_tidings(bench, &sample).await?,
                Side::Baseline => posted_by_baseline(bench, &sample).await?,
            };
            line.add(side, rate);
            line.note(side, detail);
        }
        line.tell(pair);
    }
    Ok(vec![line])
}

async fn delivered_by_tidings(bench: &Bench, sample: &Path) -> anyhow::Result<(f64, Value)> {
    let folder = bench.work.folder()?;
    let receiver = bench.programs.receiver(&bench.work.file("receiver.log")).await?;
    let server = bench.programs.tidings(folder.path()).await?;
    subscribe(&server, &receiver).await?;
    let count = bench.sizes.deliveries.to_string();
    let args = ["--mode", "ndjson", "--connections", "8", "--count", &count];
    let published = bench.programs.load(&server, &args).await?;
    let stats = await_stats(&receiver, |stats| stats.distinct >= published.acked).await?;
    let usage = server.usage()?;
    let (_, captured) = receiver.ask("GET", "/sample", "").await?;
    fs::write(sample, captured)?;
    server.stop().await?;
    receiver.stop().await?;
    // A second copy of a delivery is not a second delivery.
    let rate = clock::per_second(stats.distinct, Duration::from_secs_f64(stats.seconds));
    Ok((rate, detail(&stats, usage)))
}

async fn posted_by_baseline(bench: &Bench, sample: &Path) -> anyhow::Result<(f64, Value)> {
    let receiver = bench.programs.receiver(&bench.work.file("receiver.log")).await?;
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
    let line = |title: &str| {
        let title = format!("publish → webhook received at {PACE}/s, {title} (thin thread)");
        Line::new("latency", &title, Unit::Milliseconds, Goal::RatioOnly)
    };
    let (mut p50, mut p99) = (line("p50"), line("p99"));
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

async fn paced(bench: &Bench, side: Side) -> anyhow::Result<(Stats, Value)> {
    let folder = bench.work.folder()?;
    let receiver = bench.programs.receiver(&bench.work.file("receiver.log")).await?;
    let server = match side {
        Side::Tidings => {
            let server = bench.programs.tidings(folder.path()).await?;
            subscribe(&server, &receiver).await?;
            server
        }
        Side::Baseline => bench.programs.baseline(folder.path(), Some(&receiver)).await?,
    };
    let seconds = bench.sizes.seconds.to_string();
    let args = ["--mode", "single", "--connections", "4", "--rate", PACE, "--warmup", "0", "--seconds", &seconds];
    let published = bench.programs.load(&server, &args).await?;
    let arrived = |stats: &Stats| match side {
        Side::Tidings => stats.distinct,
        Side::Baseline => stats.posts,
    };
    let stats = await_stats(&receiver, |stats| arrived(stats) >= published.acked).await?;
    let detail = detail(&stats, server.usage()?);
    server.stop().await?;
    receiver.stop().await?;
    Ok((stats, detail))
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
