//! The raw sender: posts one captured webhook, byte for byte, over and over: what Tidings' deliveries are compared with.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::clock;
use crate::target::Target;

/// What `baseline post` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to post; the sample's own path is used.
    #[arg(long)]
    url: Target,
    /// A captured webhook: what a receiver's `GET /sample` answers.
    #[arg(long)]
    sample: PathBuf,
    /// Kept connections, one post at a time on each.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How many posts.
    #[arg(long)]
    count: u64,
    /// Threads that share the connections.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// A webhook as it was received.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// What the sender did.
#[derive(Serialize)]
struct Report {
    posts: u64,
    posts_per_second: f64,
}

/// Posts, then prints one line of JSON.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let text = fs::read(&args.sample).context("cannot read the sample")?;
    let sample: Sample = serde_json::from_slice(&text)?;
    // Against one receiver a second thread gains nothing: the receiver is the limit.
    let runtime = match args.threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        threads => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    let report = runtime.block_on(post_all(args, Arc::new(sample)))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn post_all(args: &Args, sample: Arc<Sample>) -> anyhow::Result<Report> {
    let left = Arc::new(AtomicU64::new(args.count));
    let mut senders = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        senders.push(connect(args.url.addr).await?);
    }
    let begun = clock::now();
    let mut tasks = JoinSet::new();
    for mut sender in senders {
        let (sample, left) = (Arc::clone(&sample), Arc::clone(&left));
        let body = Bytes::from(sample.body.clone());
        tasks.spawn(async move {
            while take_one(&left) {
                post(&mut sender, &sample, body.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(Report { posts: args.count, posts_per_second: clock::per_second(args.count, begun.elapsed()) })
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Opens a connection and leaves its driver to the runtime.
pub(crate) async fn connect(addr: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Posts `body` as `sample` was posted; anything but a 2xx is an error.
pub(crate) async fn post(sender: &mut SendRequest<Full<Bytes>>, sample: &Sample, body: Bytes) -> anyhow::Result<()> {
    let mut request = Request::post(&sample.path);
    for (name, value) in &sample.headers {
        request = request.header(name, value);
    }
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    ensure!(answer.status().is_success(), "the receiver answered {}", answer.status());
    answer.into_body().collect().await?;
    Ok(())
}
