//! Rows about event streams: fan-out, what an idle one takes, catching up, a reader that stalls, one channel among many.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::Bench;
use super::folder::settle_disk;
use super::process::Server;
use super::report::{Goal, Line, Side, Unit};
use crate::clock;
use crate::watch::{self, Ends};

const RATE_MIN: f64 = 0.6;
const LATENCY_MAX: f64 = 1.2;
const IDLE_KIB_MAX: f64 = 4.0;
const CATCH_UP_MIN: f64 = 0.3;
const STALLED_MAX: f64 = 1.1;
const AMONG_MAX: f64 = 1.1;
/// Paced rows publish so many events a second to 10,000 streams.
const SLOW_RATE: &str = "5";
/// And so many to 1,000 beside one that stalls, or to one among many.
const FAST_RATE: &str = "50";
const AMONG_RATE: &str = "1000";
/// Readings of one log that are timed.
const READINGS: u64 = 10;
/// Streams of a small audience.
const FEW: usize = 10;

/// How events get to those who follow them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Stream,
    Socket,
}

/// Fan-out as fast as it goes, and at a slow pace.
pub(crate) async fn fan_out(bench: &Bench, way: Way, connections: usize) -> anyhow::Result<Vec<Line>> {
    let (row, what) = match way {
        Way::Stream => (format!("fan-out-{connections}"), "streams"),
        Way::Socket => (format!("fan-out-ws-{connections}"), "WebSockets"),
    };
    let title = format!("events of 300 B to {connections} {what}");
    let mut rate = Line::new(&row, &title, Unit::DeliveriesPerSecond, Goal::RatioAtLeast(RATE_MIN));
    let title = format!("its p50 at {SLOW_RATE} events/s");
    let mut late = Line::new(&row, &title, Unit::Milliseconds, Goal::RatioAtMost(LATENCY_MAX));
    let (count, seconds) = (connections.to_string(), bench.sizes.seconds.to_string());
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            let folder = bench.work.folder()?;
            settle_disk();
            let server = start(bench, side, way, folder.path(), None).await?;
            let mut common = vec!["--connections", &count, "--seconds", &seconds];
            common.extend((way == Way::Socket).then_some("--websocket"));
            let found = report(bench, &server, &common).await?;
            rate.add(side, found.deliveries_per_second);
            rate.note(side, json!({"watch": found, "server": server.usage()?}));
            server.stop().await?;
            let folder = bench.work.folder()?;
            let server = start(bench, side, way, folder.path(), None).await?;
            let slow = report(bench, &server, &[&common[..], &["--rate", SLOW_RATE]].concat()).await?;
            late.add(side, f64::from(slow.late_us.p50) / 1000.0);
            late.note(side, json!({ "watch": slow }));
            server.stop().await?;
        }
        rate.tell(pair);
        late.tell(pair);
    }
    Ok(vec![rate, late])
}

/// Memory of streams on which nothing happens.
pub(crate) async fn idle(bench: &Bench, way: Way) -> anyhow::Result<Vec<Line>> {
    let count = bench.sizes.streams;
    let (row, what) = match way {
        Way::Stream => ("idle-streams", "stream"),
        Way::Socket => ("idle-sockets", "WebSocket"),
    };
    let title = format!("an idle {what} of {count} (RssAnon)");
    let mut line = Line::new(row, &title, Unit::Kib, Goal::AtMost(IDLE_KIB_MAX));
    for pair in 0..bench.sizes.pairs {
        let folder = bench.work.folder()?;
        let server = bench.programs.tidings(folder.path()).await?;
        // What the first streams make once.
        drop(held(server.addr(), way, FEW).await?);
        let before = server.usage()?.rss_anon_mib;
        let streams = held(server.addr(), way, count).await?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let each = (server.usage()?.rss_anon_mib - before) * 1024.0 / count as f64;
        drop(streams);
        server.stop().await?;
        line.add(Side::Tidings, each);
        line.tell(pair);
    }
    Ok(vec![line])
}

async fn held(addr: SocketAddr, way: Way, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    // Each with a filter of its own: the most that one can take.
    let open = move || match way {
        Way::Stream => watch::open(addr, count, |number| format!("/events/stream?channels=user:{number}")),
        Way::Socket => watch::open_sockets(addr, count, |number| format!(r#","channels":["user:{number}"]"#)),
    };
    tokio::task::spawn_blocking(open).await?
}

/// A client that reads a long log from its beginning.
pub(crate) async fn catch_up(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let events = bench.sizes.caught_up;
    let title = format!("catch-up of {events} events of 300 B");
    let mut line = Line::new("catch-up", &title, Unit::EventsPerSecond, Goal::RatioAtLeast(CATCH_UP_MIN));
    let folder = bench.work.folder()?;
    let server = bench.programs.tidings(folder.path()).await?;
    let bytes = fill(&server, events).await?;
    let file = bench.work.file("frames");
    let frame = usize::try_from(bytes / events)?;
    std::fs::write(&file, format!("{}}}\n\n", "x".repeat(frame - 3)).repeat(usize::try_from(events)?))?;
    server.stop().await?;
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            settle_disk();
            let copy = bench.work.copy_of(&folder)?;
            let server = start(bench, side, Way::Stream, copy.path(), Some(&file)).await?;
            let addr = server.addr();
            // The first reading brings the file into memory on both sides. One takes milliseconds: several are timed.
            tokio::task::spawn_blocking(move || read_all(addr, events)).await??;
            let mut took = Duration::ZERO;
            for _ in 0..READINGS {
                took += tokio::task::spawn_blocking(move || read_all(addr, events)).await??.0;
            }
            line.add(side, clock::per_second(events * READINGS, took));
            server.stop().await?;
        }
        line.tell(pair);
    }
    Ok(vec![line])
}

