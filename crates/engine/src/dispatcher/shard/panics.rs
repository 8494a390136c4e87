//! A task that panics is a fault of ours: it is told and counted, and the task begins again from what was committed.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tidings_core::offset::Offset;
use tidings_log::{CommitError, Tenant, Unavailable};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::{Phase, Shard};
use crate::dispatcher::entry::{End, Told};
use crate::dispatcher::orders::Ordered;
use crate::dispatcher::runner::{self, Opening};
use crate::dispatcher::{Subscription, reading, sweeper};

/// Before a task that panicked begins again.
const PAUSE: Duration = Duration::from_secs(1);

impl Shard {
    /// Runs a lane.
    pub(super) async fn run(
        self: &Arc<Self>,
        opening: Opening,
        mut told: watch::Receiver<Told>,
        orders: mpsc::UnboundedReceiver<Ordered>,
    ) {
        let (number, at, own) = (opening.number, opening.at, opening.own);
        let (subscription, live) = (Arc::clone(&opening.subscription), Arc::clone(&opening.live));
        if AssertUnwindSafe(runner::run(opening, told.clone(), orders)).catch_unwind().await.is_ok() {
            return;
        }
        self.meter.panicked();
        tracing::error!(subscription = &*subscription.id, "a lane panicked: it begins again from what was committed");
        loop {
            // Whoever ends it waits for it.
            let _ = tokio::time::timeout(PAUSE, told.wait_for(|told| *told > Told::Run)).await;
            if *self.phase.borrow() == Phase::Shut {
                return;
            }
            let own = own || live.lock().own;
            match self.committed(&subscription, own, at).await {
                Ok(end) => return self.begin_again(number, end),
                Err(Unavailable::Fenced(_)) => return,
                Err(error) => {
                    tracing::warn!(subscription = &*subscription.id, %error, "a lane cannot begin again yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// What a lane would have left if it had ended with its last commit. Without a progress of its own it began at `at`.
    async fn committed(&self, subscription: &Subscription, own: bool, at: Option<Offset>) -> Result<End, Unavailable> {
        // What the lane handed over before comes to its end before this one.
        let barrier = self.store.commit((self.env.now)(), Vec::new()).await;
        if let Err(CommitError::Unavailable(error)) = barrier {
            return Err(error);
        }
        let progress = self.store.progress(&subscription.id).await?;
        Ok(End {
            standing: reading::standing(&*self.store, subscription).await?,
            bucket: None,
            own: own || progress.is_some(),
            committed: progress.map_or(at.unwrap_or(subscription.start), |progress| progress.cursor),
            replays: true,
            recall: false,
        })
    }

    /// Runs a tenant's sweeper. What it knows stands in the shard: it just goes on.
    pub(super) async fn sweep(self: &Arc<Self>, tenant: Tenant) {
        while AssertUnwindSafe(sweeper::run(self, tenant)).catch_unwind().await.is_err() {
            self.meter.panicked();
            tracing::error!(tenant = tenant.0, "a sweeper panicked: it goes on");
            sleep(PAUSE).await;
        }
    }
}
