//! Many writers at once, and two readers that everybody knows and that fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidings_core::offset::Offset;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::rig::{Rig, connect, random};

const WRITERS: u32 = 64;
const AGGREGATES: u32 = 200;
const LOAD: Duration = Duration::from_secs(4);
/// A transaction commits so long after it began, at most.
const COMMIT_MS_MAX: u32 = 40;
/// Of so many transactions one is rolled back.
const ROLLED_BACK: u32 = 8;
/// How often the two others look: each look reads all that lies behind a transaction that runs.
const LOOK: Duration = Duration::from_millis(25);
/// From commit to log, of 99 in 100.
const P99: Duration = Duration::from_millis(50);

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

pub(crate) fn below(bound: u32) -> u32 {
    let mut bytes = [0; 4];
    random(&mut bytes);
    u32::from_le_bytes(bytes) % bound
}

/// The versions of each aggregate, in the order in which a reader saw them.
pub(crate) type Seen = BTreeMap<String, Vec<i64>>;

/// What committed, and when.
pub(crate) type Committed = Vec<(String, i64, Instant)>;

/// Updates aggregates and tells of it; half of the transactions have an id before they touch their aggregate.
pub(crate) async fn writer(client: Arc<Mutex<Client>>, end: Arc<AtomicBool>) -> Committed {
    let mut client = client.lock().await;
    let sql = "UPDATE thing SET version = version + 1 WHERE id = $1 RETURNING version";
    let change = client.prepare(sql).await.unwrap();
    let sql = "SELECT tidings.emit('thing.changed', json_build_object('v', $2::bigint), aggregate_id => $1)";
    let emit = client.prepare(sql).await.unwrap();
    let begin = client.prepare("SELECT pg_current_xact_id()").await.unwrap();
    let mut committed = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let pause = |most| sleep(Duration::from_millis(u64::from(below(most + 1))));
        let transaction = client.transaction().await.unwrap();
        if below(2) == 0 {
            transaction.execute(&begin, &[]).await.unwrap();
            pause(COMMIT_MS_MAX / 2).await;
        }
        let id = i32::try_from(below(AGGREGATES)).unwrap();
        let version: i64 = transaction.query_one(&change, &[&id]).await.unwrap().get(0);
        let key = format!("thing_{id}");
        transaction.execute(&emit, &[&key, &version]).await.unwrap();
        pause(COMMIT_MS_MAX / 2).await;
        if below(ROLLED_BACK) == 0 {
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
            committed.push((key, version, instant()));
        }
    }
    committed
}

/// What the writers change.
pub(crate) const TABLES: &str = "CREATE TABLE thing (id integer PRIMARY KEY, version bigint NOT NULL DEFAULT 0);
    INSERT INTO thing SELECT generate_series(0, 199); CREATE TABLE unrelated (x integer)";

/// `WHERE id > last`: skips what commits out of order.
async fn naive(client: &Client, last: &mut (i64, i64), seen: &mut Seen) {
    let sql = "SELECT id, aggregate_id, (data->>'v')::bigint FROM tidings.outbox WHERE id > $1 ORDER BY id";
    for row in client.query(sql, &[&last.1]).await.unwrap() {
        last.1 = row.get(0);
        seen.entry(row.get(1)).or_default().push(row.get(2));
    }
}

/// `(txid, id)` below the oldest running transaction: skips nothing, but ids of transactions are no order of aggregates.
async fn watermark(client: &Client, last: &mut (i64, i64), seen: &mut Seen) {
    let sql = "SELECT txid::text::bigint, id, aggregate_id, (data->>'v')::bigint FROM tidings.outbox
               WHERE (txid, id) > ($1::text::xid8, $2) AND txid < pg_snapshot_xmin(pg_current_snapshot())
               ORDER BY txid, id";
    for row in client.query(sql, &[&last.0.to_string(), &last.1]).await.unwrap() {
        *last = (row.get(0), row.get(1));
        seen.entry(row.get(2)).or_default().push(row.get(3));
    }
}

/// Follows the outbox as one of the two, and once more after the load.
async fn control(url: String, end: Arc<AtomicBool>, by_transaction: bool) -> Seen {
    let client = connect(&url).await;
    let (mut last, mut seen) = ((0, 0), Seen::new());
    loop {
        let over = end.load(Ordering::Relaxed);
        if over {
            // The last transactions end within this time, and the long one.
            sleep(Duration::from_secs(1)).await;
        }
        if by_transaction {
            watermark(&client, &mut last, &mut seen).await;
        } else {
            naive(&client, &mut last, &mut seen).await;
        }
        if over {
            return seen;
        }
        sleep(LOOK).await;
    }
}

