//! The end: in order, within 25 seconds, whatever hangs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::listen::Server;
use crate::app::{App, Phase};
use crate::clock;
use crate::control::starts;

/// When, after the signal, connections are accepted no more: balancers have noticed by then.
const STOP_ACCEPTING: Duration = Duration::from_secs(3);
/// When streams and requests have ended.
const DRAINED: Duration = Duration::from_secs(15);
/// When attempts are cancelled.
const CANCEL: Duration = Duration::from_secs(20);
/// When the process is gone.
const EXIT: Duration = Duration::from_secs(25);
/// What is under way when the log is fenced gets an answer within this time.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

/// Waits for a signal and stops in order; an error if the log was fenced.
pub(crate) async fn wait(app: &App, phase: &watch::Sender<Phase>, server: Server) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("stopping"),
        _ = interrupt.recv() => tracing::info!("stopping; once more to stop at once"),
        reason = app.store.fenced() => {
            phase.send_replace(Phase::Draining);
            app.streams.drain();
            sleep(LAST_ANSWERS).await;
            bail!("the log was fenced after a disk error ({reason}); start again to go on from what the disk has");
        }
    }
    let begun = Instant::now();
    tokio::select! {
        () = in_order(app, phase, &server, begun) => {}
        () = sleep_until(begun + EXIT) => tracing::warn!("not everything ended in time"),
        _ = interrupt.recv() => tracing::warn!("stopped at once"),
        _ = terminate.recv() => tracing::warn!("stopped at once"),
    }
    Ok(())
}

async fn in_order(app: &App, phase: &watch::Sender<Phase>, server: &Server, begun: Instant) {
    phase.send_replace(Phase::Stopping);
    let deliveries = app.dispatcher.shutdown(CANCEL);
    let connections = async {
        // Nobody balances a development server.
        if !app.settings.dev {
            sleep_until(begun + STOP_ACCEPTING).await;
        }
        server.stop_accepting();
        phase.send_replace(Phase::Draining);
        app.streams.drain();
        let drained = async {
            // Streams too, which no thread of HTTP knows of any more.
            while server.open.load(Ordering::Relaxed) > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let left = (begun + DRAINED).saturating_duration_since(Instant::now());
        if timeout(left, drained).await.is_err() {
            tracing::warn!(open = server.open.load(Ordering::Relaxed), "connections did not end in time");
        }
    };
    tokio::join!(deliveries, connections);
    starts::end(&*app.store, clock::now()).await;
    // It joins threads and folds the WAL: elsewhere, or nothing would end this thread in time.
    let store = Arc::clone(&app.store);
    if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
        tracing::error!(%error, "the log was not closed in order");
    }
    tracing::info!("stopped");
}
