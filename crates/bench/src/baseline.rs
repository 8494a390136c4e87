//! The raw server: an axum handler that parses the same JSON as Tidings, hands the bytes to the appender and answers
//! when they are on disk. No ids, no order, no duplicates, no reading back: the price of the bytes and the syncs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use clap::ValueEnum;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::appender::Appender;
use crate::forward::Forwarder;
use crate::target::Target;

/// Largest body, as in Tidings.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Connections dealt to a runtime that it has not taken yet.
const DEALT_MAX: usize = 1024;

/// What `baseline serve` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen; the address is printed, for port 0.
    #[arg(long)]
    listen: SocketAddr,
    /// The file to append to.
    #[arg(long)]
    file: PathBuf,
    /// How connections share the cores; the default is the faster one.
    #[arg(long, value_enum, default_value_t = Threads::PerCore)]
    runtime: Threads,
    /// Also post every event, once synced, to this URL.
    #[arg(long)]
    forward: Option<Target>,
    /// Connections to the URL of `--forward`.
    #[arg(long, default_value_t = 16)]
    forward_connections: usize,
}

/// How connections share the cores.
#[derive(Clone, Copy, ValueEnum)]
enum Threads {
    /// One current-thread runtime a core; a connection stays where it was dealt.
    PerCore,
    /// One runtime that steals work between the cores.
    Shared,
}

/// The fields Tidings takes, borrowed from the body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "parsed to pay for the parsing, as Tidings must")]
#[expect(clippy::struct_field_names, reason = "the names of the wire")]
struct Event<'a> {
    #[serde(borrow)]
    event_id: Option<Text<'a>>,
    #[serde(borrow)]
    event_type: Text<'a>,
    version: Option<u32>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    source: Option<Text<'a>>,
    #[serde(borrow)]
    aggregate_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    channels: Vec<Text<'a>>,
    #[serde(borrow, default)]
    metadata: BTreeMap<Text<'a>, Text<'a>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A string that is copied only when it has escapes.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Clone)]
struct Shared {
    appender: Appender,
    forwarder: Option<Forwarder>,
    ids: Arc<AtomicU64>,
}

/// Serves until killed.
pub(crate) fn serve(args: Args) -> anyhow::Result<()> {
    let appender = Appender::start(&args.file).with_context(|| format!("cannot append to {}", args.file.display()))?;
    let forwarder = args.forward.map(|target| Forwarder::start(target, args.forward_connections)).transpose()?;
    let shared = Shared { appender, forwarder, ids: Arc::default() };
    let router = Router::new()
        .route("/health/ready", get(|| async {}))
        .route("/events", post(publish))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared);
    let listener = TcpListener::bind(args.listen)?;
    println!(r#"{{"listening":"{}"}}"#, listener.local_addr()?);
    match args.runtime {
        Threads::PerCore => serve_per_core(&listener, &router),
        Threads::Shared => serve_shared(listener, &router),
    }
}

async fn publish(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let batch = content_type == Some(b"application/x-ndjson");
    let parsed = if batch { count_lines(&body) } else { serde_json::from_slice::<Event<'_>>(&body).map(|_| 1) };
    let count = match parsed {
        Ok(count) => count,
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    };
    if let Err(error) = shared.appender.append(body.clone()).await {
        return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response();
    }
    if let Some(forwarder) = &shared.forwarder
        && let Err(error) = forwarder.send(body).await
    {
        return (StatusCode::BAD_GATEWAY, error.to_string()).into_response();
    }
    let first = shared.ids.fetch_add(count, Ordering::Relaxed);
    let answer = if batch {
        format!(r#"{{"accepted":{count},"duplicates":0}}"#)
    } else {
        format!(r#"{{"eventId":"{first:036x}"}}"#)
    };
    (StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], answer).into_response()
}

/// Parses every line and tells how many there were.
fn count_lines(body: &[u8]) -> serde_json::Result<u64> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(serde_json::from_slice::<Event<'_>>).try_fold(0, |count, event| event.map(|_| count + 1))
}

fn serve_per_core(listener: &TcpListener, router: &Router) -> anyhow::Result<()> {
    let cores = thread::available_parallelism()?.get();
    let mut lanes = Vec::with_capacity(cores);
    for _ in 0..cores {
        let (lane, mut dealt) = mpsc::channel::<std::net::TcpStream>(DEALT_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let router = router.clone();
        thread::spawn(move || {
            runtime.block_on(async {
                while let Some(stream) = dealt.recv().await {
                    match TcpStream::from_std(stream) {
                        Ok(stream) => drop(tokio::spawn(converse(stream, router.clone()))),
                        Err(error) => eprintln!("connection lost: {error}"),
                    }
                }
            });
        });
        lanes.push(lane);
    }
    for turn in 0.. {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        lanes[turn % cores].blocking_send(stream)?;
    }
    Ok(())
}

fn serve_shared(listener: TcpListener, router: &Router) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(converse(stream, router.clone()));
        }
    })
}

/// Serves one connection until it ends; what a client does wrong is its own affair.
async fn converse(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
