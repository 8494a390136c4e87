//! Rows about all streams at once: they come back with an offset that is behind, and they are sent away when a server stops.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use memchr::memmem;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use super::Bench;
use super::folder::settle_disk;
use super::report::{Goal, Line, Side, Unit};
use super::streams::fill;
use crate::{clock, watch};

/// All are sent away within this.
const DRAIN_SECONDS_MAX: f64 = 5.0;
/// Memory of all that come back together.
const COME_BACK_MIB_MAX: f64 = 64.0;
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Nothing at all may come for so long.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 256 * 1024;
/// What is kept of the end of a stream.
const LAST_BYTES: usize = 256;

/// A tenth of the streams at once, each a tenth of the log behind, after a start.
pub(crate) async fn come_back(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let (count, events) = (bench.sizes.streams / 10, bench.sizes.caught_up);
    let title = format!("{count} streams come back, each {} events behind: until all are live", events / 10);
    let mut took = Line::new("come-back", &title, Unit::Seconds, Goal::RatioOnly);
    let mut memory =
        Line::new("come-back", "the most memory meanwhile (RssAnon)", Unit::Mib, Goal::AtMost(COME_BACK_MIB_MAX));
    let folder = bench.work.folder()?;
    let server = bench.programs.tidings(folder.path()).await?;
    fill(&server, events).await?;
    server.stop().await?;
    for pair in 0..bench.sizes.pairs {
        settle_disk();
        let copy = bench.work.copy_of(&folder)?;
        let server = bench.programs.tidings(copy.path()).await?;
        let (addr, from) = (server.addr(), events - events / 10);
        let begun = clock::now();
        let live = tokio::task::spawn_blocking(move || {
            let streams = watch::open(addr, count, |_| format!("/events/stream?from={from}"))?;
            follow(streams, |last, ended| {
                ensure!(!ended, "a stream ended: {}", String::from_utf8_lossy(last));
                Ok(memmem::find(last, b"\"replay\":\"complete\"").is_some())
            })?;
            anyhow::Ok(begun.elapsed())
        });
        let mut most = 0.0_f64;
        while !live.is_finished() {
            most = most.max(server.usage()?.rss_anon_mib);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        took.add(Side::Tidings, live.await??.as_secs_f64());
        memory.add(Side::Tidings, most);
        server.stop().await?;
        took.tell(pair);
        memory.tell(pair);
    }
    Ok(vec![took, memory])
}

/// From the signal until each stream has been told when to come back, and has ended.
pub(crate) async fn drain(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let count = bench.sizes.streams;
    let title = format!("{count} streams are told when to come back and end, after SIGTERM");
    let mut line = Line::new("drain", &title, Unit::Seconds, Goal::AtMost(DRAIN_SECONDS_MAX));
    for pair in 0..bench.sizes.pairs {
        let folder = bench.work.folder()?;
        let server = bench.programs.tidings(folder.path()).await?;
        let addr = server.addr();
        let open = move || watch::open(addr, count, |_| "/events/stream".to_owned());
        let streams = tokio::task::spawn_blocking(open).await??;
        let begun = clock::now();
        server.terminate()?;
        let ends = tokio::task::spawn_blocking(|| follow(streams, |_, ended| Ok(ended))).await??;
        line.add(Side::Tidings, begun.elapsed().as_secs_f64());
        let mut retries = ends.iter().map(|last| retry(last)).collect::<anyhow::Result<Vec<u64>>>()?;
        retries.sort_unstable();
        let tenth = |tenths: usize| retries[(retries.len() - 1) * tenths / 10];
        let spread: Vec<u64> = (0..=10).map(tenth).collect();
        eprintln!("  they come back after so many ms, in tenths: {spread:?}");
        line.note(Side::Tidings, json!({ "retry_ms": spread }));
        server.finished().await?;
        line.tell(pair);
    }
    Ok(vec![line])
}

/// When a stream that was told to go was told to come back, in milliseconds.
fn retry(last: &[u8]) -> anyhow::Result<u64> {
    let text = String::from_utf8_lossy(last);
    let told = || text.contains("\"closing\":\"drain\"").then(|| text.rsplit_once("retry: "))??.1.lines().next();
    Ok(told().with_context(|| format!("a stream ended without a word: {text}"))?.parse()?)
}

/// Reads all streams until `is_over` says so of the last bytes of each, and whether it has ended; these last bytes.
fn follow(
    streams: Vec<TcpStream>,
    is_over: impl Fn(&[u8], bool) -> anyhow::Result<bool>,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let mut all = Vec::with_capacity(streams.len());
    for (number, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
        all.push((stream, Vec::new(), false));
    }
    let (mut left, mut buffer) = (all.len(), vec![0; READ_BYTES]);
    while left > 0 {
        poll.poll(&mut events, Some(SILENCE_MAX))?;
        ensure!(!events.is_empty(), "{left} streams are silent");
        for event in &events {
            let (stream, last, over) = &mut all[event.token().0];
            while !*over {
                let length = match stream.read(&mut buffer) {
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                };
                last.extend_from_slice(&buffer[length.saturating_sub(LAST_BYTES)..length]);
                last.drain(..last.len().saturating_sub(LAST_BYTES));
                *over = is_over(last, length == 0)?;
                left -= usize::from(*over);
            }
        }
    }
    Ok(all.into_iter().map(|(_, last, _)| last).collect())
}
