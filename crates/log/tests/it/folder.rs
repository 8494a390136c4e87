//! The embedded engine in a temporary folder.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tidings_core::event::{AggregateId, Channel, Defaults, Draft, EventType};
use tidings_core::id::EventId;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_log::Tenant;
use tidings_log::conformance::Engine;
use tidings_log::sqlite::{SqliteStore, Synchronous, log_path};
use tidings_log::store::{Append, Appended, Pending, Prepared, Store, Write, Written};
use tidings_log::verify::{Report, verify};

/// How long background work may take.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

pub(crate) struct Folder {
    folder: TempDir,
    opened: Mutex<Weak<SqliteStore>>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), opened: Mutex::new(Weak::new()) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn open_store(&self) -> Arc<SqliteStore> {
        let store = Arc::new(SqliteStore::open(self.path(), Synchronous::Full).unwrap());
        *self.opened.lock() = Arc::downgrade(&store);
        store
    }

    /// A connection that may change what nothing else can.
    pub(crate) fn vandal(&self) -> Connection {
        Connection::open(log_path(self.path())).unwrap()
    }

    pub(crate) fn reader(&self) -> Connection {
        Connection::open_with_flags(log_path(self.path()), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    /// What was committed, as a crash at this moment would leave it, in a folder of its own.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        // A reader keeps checkpoints from coming between the two files.
        let pin = self.reader();
        pin.execute_batch("BEGIN; SELECT * FROM mark").unwrap();
        for name in ["log.db", "log.db-wal"] {
            // The file first: what the WAL then has is newer.
            std::fs::copy(self.path().join(name), copy.path().join(name)).unwrap();
        }
        copy
    }

    /// The file of a log that nobody has open.
    pub(crate) fn copy_closed(&self) -> Self {
        let copy = Self::new();
        std::fs::copy(log_path(self.path()), log_path(copy.path())).unwrap();
        copy
    }
}

impl Engine for Folder {
    fn open(&self) -> Arc<dyn Store> {
        self.open_store()
    }

    fn rest(&self) -> Pending<()> {
        let connection = self.reader();
        let store = self.opened.lock().clone();
        Box::pin(async move {
            let looks = PATIENCE.as_millis() / LOOK_EVERY.as_millis();
            let mut unrest = None;
            for _ in 0..looks {
                unrest = unrest_of(&connection, store.upgrade().as_deref());
                if unrest.is_none() {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            panic!("the engine does not come to rest: {}", unrest.unwrap_or_default());
        })
    }

    fn verify(&self) -> Report {
        verify(self.path(), &mut |_| ()).unwrap()
    }
}

/// No event is without an entry of the index on disk.
const INDEXED: &str =
    "SELECT NOT EXISTS (SELECT 1 FROM event WHERE position > (SELECT value FROM mark WHERE name = 'indexed_through'))";
/// What there is to do yet, and how it is told that there is not.
const RESTS: [(&str, &str); 4] = [
    ("events are not indexed on disk", INDEXED),
    (
        "events are not sealed",
        "SELECT NOT EXISTS (SELECT 1 FROM tenant AS t JOIN event AS e ON e.tenant = t.number \
         WHERE e.offset > coalesce((SELECT max(last) FROM seal WHERE tenant = t.number), 0))",
    ),
    (
        "rows of runs that are gone are still there",
        "SELECT NOT EXISTS (SELECT 1 FROM run_block WHERE run NOT IN (SELECT number FROM run))",
    ),
    ("runs are not merged", "SELECT NOT EXISTS (SELECT 1 FROM run GROUP BY level HAVING count(*) >= 8)"),
];

/// What the engine still has to do, if there is anything.
fn unrest_of(connection: &Connection, store: Option<&SqliteStore>) -> Option<&'static str> {
    let holds = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, bool>(0)).unwrap();
    if let Some((unrest, _)) = RESTS.iter().find(|(_, sql)| !holds(sql)) {
        return Some(unrest);
    }
    store.is_some_and(|store| !knows_its_seals(connection, store)).then_some("the store does not speak of its seals")
}