/// Publishes events; how many bytes their frames have.
pub(super) async fn fill(server: &Server, events: u64) -> anyhow::Result<u64> {
    for first in (0..events).step_by(1_000) {
        let mut body = String::from("[");
        for number in first..(first + 1_000).min(events) {
            let comma = if number == first { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(body, r#"{comma}{{"eventType":"bench.tick","data":{{"fill":"{}"}}}}"#, "x".repeat(110));
        }
        let (status, answer) = server.ask("POST", "/events", &(body + "]")).await?;
        ensure!(status == 201, "publishing was answered {status} {}", String::from_utf8_lossy(&answer));
    }
    let addr = server.addr();
    Ok(tokio::task::spawn_blocking(move || read_all(addr, events)).await??.1)
}

/// Reads a stream from the earliest until so many events have come; how long that took, and how many bytes it was.
fn read_all(addr: SocketAddr, events: u64) -> anyhow::Result<(Duration, u64)> {
    let begun = clock::now();
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(b"GET /events/stream?from=earliest HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut found, mut bytes, mut ends) = (0, 0, Ends::default());
    while found < events {
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "the stream ended after {found} events");
        bytes += length as u64;
        found += ends.count(&buffer[..length]);
    }
    Ok((begun.elapsed(), bytes))
}

/// What one reader that stalls does to the others.
pub(crate) async fn stalled(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title = format!("p99 of 999 streams at {FAST_RATE} events of 2 KB a second beside one that never reads");
    let mut line = Line::new("stalled-reader", &title, Unit::Milliseconds, Goal::RatioAtMost(STALLED_MAX));
    let seconds = bench.sizes.seconds.to_string();
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            let (count, stalled) = if side == Side::Tidings { ("1000", "1") } else { ("999", "0") };
            let folder = bench.work.folder()?;
            settle_disk();
            let server = bench.programs.tidings(folder.path()).await?;
            let args = ["--connections", count, "--stalled", stalled, "--seconds", &seconds, "--rate", FAST_RATE];
            let found = report(bench, &server, &[&args[..], &["--fill", "2000"]].concat()).await?;
            line.add(side, f64::from(found.late_us.p99) / 1000.0);
            line.note(side, json!({ "watch": found }));
            server.stop().await?;
        }
        line.tell(pair);
    }
    Ok(vec![line])
}

/// What an event for one channel costs among many streams of other channels, against few.
pub(crate) async fn one_among(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title = format!("p50 of an event for one channel among {}, against {FEW}", bench.sizes.streams);
    let mut late = Line::new("one-among", &title, Unit::Milliseconds, Goal::RatioAtMost(AMONG_MAX));
    let mut cost = Line::new("one-among", "its processor time for 1,000 events", Unit::Milliseconds, Goal::RatioOnly);
    let (many, few, seconds) = (bench.sizes.streams.to_string(), FEW.to_string(), bench.sizes.seconds.to_string());
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            let count = if side == Side::Tidings { &many } else { &few };
            let folder = bench.work.folder()?;
            settle_disk();
            let server = bench.programs.tidings(folder.path()).await?;
            let args = ["--connections", count, "--seconds", &seconds, "--rate", AMONG_RATE, "--apart"];
            let before = server.usage()?.cpu_seconds;
            let found = report(bench, &server, &args).await?;
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let each = (server.usage()?.cpu_seconds - before) * 1e6 / found.published as f64;
            late.add(side, f64::from(found.late_us.p50) / 1000.0);
            late.note(side, json!({ "watch": found }));
            cost.add(side, each);
            server.stop().await?;
        }
        late.tell(pair);
        cost.tell(pair);
    }
    Ok(vec![late, cost])
}

async fn start(bench: &Bench, side: Side, way: Way, folder: &Path, file: Option<&Path>) -> anyhow::Result<Server> {
    match side {
        Side::Tidings => bench.programs.tidings(folder).await,
        Side::Baseline => bench.programs.streamer(folder, file, way == Way::Socket).await,
    }
}

async fn report(bench: &Bench, server: &Server, args: &[&str]) -> anyhow::Result<watch::Report> {
    let url = server.url("/");
    let text = bench.programs.run_bench(&[&["watch", "--url", &url][..], args].concat()).await?;
    Ok(serde_json::from_slice(&text)?)
}
