//! The relay half of the raw server: posts on what was synced, over a few kept connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::poster::{self, Sample};
use crate::target::Target;

/// Events that may wait for one connection; more wait in their publishers.
const WAITING_MAX: usize = 1024;

/// A handle to the relay's thread; clones share it.
#[derive(Clone)]
pub(crate) struct Forwarder {
    lanes: Arc<[mpsc::Sender<Bytes>]>,
    turn: Arc<AtomicUsize>,
}

impl Forwarder {
    /// Connects before it returns; a receiver that fails later ends the process, for the figure would be worthless.
    pub(crate) fn start(target: Target, connections: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sample = Arc::new(Sample {
            headers: vec![
                ("host".to_owned(), target.addr.to_string()),
                ("content-type".to_owned(), "application/json".to_owned()),
            ],
            path: target.path,
            body: String::new(),
        });
        let mut lanes = Vec::with_capacity(connections);
        for _ in 0..connections {
            let mut sender = runtime.block_on(poster::connect(target.addr))?;
            let (lane, mut waiting) = mpsc::channel(WAITING_MAX);
            let sample = Arc::clone(&sample);
            runtime.spawn(async move {
                while let Some(body) = waiting.recv().await {
                    if let Err(error) = poster::post(&mut sender, &sample, body).await {
                        eprintln!("posting on failed: {error}");
                        std::process::exit(1);
                    }
                }
            });
            lanes.push(lane);
        }
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Ok(Self { lanes: lanes.into(), turn: Arc::default() })
    }

    /// Waits while the connection whose turn it is has too much waiting.
    pub(crate) async fn send(&self, body: Bytes) -> anyhow::Result<()> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let lane = &self.lanes[turn % self.lanes.len()];
        lane.send(body).await.context("the relay has ended")
    }
}
