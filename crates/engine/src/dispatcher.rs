//! Delivers the log to subscriptions: one lane each, a task that reads, sends, settles and commits.
//!
//! What is decided stands in `tidings_core::lane`; here is the shell that acts on it. One slow subscriber slows nobody:
//! lanes share the log's tail and nothing else. Circuit, deactivation, replay and the sweep that lets current lanes
//! share one cursor will be neighbours of `runner`.

mod attempt;
mod ledger;
mod reading;
mod runner;
mod signals;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use parking_lot::Mutex;
use tidings_core::filter::Filter;
use tidings_core::lane::Ordering;
use tidings_core::offset::Offset;
use tidings_core::retry::Schedule;
use tidings_core::time::Timestamp;
use tidings_log::{Store, Tenant};
use tidings_sinks::Sink;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Who gets which events, and how.
pub struct Subscription {
    /// Unique in the log; names its progress.
    pub id: Box<str>,
    /// Whose events.
    pub tenant: Tenant,
    /// Which of them.
    pub filter: Filter,
    /// The cursor, if the log keeps no progress of it.
    pub start: Offset,
    /// When to try again.
    pub schedule: Schedule,
    /// Most attempts in flight.
    pub max_concurrency: usize,
    /// Whether aggregates keep their order.
    pub ordering: Ordering,
    /// The way to the subscriber.
    pub sink: Arc<dyn Sink>,
}

/// Time and chance.
#[derive(Clone, Copy)]
pub struct Env {
    /// The time.
    pub now: fn() -> Timestamp,
    /// Fills a buffer with chance.
    pub random: fn(&mut [u8]),
}

/// How a lane stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// Everything through here is settled but for what waits.
    pub cursor: Offset,
    /// Attempts being made.
    pub in_flight: usize,
    /// Deliveries that wait beside the cursor.
    pub waiting: usize,
    /// Deliveries given up, ever.
    pub dead: u64,
}

/// Runs the lanes of all subscriptions.
pub struct Dispatcher {
    store: Arc<dyn Store>,
    env: Env,
    runtime: Handle,
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    running: HashMap<Box<str>, Running>,
    shut: bool,
}

/// What a lane is told from outside; later ones are stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Run,
    /// Send nothing more, settle what is in flight, commit, end.
    Settle,
    /// Forget what is in flight, commit what is known, end.
    Cancel,
}

/// The outside of a lane.
struct Running {
    orders: watch::Sender<Order>,
    status: Arc<Mutex<LaneStatus>>,
    /// Closes when the lane's task has ended, however it did.
    ended: watch::Receiver<()>,
}

impl Running {
    fn order(&self, order: Order) {
        self.orders.send_if_modified(|current| mem::replace(current, order.max(*current)) < order);
    }

    async fn ended(&mut self) {
        while self.ended.changed().await.is_ok() {}
    }
}

impl Dispatcher {
    /// A dispatcher without lanes; theirs will run on `runtime`.
    pub fn new(store: Arc<dyn Store>, env: Env, runtime: Handle) -> Self {
        Self { store, env, runtime, lanes: Mutex::default() }
    }

    /// Starts a lane. A running one of the same id settles first and is replaced. After [`Dispatcher::shutdown`]
    /// nothing starts.
    pub fn start(&self, subscription: Subscription) {
        let (orders, told) = watch::channel(Order::Run);
        let (alive, ended) = watch::channel(());
        let status = Arc::new(Mutex::new(LaneStatus { cursor: subscription.start, ..LaneStatus::default() }));
        let mut lanes = self.lanes.lock();
        if lanes.shut {
            return;
        }
        let running = Running { orders, status: Arc::clone(&status), ended };
        let former = lanes.running.insert(subscription.id.clone(), running);
        let (store, env) = (Arc::clone(&self.store), self.env);
        self.runtime.spawn(async move {
            let _alive = alive;
            let mut told = told;
            if let Some(former) = former {
                succeed(former, &mut told).await;
            }
            runner::run(store, env, subscription, told, status).await;
        });
    }

    /// Ends a lane after it has settled what is in flight and committed it.
    pub async fn stop(&self, id: &str) {
        let running = self.lanes.lock().running.remove(id);
        if let Some(mut running) = running {
            running.order(Order::Settle);
            running.ended().await;
        }
    }

    /// How a lane stands, if there is one.
    pub fn status(&self, id: &str) -> Option<LaneStatus> {
        let lanes = self.lanes.lock();
        let status = *lanes.running.get(id)?.status.lock();
        Some(status)
    }

    /// Ends all lanes. Nothing more is sent; what is in flight gets `patience`, then it is cancelled as unknown, not
    /// failed. Everything known is committed.
    pub async fn shutdown(&self, patience: Duration) {
        let mut running: Vec<_> = {
            let mut lanes = self.lanes.lock();
            lanes.shut = true;
            lanes.running.drain().map(|(_, running)| running).collect()
        };
        for lane in &running {
            lane.order(Order::Settle);
        }
        let settled = async {
            for lane in &mut running {
                lane.ended().await;
            }
        };
        if tokio::time::timeout(patience, settled).await.is_ok() {
            return;
        }
        for lane in &running {
            lane.order(Order::Cancel);
        }
        for lane in &mut running {
            lane.ended().await;
        }
    }
}

/// Ends the lane that went before, no slower than its successor is told to end.
async fn succeed(mut former: Running, told: &mut watch::Receiver<Order>) {
    former.order(Order::Settle);
    let Running { orders, ended, .. } = &mut former;
    loop {
        tokio::select! {
            alive = ended.changed() => if alive.is_err() { return },
            order = told.changed() => {
                let order = if order.is_ok() { *told.borrow_and_update() } else { Order::Cancel };
                orders.send_if_modified(|current| mem::replace(current, order.max(*current)) < order);
                if order == Order::Cancel {
                    break;
                }
            }
        }
    }
    former.ended().await;
}
