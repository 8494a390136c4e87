//! What `verify` finds when somebody, or the disk, has changed the file behind our back.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, params};
use tidings_core::offset::Offset;
use tidings_log::conformance::Engine as _;
use tidings_log::sqlite::log_path;
use tidings_log::store::{Append, CommitError, Store, Unavailable, Write};
use tidings_log::verify::{FINDINGS_MAX, FindingKind, Report};
use tidings_log::{Query, Tenant};

use crate::folder::{Folder, NOW, add_tenant, event, fill, ids};

const EVENTS: u64 = 2_500;
const PAGE_BYTES: usize = 4_096;

/// A sealed log of two tenants, the second with the events.
async fn log() -> (Folder, Tenant) {
    let folder = Folder::new();
    let store = folder.open_store();
    let other = add_tenant(&*store, "other").await;
    let tenant = add_tenant(&*store, "acme").await;
    fill(&*store, other, "o", 10).await;
    fill(&*store, tenant, "e", usize::try_from(EVENTS).unwrap()).await;
    folder.rest().await;
    drop(store);
    let report = folder.verify();
    assert!(report.is_whole(), "{:?}", report.findings);
    assert_eq!(report.tenants.iter().map(|tenant| tenant.events).collect::<Vec<_>>(), [10, EVENTS]);
    (folder, tenant)
}

/// Where the first finding of `acme` is, and what.
fn first(report: &Report) -> (FindingKind, Option<u64>) {
    assert!(!report.is_whole(), "nothing was noticed");
    assert!(report.findings.iter().all(|finding| finding.tenant.as_deref() == Some("acme")), "{:?}", report.findings);
    (report.findings[0].kind, report.findings[0].offset)
}

/// Changes one row's blob in one bit.
fn flip(connection: &Connection, column: &str, offset: u64, at: usize) {
    let sql = format!("SELECT {column} FROM event WHERE tenant = 2 AND offset = ?");
    let mut blob: Vec<u8> = connection.query_row(&sql, [offset.cast_signed()], |row| row.get(0)).unwrap();
    let at = at % blob.len();
    blob[at] ^= 1 << (offset % 7);
    let sql = format!("UPDATE event SET {column} = ? WHERE tenant = 2 AND offset = ?");
    connection.execute(&sql, params![blob, offset.cast_signed()]).unwrap();
}

