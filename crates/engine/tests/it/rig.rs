//! A log, a dispatcher, and subscriptions to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tempfile::TempDir;
use tidings_core::event::{Defaults, Draft, EventLimits};
use tidings_core::lane::{Ordering, Settings as Terms};
use tidings_core::offset::Offset;
use tidings_core::retry::Schedule;
use tidings_core::secret::SigningSecret;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_egress::{Door, Policy, Resolver, Target, Trust};
use tidings_engine::dispatcher::{ATTEMPTS_MAX, Dispatcher, Env, LaneStatus, Subscriber, Subscription};
use tidings_log::sqlite::{SqliteStore, Synchronous};
use tidings_log::store::{Append, Attempt, Prepared};
use tidings_log::{Store, Tenant, Write, Written};
use tidings_sinks::Sink;
use tidings_sinks::webhook::{Format, Headers, Settings, Webhook};
use tokio::runtime::Handle;

use crate::receiver::Receiver;

#[expect(clippy::disallowed_methods, reason = "the shell of the tests")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "the shell of the tests")]
pub(crate) fn random(buffer: &mut [u8]) {
    getrandom::fill(buffer).unwrap();
}

pub(crate) const ENV: Env = Env { now, random };

pub(crate) fn secret() -> SigningSecret {
    SigningSecret::from_random([7; 32])
}

/// Two shards on the runtime of the test.
async fn dispatcher(store: Arc<dyn Store>) -> Dispatcher {
    Dispatcher::open(store, ENV, vec![Handle::current(); 2], ATTEMPTS_MAX).await.unwrap()
}

pub(crate) struct Rig {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) tenant: Tenant,
    pub(crate) folder: TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    /// The same folder, opened again.
    pub(crate) async fn reopen(self) -> Self {
        let Self { store, dispatcher, folder, .. } = self;
        dispatcher.shutdown(Duration::ZERO).await;
        drop(dispatcher);
        assert_eq!(Arc::strong_count(&store), 1, "lanes let go of the log");
        drop(store);
        Self::open(folder).await
    }

    async fn open(folder: TempDir) -> Self {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path(), Synchronous::Full).unwrap());
        let name = TenantName::parse("default").unwrap();
        let written = store.commit(now(), vec![Write::Tenant(name)]).await.unwrap();
        let [Written::Tenant(tenant)] = written[..] else { panic!("{written:?}") };
        let dispatcher = dispatcher(Arc::clone(&store)).await;
        dispatcher.begin();
        Self { store, dispatcher, tenant, folder }
    }

    /// Another dispatcher for the log, as after a restart.
    pub(crate) async fn restart(&mut self) {
        self.dispatch_over(Arc::clone(&self.store)).await;
    }

    /// Another dispatcher, for another view of the log.
    pub(crate) async fn dispatch_over(&mut self, store: Arc<dyn Store>) {
        self.load_over(store).await;
        self.dispatcher.begin();
    }

    /// The same, that does not begin yet: what is started until then was there before.
    pub(crate) async fn load_over(&mut self, store: Arc<dyn Store>) {
        self.dispatcher = dispatcher(store).await;
    }

    /// Appends events, given as JSON, in one commit.
    pub(crate) async fn append(&self, events: impl IntoIterator<Item = String>) {
        let mut prepared = Vec::new();
        for event in events {
            let mut chance = [0; 26];
            random(&mut chance);
            let draft = Draft::parse(&Bytes::from(event), &EventLimits::default()).unwrap();
            let encoded = draft.encode(&Defaults { now: now(), source: "/test", random: chance });
            prepared.push(Prepared::new(self.tenant, encoded));
        }
        let append = Append { tenant: self.tenant, events: prepared, request: None };
        self.store.commit(now(), vec![Write::Append(append)]).await.unwrap();
    }

    /// Webhook `id` to `receiver`, from the start of the log, that tries again after 100 ms each time.
    pub(crate) fn webhook(&self, id: &str, receiver: &Receiver) -> Subscription {
        let policy = Policy::dev();
        let target = Target::parse(&format!("http://{}/hooks?a=b", receiver.address), &policy).unwrap();
        let door = Door::new(policy, Resolver::system().unwrap(), Trust::new(None).unwrap());
        let settings = Settings {
            target,
            secrets: vec![secret()],
            keys: vec![],
            format: Format::Envelope,
            headers: Headers::default(),
            timeout: Duration::from_secs(5),
            keep_answers: true,
        };
        self.subscription(id, Arc::new(Webhook::new(Arc::new(door), settings, now)))
    }

    pub(crate) fn subscription(&self, id: &str, sink: Arc<dyn Sink>) -> Subscription {
        Subscription {
            id: id.into(),
            tenant: self.tenant,
            filter: Arc::default(),
            start: Offset(0),
            fresh: false,
            settings: Terms {
                schedule: Schedule::new(vec![Duration::from_millis(100); 10]).unwrap(),
                max_concurrency: 16,
                ordering: Ordering::Aggregate,
                ..Terms::default()
            },
            subscriber: Subscriber::Webhook,
            told: true,
            sink,
        }
    }

    pub(crate) async fn attempts(&self, offset: u64) -> Vec<Attempt> {
        self.store.attempts(self.tenant, Offset(offset), 100).await.unwrap()
    }

    /// The status of a lane once it is as wanted.
    pub(crate) async fn status(&self, id: &str, wanted: impl Fn(&LaneStatus) -> bool) -> LaneStatus {
        for _ in 0..3000 {
            let status = self.dispatcher.status(id).unwrap();
            if wanted(&status) {
                return status;
            }
            // A status is a snapshot without a signal: ask again soon.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it stays {:?}", self.dispatcher.status(id));
    }

    /// Waits until everything is delivered or dead.
    pub(crate) async fn settled(&self, id: &str) -> LaneStatus {
        self.status(id, |status| status.lag == 0 && status.pending == 0 && status.in_flight == 0).await
    }
}