/// The last version of each aggregate.
pub(crate) fn last_versions(written: &Committed) -> BTreeMap<String, i64> {
    let mut committed = BTreeMap::new();
    for (key, version, _) in written {
        committed.entry(key.clone()).and_modify(|last: &mut i64| *last = (*last).max(*version)).or_insert(*version);
    }
    committed
}

/// How many versions are missing, were never committed, and came after a later one.
pub(crate) fn judge(seen: &Seen, committed: &BTreeMap<String, i64>) -> (usize, usize, usize) {
    let (mut lost, mut phantom, mut inverted) = (0, 0, 0);
    for (key, last) in committed {
        let versions = seen.get(key).map_or(&[][..], Vec::as_slice);
        lost += (1..=*last).filter(|version| !versions.contains(version)).count();
        phantom += versions.iter().filter(|version| !(1..=*last).contains(version)).count();
        inverted += versions.windows(2).filter(|pair| pair[0] >= pair[1]).count();
    }
    phantom += seen.keys().filter(|key| !committed.contains_key(*key)).count();
    (lost, phantom, inverted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_lose_nothing_and_keep_their_order_where_other_readers_fail() {
    let rig = Rig::new().await;
    rig.app.batch_execute(TABLES).await.unwrap();
    rig.settled().await;
    let mut long = connect(&rig.url).await;
    let unrelated = long.transaction().await.unwrap();
    unrelated.execute("INSERT INTO unrelated VALUES (1)", &[]).await.unwrap();
    let end = Arc::new(AtomicBool::new(false));
    let naive = tokio::spawn(control(rig.url.clone(), Arc::clone(&end), false));
    let watermark = tokio::spawn(control(rig.url.clone(), Arc::clone(&end), true));
    // The load is what they do, not that they come and go.
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        clients.push(Arc::new(Mutex::new(connect(&rig.url).await)));
    }
    let mut writers = JoinSet::new();
    for client in &clients {
        writers.spawn(writer(Arc::clone(client), Arc::clone(&end)));
    }
    let arrivals = Arrivals::of(&rig);
    sleep(LOAD).await;
    end.store(true, Ordering::Relaxed);
    let written = writers.join_all().await.concat();
    let events = rig.events(written.len() as u64).await;
    rig.settled().await;
    unrelated.rollback().await.unwrap();

    let committed = last_versions(&written);
    assert_eq!(judge(&seen(&events), &committed), (0, 0, 0), "lost, phantom, out of order");
    let (half, p99) = arrivals.took(&written, &events);
    let (naive, watermark) = (judge(&naive.await.unwrap(), &committed), judge(&watermark.await.unwrap(), &committed));
    println!(
        "{} committed by {WRITERS} writers: commit to log p50 {half:?} p99 {p99:?}; \
         (lost, phantom, out of order) id > last: {naive:?}, (txid, id) below xmin: {watermark:?}",
        written.len()
    );
    assert!(naive.0 > 0, "the test can fail: id > last loses rows");
    assert!(watermark.0 == 0 && watermark.2 > 0, "the test can fail: (txid, id) inverts: {watermark:?}");
    assert!(p99 <= P99, "p99 {p99:?}");
}

/// When the log had which offset.
pub(crate) struct Arrivals(Arc<std::sync::Mutex<Vec<(Offset, Instant)>>>);

impl Arrivals {
    pub(crate) fn of(rig: &Rig) -> Self {
        let mut head = rig.store().tail().watch(rig.tenant().unwrap());
        let arrived = Arc::new(std::sync::Mutex::new(Vec::new()));
        let noted = Arc::clone(&arrived);
        tokio::spawn(async move {
            while head.changed().await.is_ok() {
                let offset = *head.borrow_and_update();
                noted.lock().unwrap().push((offset, instant()));
            }
        });
        Self(arrived)
    }

    /// From commit to log, of half and of 99 in 100, once all events are there.
    pub(crate) fn took(&self, written: &Committed, events: &[Value]) -> (Duration, Duration) {
        let arrived = self.0.lock().unwrap();
        let mut times = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            let offset = Offset(index as u64 + 1);
            times.insert(told(event), arrived[arrived.partition_point(|(head, _)| *head < offset)].1);
        }
        let took = |(key, version, at): &(String, i64, Instant)| {
            times[&(key.clone(), *version)].saturating_duration_since(*at)
        };
        let mut took: Vec<_> = written.iter().map(took).collect();
        took.sort_unstable();
        (took[took.len() / 2], took[took.len() * 99 / 100])
    }
}

/// The aggregate of an event, and the version that it tells.
fn told(event: &Value) -> (String, i64) {
    (event["aggregateId"].as_str().unwrap().to_owned(), event["data"]["v"].as_i64().unwrap())
}

/// What a log shows.
pub(crate) fn seen(events: &[Value]) -> Seen {
    let mut seen = Seen::new();
    for (key, version) in events.iter().map(told) {
        seen.entry(key).or_default().push(version);
    }
    seen
}
