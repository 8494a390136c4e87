//! A database with an outbox, a log, and a relay between them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;
use tidings_core::event::EventLimits;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_log::sqlite::{SqliteStore, Synchronous};
use tidings_log::store::{Kind, Owner};
use tidings_log::{Query, Store, Tenant};
use tidings_rigs::Postgres;
use tidings_sources::outbox::postgres::replication::{self, slot};
use tidings_sources::outbox::postgres::{self, install};
use tidings_sources::outbox::{Alarm, Env, Meter, Orders, Quarantined, Reader, Relay, Settings};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

/// What is committed arrives within this time, or the test fails.
pub(crate) const ARRIVAL: Duration = Duration::from_secs(20);
/// The outbox's name.
pub(crate) const SOURCE: &str = "shop";

#[expect(clippy::disallowed_methods, reason = "the shell of the tests")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "the shell of the tests")]
pub(crate) fn random(buffer: &mut [u8]) {
    getrandom::fill(buffer).unwrap();
}

/// The cluster of all tests of this process.
fn cluster() -> &'static Postgres {
    static CLUSTER: OnceLock<Postgres> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        Postgres::with(&["fsync=off", "full_page_writes=off", "max_connections=300", "wal_level=logical"])
    })
}

/// A connection that lives with its client.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A database of its own in the shared cluster, with an outbox.
pub(crate) async fn database() -> String {
    database_in(tokio::task::spawn_blocking(cluster).await.unwrap()).await
}

pub(crate) async fn database_in(cluster: &Postgres) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("db{}", NEXT.fetch_add(1, Ordering::Relaxed));
    connect(&cluster.url("postgres")).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let url = cluster.url(&name);
    let made =
        install::install(&postgres::config(&url, None, None).unwrap(), &install::Wanted::default()).await.unwrap();
    assert!(made);
    url
}

pub(crate) struct Rig<App = Client> {
    pub(crate) url: String,
    /// The application.
    pub(crate) app: App,
    /// Nothing only while it is opened again.
    store: Option<Arc<dyn Store>>,
    pub(crate) limits: EventLimits,
    /// A longer delay is told.
    pub(crate) bound: Duration,
    folder: TempDir,
    running: Option<Running>,
}

struct Running {
    task: JoinHandle<()>,
    meter: Arc<Meter>,
    orders: Orders,
}

impl Rig {
    /// An outbox that is relayed.
    pub(crate) async fn new() -> Self {
        let mut rig = Self::at(database().await).await;
        rig.start();
        rig
    }

    /// An outbox that exists, not relayed yet.
    pub(crate) async fn at(url: String) -> Self {
        Self::of(connect(&url).await, url)
    }

    /// Runs the relay.
    pub(crate) fn start(&mut self) {
        self.start_as("tidings-1");
    }

    /// Runs the relay of the Tidings that is called so.
    pub(crate) fn start_as(&mut self, name: &str) {
        let reader = postgres::Reader::new(self.config(), name);
        self.run(Reader::Postgres(Box::new(reader)));
    }

    /// An outbox with a slot, not relayed yet.
    pub(crate) async fn with_slot(url: String) -> Self {
        let rig = Self::at(url).await;
        assert!(slot::make(&rig.config()).await.unwrap().1, "it is made");
        rig
    }

    /// Runs the relay by replication.
    pub(crate) fn replicate(&mut self) {
        self.replicate_as("tidings-1", |reader| reader);
    }

    /// The same of the Tidings that is called so, with a reader that is set otherwise.
    pub(crate) fn replicate_as(&mut self, name: &str, set: impl FnOnce(postgres::Reader) -> postgres::Reader) {
        let table = set(postgres::Reader::new(self.config(), name));
        self.run(Reader::Replication(Box::new(replication::Reader::new(table))));
    }

    pub(crate) fn config(&self) -> postgres::Config {
        postgres::config(&self.url, None, None).unwrap()
    }

