//! Rows about webhooks that want nothing of what is published: what they cost who publishes, and in memory.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use super::Bench;
use super::folder::{Folder, settle_disk};
use super::report::{Goal, Line, Side, Unit};
use crate::http1::Connection;

/// How many there are where there are few.
const FEW: usize = 10;
/// Webhooks of a tenant, at the most.
const OF_A_TENANT_MAX: usize = 10_000;
/// Connections over which they are made.
const CONNECTIONS: usize = 32;
const RATIO_MIN: f64 = 0.8;

/// Publishing with many webhooks whose filters match nothing of it, against few.
pub(crate) async fn subscriptions(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let many = bench.sizes.subscriptions;
    let title = format!("one event per POST, 64 connections, {many} webhooks that want none, against {FEW}");
    let mut rate = Line::new("idle-subscriptions", &title, Unit::EventsPerSecond, Goal::RatioAtLeast(RATIO_MIN));
    let mut memory = Line::new("idle-subscriptions", "its memory afterwards (RssAnon)", Unit::Mib, Goal::RatioOnly);
    let mut start = Line::new("idle-subscriptions", "its start until ready", Unit::Seconds, Goal::RatioOnly);
    let folders = [(Side::Tidings, subscribed(bench, many).await?), (Side::Baseline, subscribed(bench, FEW).await?)];
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            let folder = folders.iter().find(|(found, _)| *found == side).context("both were made")?;
            let folder = bench.work.copy_of(&folder.1)?;
            settle_disk();
            let (seconds, warmup) = (bench.sizes.seconds.to_string(), bench.sizes.warmup.to_string());
            let args = ["--mode", "single", "--connections", "64", "--seconds", &seconds, "--warmup", &warmup];
            let server = bench.programs.tidings(folder.path()).await?;
            start.add(side, server.age().as_secs_f64());
            let report = bench.programs.load(&server, &args).await?;
            let usage = server.usage()?;
            server.stop().await?;
            rate.add(side, report.events_per_second);
            memory.add(side, usage.rss_anon_mib);
            rate.note(side, json!({"load": report, "server": usage}));
        }
        rate.tell(pair);
        memory.tell(pair);
        start.tell(pair);
    }
    Ok(vec![rate, memory, start])
}

/// A folder with so many webhooks, left as `kill -9` leaves it.
async fn subscribed(bench: &Bench, count: usize) -> anyhow::Result<Folder> {
    let folder = bench.work.folder()?;
    let server = bench.programs.tidings(folder.path()).await?;
    let mut tasks = JoinSet::new();
    for first in 0..CONNECTIONS.min(count) {
        tasks.spawn(create(server.addr(), (first..count).step_by(CONNECTIONS)));
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    server.stop().await?;
    Ok(folder)
}

/// Makes webhooks by number; the first ten thousand belong to the tenant that is published to.
async fn create(addr: SocketAddr, numbers: impl Iterator<Item = usize>) -> anyhow::Result<()> {
    let mut connection = Connection::open(addr).await?;
    for number in numbers {
        let body = json!({"url": "http://127.0.0.1:9/hooks", "eventTypes": [format!("never.n{number}")]}).to_string();
        let tenant = match number / OF_A_TENANT_MAX {
            0 => String::new(),
            tenant => format!("tidings-tenant: t{tenant}\r\n"),
        };
        let request = format!(
            "POST /webhooks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{tenant}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = connection.exchange(request.as_bytes()).await?;
        let text = String::from_utf8_lossy(answer.body);
        ensure!(answer.status == 201, "POST /webhooks answered {}: {text}", answer.status);
    }
    Ok(())
}