/// Whether every event is indexed on disk.
pub(crate) fn is_indexed(connection: &Connection) -> bool {
    connection.query_row(INDEXED, [], |row| row.get(0)).unwrap()
}

/// Waits until the file is as it should be.
pub(crate) async fn until(connection: &Connection, is_so: impl Fn(&Connection) -> bool) {
    for _ in 0..PATIENCE.as_millis() / LOOK_EVERY.as_millis() {
        if is_so(connection) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("it never came to be");
}

/// A seal is in the file a moment before the store speaks of it.
fn knows_its_seals(connection: &Connection, store: &dyn Store) -> bool {
    store.tenants().into_iter().all(|(tenant, _)| {
        let sql = "SELECT max(last) FROM seal WHERE tenant = ?";
        let last: Option<u64> =
            connection.query_row(sql, [tenant.0], |row| row.get::<_, Option<i64>>(0)).unwrap().map(i64::cast_unsigned);
        store.sealed(tenant).map(|seal| seal.last.0) == last
    })
}

pub(crate) async fn add_tenant(store: &dyn Store, name: &str) -> Tenant {
    let written = store.commit(NOW, vec![Write::Tenant(TenantName::parse(name).unwrap())]).await.unwrap();
    let [Written::Tenant(tenant)] = written[..] else { panic!("{written:?}") };
    tenant
}

/// An event `id` about one of ten aggregates, with `data`, and with a channel of its own: a row more in the index.
pub(crate) fn event(tenant: Tenant, id: &str, data: &str) -> Prepared {
    let number = id.bytes().map(u64::from).sum::<u64>() % 10;
    let aggregate = AggregateId::parse(&format!("order_{number}")).unwrap();
    let channels = [format!("user:{number}"), format!("only:{id}")];
    prepare(tenant, id, data, Some(aggregate), channels.iter().map(|name| Channel::parse(name).unwrap()).collect())
}

/// An event `id` about nothing, on no channel.
pub(crate) fn plain_event(tenant: Tenant, id: &str) -> Prepared {
    prepare(tenant, id, "1", None, Vec::new())
}

fn prepare(tenant: Tenant, id: &str, data: &str, aggregate: Option<AggregateId>, channels: Vec<Channel>) -> Prepared {
    let draft = Draft {
        id: Some(EventId::parse(id).unwrap()),
        event_type: EventType::parse("order.created").unwrap(),
        version: None,
        timestamp: None,
        source: None,
        aggregate,
        channels,
        metadata: Vec::new(),
        data: data.to_owned().into(),
        expected_sequence: None,
    };
    let mut random = [7; 26];
    let length = id.len().min(26);
    random[26 - length..].copy_from_slice(&id.as_bytes()[..length]);
    Prepared::new(tenant, draft.encode(&Defaults { now: NOW, source: "/tests", random }))
}

pub(crate) fn append(store: &dyn Store, tenant: Tenant, events: Vec<Prepared>) -> Pending<Vec<Appended>> {
    let answer = store.commit(NOW, vec![Write::Append(Append { tenant, events, request: None })]);
    Box::pin(async move {
        match answer.await.unwrap().pop() {
            Some(Written::Appended { results, .. }) => results,
            other => panic!("{other:?}"),
        }
    })
}

/// `count` events in batches of 500.
pub(crate) async fn fill(store: &dyn Store, tenant: Tenant, prefix: &str, count: usize) {
    let mut under_way = Vec::new();
    for begin in (0..count).step_by(500) {
        let batch =
            (begin..count.min(begin + 500)).map(|n| event(tenant, &format!("{prefix}{n}"), "{\"n\":1}")).collect();
        under_way.push(append(store, tenant, batch));
    }
    for answer in under_way {
        answer.await;
    }
}

pub(crate) async fn ids(store: &dyn Store, tenant: Tenant) -> Vec<String> {
    let mut all = Vec::new();
    let mut after = Offset::BEFORE_FIRST;
    loop {
        let page = store.read(tidings_log::Query::after(tenant, after, 1_000)).await.unwrap();
        all.extend(page.events.iter().map(|event| event.subject.id.to_string()));
        after = page.reached;
        if !page.more {
            return all;
        }
    }
}