    /// Runs the relay with a reader that is set otherwise.
    pub(crate) fn start_with(&mut self, set: impl FnOnce(postgres::Reader) -> postgres::Reader) {
        let reader = set(postgres::Reader::new(self.config(), "tidings-1"));
        self.run(Reader::Postgres(Box::new(reader)));
    }
}

impl<App> Rig<App> {
    /// An application whose outbox is at `url`, not relayed yet.
    pub(crate) fn of(app: App, url: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Some(open(&folder));
        Self { app, url, store, limits: EventLimits::default(), bound: Duration::from_mins(10), folder, running: None }
    }

    /// Runs the relay with this reader.
    pub(crate) fn run(&mut self, reader: Reader) {
        let settings = Settings {
            name: SOURCE.into(),
            tenant: TenantName::default_tenant(),
            limits: self.limits,
            source: "/shop".into(),
        };
        let (store, env) = (Arc::clone(self.store()), Env { now, random });
        let (relay, meter, orders) = Relay::new(Arc::clone(&store), env, settings.clone(), reader);
        let alarm = Alarm::new(store, env, settings, Arc::clone(&meter), self.bound);
        let task = tokio::spawn(async { tokio::join!(relay.run(), alarm.run()).0 });
        self.running = Some(Running { task, meter, orders });
    }

    /// Ends the relay wherever it is.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            let _ = running.task.await;
        }
    }

    /// Ends the relay and the log, and opens the log again.
    pub(crate) async fn reopen(&mut self) {
        self.stop().await;
        self.store = None;
        self.store = Some(open(&self.folder));
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.running.as_ref().unwrap().meter
    }

    pub(crate) fn orders(&self) -> Orders {
        self.running.as_ref().unwrap().orders.clone()
    }

    pub(crate) fn tenant(&self) -> Option<Tenant> {
        self.store().tenant(&TenantName::default_tenant())
    }

    /// All events, once there are `count`, as the JSON that subscribers get.
    pub(crate) async fn events(&self, count: u64) -> Vec<Value> {
        let wait = async {
            while self.tenant().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut head = self.store().tail().watch(self.tenant().unwrap());
            head.wait_for(|head| *head >= Offset(count)).await.unwrap();
        };
        timeout(ARRIVAL, wait).await.unwrap_or_else(|_| panic!("not {count} events: {:?}", self.state()));
        self.all().await
    }

    /// All events that are there.
    pub(crate) async fn all(&self) -> Vec<Value> {
        let Some(tenant) = self.tenant() else { return Vec::new() };
        let mut all = Vec::new();
        let mut after = Offset(0);
        loop {
            let page = self.store().read(Query::after(tenant, after, 1_000)).await.unwrap();
            all.extend(page.events.iter().map(|event| serde_json::from_slice(event.envelope()).unwrap()));
            after = page.reached;
            if !page.more {
                return all;
            }
        }
    }

    /// The rows in quarantine, by number.
    pub(crate) async fn quarantined(&self) -> Vec<Quarantined> {
        let owner = Some(Owner::Tenant(self.tenant().unwrap()));
        let documents = self.store().list(Kind::Quarantined, owner, "", 1_000).await.unwrap();
        documents.iter().map(|document| Quarantined::parse(document).unwrap()).collect()
    }

    fn state(&self) -> Option<tidings_sources::outbox::Measures> {
        self.running.as_ref().map(|running| running.meter.measures(now()))
    }

    /// Waits until everything committed before this moment was looked at.
    pub(crate) async fn settled(&self) {
        let since = now();
        let looked = async {
            while now().since(since) <= self.meter().measures(now()).delay {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(ARRIVAL, looked).await.unwrap_or_else(|_| panic!("it does not settle: {:?}", self.state()));
    }
}

fn open(folder: &TempDir) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(folder.path(), Synchronous::Full).unwrap())
}

/// The text members of events, in order.
pub(crate) fn column<'a>(events: &'a [Value], pointer: &str) -> Vec<&'a str> {
    events.iter().map(|event| event.pointer(pointer).and_then(Value::as_str).unwrap_or("-")).collect()
}
