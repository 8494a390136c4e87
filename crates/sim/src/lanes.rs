//! The dispatcher as the simulation drives it.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::filter::Filter;
use tidings_core::lane::Settings;
use tidings_core::offset::Offset;
use tidings_core::rate::Rate;
use tidings_engine::dispatcher::{
    ATTEMPTS_MAX, Dispatcher, Job, Only, Order as Ordered, Outcome, Point, Subscriber, Subscription, Word,
};
use tidings_log::store::{DeadLetter, DeadQuery};
use tidings_log::{Store, Tenant, Unavailable};
use tidings_sinks::Sink;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock;
use crate::world::Order;

/// Between two tries to open.
const OPEN_AGAIN: Duration = Duration::from_millis(500);
/// How fast a replay goes.
const REPLAY_RATE: &str = "20/s";

/// A subscription to start.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) name: Box<str>,
    pub(crate) tenant: Tenant,
    pub(crate) filter: Filter,
    pub(crate) settings: Settings,
    pub(crate) subscriber: Subscriber,
    pub(crate) sink: Arc<dyn Sink>,
}

/// How a subscription stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stand {
    pub(crate) active: bool,
    /// Nothing is left to do.
    pub(crate) rest: bool,
    pub(crate) parked: usize,
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Became {
    Done,
    /// There was nothing to do.
    Pointless,
    Failed,
}

/// All lanes.
pub(crate) struct Lanes {
    dispatcher: Dispatcher,
    store: Arc<dyn Store>,
}

impl Lanes {
    /// Opens the dispatcher; who cannot read tries again. For so long attempts are counted before they are made.
    pub(crate) async fn open(store: Arc<dyn Store>, careful: Option<Duration>) -> Self {
        loop {
            match Dispatcher::open(Arc::clone(&store), clock::ENV, vec![Handle::current()], ATTEMPTS_MAX).await {
                Ok(dispatcher) => {
                    if let Some(span) = careful {
                        dispatcher.be_careful(clock::now().plus(span));
                    }
                    return Self { dispatcher, store };
                }
                Err(_) => tokio::time::sleep(OPEN_AGAIN).await,
            }
        }
    }

    /// All that were known are started.
    pub(crate) fn begin(&self) {
        self.dispatcher.begin();
    }

    pub(crate) fn start(&self, spec: Spec) {
        let Spec { name: id, tenant, filter, settings, subscriber, sink } = spec;
        let start = Offset(0);
        self.dispatcher.start(Subscription {
            id,
            tenant,
            filter: filter.into(),
            start,
            fresh: false,
            settings,
            subscriber,
            told: true,
            sink,
        });
    }

    /// Does something to a webhook.
    pub(crate) async fn order(&self, name: &str, tenant: Tenant, order: Order) -> Became {
        let ordered = match order {
            Order::Pause => Ordered::Pause,
            Order::Resume => Ordered::Resume,
            Order::Activate => Ordered::Activate(Point::Cursor),
            Order::ActivateLatest => Ordered::Activate(Point::Latest),
            // Not for the lane.
            Order::Restart => return Became::Pointless,
            Order::ReplayDead | Order::Discard | Order::ReplayAll | Order::ReplayUndelivered => {
                let Ok(letters) = self.open_letters(name, tenant).await else { return Became::Failed };
                match order {
                    Order::ReplayDead => Ordered::Revive(letters),
                    Order::Discard => Ordered::Discard(letters, "nobody wants it".into()),
                    _ => Ordered::Replay(self.job(name, tenant, order, &letters)),
                }
            }
        };
        match self.dispatcher.order(name, ordered, Vec::new()).await {
            Some(Ok(Outcome::Done(_))) => Became::Done,
            Some(Ok(Outcome::Settled(_) | Outcome::Pointless)) => Became::Pointless,
            Some(Err(_)) | None => Became::Failed,
        }
    }

    /// Takes the word of a worker; whether that is kept.
    pub(crate) async fn done(&self, name: &str, word: Word) -> bool {
        let told = self.dispatcher.order(name, Ordered::Done(vec![word]), Vec::new()).await;
        matches!(told, Some(Ok(Outcome::Settled(settled))) if settled.contains(&word.offset))
    }

    async fn open_letters(&self, name: &str, tenant: Tenant) -> Result<Vec<DeadLetter>, Unavailable> {
        let query = DeadQuery {
            tenant,
            subscription: Some(name.into()),
            event_type: None,
            since: None,
            open: true,
            before: None,
            limit: 1_000,
        };
        let mut letters = self.store.dead_letters(query).await?;
        letters.reverse();
        Ok(letters)
    }

    fn job(&self, name: &str, tenant: Tenant, order: Order, letters: &[DeadLetter]) -> Job {
        let now = clock::now();
        let mut letters: Vec<_> = letters.iter().map(|letter| (letter.offset, letter.id.clone())).collect();
        letters.sort();
        Job {
            id: format!("rp_{}", now.as_millis()).into(),
            subscription: name.into(),
            created_at: now,
            position: Offset(0),
            to: self.store.extent(tenant).head,
            event_types: Vec::new(),
            offsets: Vec::new(),
            only: if order == Order::ReplayAll { Only::All } else { Only::Undelivered },
            letters,
            rate: Rate::parse(REPLAY_RATE).expect("a rate"),
            sent: 0,
        }
    }

    pub(crate) fn status(&self, name: &str) -> Option<Stand> {
        let status = self.dispatcher.status(name)?;
        Some(Stand {
            active: status.standing.is_active(),
            rest: status.lag == 0 && status.pending == 0 && status.in_flight == 0,
            parked: status.parked,
        })
    }

    /// Ends all; answers whether nothing was cut off.
    pub(crate) async fn shutdown(&self, patience: Duration) -> bool {
        let began = Instant::now();
        self.dispatcher.shutdown(patience).await;
        began.elapsed() < patience
    }
}