/// Changes one bit of the leaf of an event.
fn flip_leaf(connection: &Connection, offset: u64) {
    let sql = "SELECT number, first, leaves FROM seal WHERE tenant = 2 AND last >= ? ORDER BY last LIMIT 1";
    let (number, first, mut leaves): (i64, i64, Vec<u8>) =
        connection.query_row(sql, [offset.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let at = usize::try_from(offset - first.cast_unsigned()).unwrap() * 32;
    leaves[at + 5] ^= 4;
    connection.execute("UPDATE seal SET leaves = ? WHERE number = ?", params![leaves, number]).unwrap();
}

#[tokio::test]
async fn a_flipped_byte_is_named() {
    let (folder, _) = log().await;
    let mut place = 12_345_u64;
    for round in 0..25 {
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = 1 + (place >> 33) % EVENTS;
        let damaged = folder.copy_closed();
        let connection = damaged.vandal();
        let expected = match round % 5 {
            0 => {
                flip(&connection, "header", offset, (place >> 20) as usize);
                FindingKind::Checksum
            }
            1 => {
                flip(&connection, "data", offset, (place >> 20) as usize);
                FindingKind::Checksum
            }
            2 => {
                flip(&connection, "salt", offset, (place >> 20) as usize);
                FindingKind::Checksum
            }
            3 => {
                flip_leaf(&connection, offset);
                FindingKind::Changed
            }
            _ => {
                let sql = "UPDATE event SET recorded_ms = recorded_ms + ? WHERE tenant = 2 AND offset = ?";
                connection.execute(sql, params![if round == 4 { -1 } else { 1 }, offset.cast_signed()]).unwrap();
                FindingKind::Changed
            }
        };
        drop(connection);
        let report = damaged.verify();
        assert_eq!(first(&report), (expected, Some(offset)), "{:?}", report.findings);
        // Its neighbours of the same aggregate are blamed for nothing.
        assert!(expected != FindingKind::Checksum || report.findings.len() == 1, "{:?}", report.findings);
        if expected == FindingKind::Changed {
            assert_eq!(report.findings[0].event_id, Some(format!("e{}", offset - 1)));
        }
    }
}

#[tokio::test]
async fn a_forgery_that_fixes_its_checksum_is_named() {
    let (folder, tenant) = log().await;
    let store = folder.open_store();
    let forged = store.read(Query::after(tenant, Offset(99), 2)).await.unwrap().events;
    drop(store);
    // The second of two events, in the place of the first: whole, but not what was sealed.
    let sql = "UPDATE event SET header = (SELECT header FROM event WHERE tenant = 2 AND offset = 101), \
               salt = (SELECT salt FROM event WHERE tenant = 2 AND offset = 101), \
               checksum = (SELECT checksum FROM event WHERE tenant = 2 AND offset = 101) WHERE tenant = 2 AND offset = 100";
    assert_eq!(forged[0].bytes(), forged[1].bytes());
    folder.vandal().execute_batch(sql).unwrap();
    assert_eq!(first(&folder.verify()), (FindingKind::Changed, Some(100)));
}

#[tokio::test]
async fn what_is_removed_or_moved_is_named() {
    let (folder, _) = log().await;
    let last = format!("DELETE FROM event WHERE tenant = 2 AND offset > {}", EVENTS - 3);
    for (sql, expected) in [
        ("DELETE FROM event WHERE tenant = 2 AND offset = 7", (FindingKind::Missing, 7)),
        ("DELETE FROM event WHERE tenant = 2 AND offset BETWEEN 1000 AND 1100", (FindingKind::Missing, 1_000)),
        ("DELETE FROM event WHERE tenant = 2 AND offset = 1", (FindingKind::Missing, 1)),
        (&last, (FindingKind::Missing, EVENTS - 2)),
        (
            "UPDATE event SET offset = -1 WHERE tenant = 2 AND offset = 5; \
             UPDATE event SET offset = 5 WHERE tenant = 2 AND offset = 6; \
             UPDATE event SET offset = 6 WHERE tenant = 2 AND offset = -1",
            (FindingKind::Changed, 5),
        ),
        ("UPDATE tenant SET first = 600 WHERE number = 2", (FindingKind::Place, 1)),
        ("UPDATE seal SET hash = previous WHERE tenant = 2 AND first = 1", (FindingKind::Seal, 1)),
        ("UPDATE seal SET previous = hash WHERE tenant = 2 AND first = 1", (FindingKind::Seal, 1)),
        ("DELETE FROM seal WHERE tenant = 2 AND first = 1", (FindingKind::Seal, 1)),
        ("UPDATE seal SET leaves = substr(leaves, 1, 320) WHERE tenant = 2 AND first = 1", (FindingKind::Seal, 1)),
        ("UPDATE seal SET last = last + 1000000 WHERE tenant = 2 AND first = 1", (FindingKind::Seal, 1)),
    ] {
        let damaged = folder.copy_closed();
        damaged.vandal().execute_batch(sql).unwrap();
        let report = damaged.verify();
        let (kind, offset) = first(&report);
        assert_eq!(kind, expected.0, "{sql}: {:?}", report.findings);
        if kind == FindingKind::Seal {
            // A seal may stand anywhere among the events it covers.
            assert!(offset.is_some_and(|offset| offset <= 2_049), "{sql}: {offset:?}");
        } else {
            assert_eq!(offset, Some(expected.1), "{sql}");
        }
    }
}

#[tokio::test]
async fn whoever_moves_an_event_to_another_tenant_is_noticed() {
    let (folder, _) = log().await;
    folder.vandal().execute_batch("UPDATE event SET tenant = 1, offset = 11 WHERE tenant = 2 AND offset = 42").unwrap();
    let report = folder.verify();
    let found: Vec<_> =
        report.findings.iter().map(|f| (f.tenant.as_deref().unwrap(), f.kind, f.offset.unwrap())).collect();
    assert!(found.contains(&("acme", FindingKind::Missing, 42)), "{found:?}");
}

#[tokio::test]
async fn whoever_takes_a_tenant_off_the_list_is_noticed() {
    let (folder, _) = log().await;
    folder.vandal().execute_batch("DELETE FROM tenant WHERE number = 2").unwrap();
    let report = folder.verify();
    let told: Vec<_> = report.findings.iter().map(|finding| &*finding.message).collect();
    let expected = ["events", "seals"].map(|what| format!("there are {what} of tenant number 2, and no such tenant"));
    assert_eq!(told, expected);
}

#[tokio::test]
async fn findings_are_bounded_and_every_tenant_has_its_first() {
    let (folder, _) = log().await;
    folder.vandal().execute_batch("UPDATE event SET checksum = checksum + 1").unwrap();
    let report = folder.verify();
    assert_eq!(report.findings.len(), FINDINGS_MAX);
    assert_eq!(report.findings[0].tenant.as_deref(), Some("other"));
    let first_of_acme = report.findings.iter().find(|finding| finding.tenant.as_deref() == Some("acme")).unwrap();
    assert_eq!(first_of_acme.offset, Some(1));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["findings"][0]["kind"], "checksum");
    assert_eq!(json["findings"][0]["eventId"], "o0");
    assert_eq!(json["tenants"][1]["sealedThrough"], EVENTS);
}

#[tokio::test]
async fn a_damaged_page_is_a_finding() {
    let (folder, _) = log().await;
    let whole = std::fs::read(log_path(folder.path())).unwrap();
    let mut noticed = 0;
    for page in (1..whole.len() / PAGE_BYTES).step_by(7) {
        let damaged = folder.copy_closed();
        let mut bytes = whole.clone();
        bytes[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].fill(0xa5);
        std::fs::write(log_path(damaged.path()), bytes).unwrap();
        noticed += usize::from(!damaged.verify().is_whole());
    }
    // Free pages are nobody's loss.
    assert!(noticed >= whole.len() / PAGE_BYTES / 7 * 9 / 10, "{noticed}");
}

#[tokio::test]
async fn a_damaged_event_is_not_served_and_harms_no_neighbour() {
    let (folder, tenant) = log().await;
    flip(&folder.vandal(), "data", 100, 3);
    let store = folder.open_store();
    let damaged = Unavailable::Damaged(Offset(100));
    let id = event(tenant, "e99", "1").encoded.subject.id;
    assert_eq!(store.find(tenant, &id).await.unwrap_err(), damaged);
    let query = Query::after(tenant, Offset(90), 20);
    assert_eq!(store.read(query.clone()).await.unwrap_err(), damaged);
    assert_eq!(store.frame(query, usize::MAX, Box::new(|_, _| {})).await.unwrap_err(), damaged);
    let append = |id: &str| {
        let events = vec![event(tenant, id, "{\"n\":1}")];
        store.commit(NOW, vec![Write::Append(Append { tenant, events, request: None })])
    };
    let (before, repeated, after) = (append("before"), append("e99"), append("after"));
    before.await.unwrap();
    assert_eq!(repeated.await, Err(CommitError::Unavailable(damaged)));
    after.await.unwrap();
    assert_eq!(store.extent(tenant).head.0, EVENTS + 2);
}

#[tokio::test]
async fn a_running_log_is_verified_while_it_grows_and_shrinks() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    fill(&*store, tenant, "a", 4_000).await;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let verifier = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                let report = folder.verify();
                assert!(report.is_whole(), "{:?}", report.findings);
                rounds += 1;
            }
            rounds
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let work = scope.spawn({
            let (folder, store) = (&folder, &*store);
            move || runtime.block_on(grow_and_shrink(folder, store, tenant))
        });
        let worked = work.join();
        done.store(true, Ordering::Relaxed);
        worked.unwrap();
        assert!(verifier.join().unwrap() >= 3);
    });
    assert!(store.extent(tenant).first > Offset(1));
    assert_eq!(ids(&*store, tenant).await.len() as u64, store.extent(tenant).head.0 - store.extent(tenant).first.0 + 1);
}

async fn grow_and_shrink(folder: &Folder, store: &dyn Store, tenant: Tenant) {
    for round in 0..10_u64 {
        fill(store, tenant, &format!("b{round}_"), 1_000).await;
        let erased = event(tenant, &format!("b{round}_7"), "1").encoded.subject.id;
        store.commit(NOW, vec![Write::Erase(tenant, erased)]).await.unwrap();
        if round % 5 == 4 {
            folder.rest().await;
        }
        for _ in 0..4 {
            store.commit(NOW, vec![Write::Trim(tenant, Offset(round * 700))]).await.unwrap();
        }
    }
}
