//! Forgets used tickets once their time is over.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::clock;

const EVERY: Duration = Duration::from_mins(10);

/// Sweeps for ever.
pub(super) async fn sweep(app: Arc<App>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        if let Err(error) = app.tickets.sweep(&*app.store, clock::now()).await {
            // They are refused all the same; the next round tries again.
            tracing::warn!(%error, "cannot forget old tickets");
        }
    }
}
