//! How SQLite reads what it is asked for: by an index, in order, without a sort.

use rusqlite::Connection;

use super::connection::LAYOUT_1;
use super::{history, letters, reader, settle};

/// The steps of a statement's plan.
fn plan(connection: &Connection, sql: &str) -> Vec<String> {
    let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let empty: Vec<rusqlite::types::Null> = vec![rusqlite::types::Null; explain.parameter_count()];
    let steps = explain.query_map(rusqlite::params_from_iter(empty), |row| row.get(3)).unwrap();
    steps.collect::<rusqlite::Result<_>>().unwrap()
}

#[test]
fn every_list_is_an_index_scan() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(LAYOUT_1).unwrap();
    for (sql, expected) in [
        (
            letters::select_letters(false, false),
            "SEARCH dead_letter USING INDEX dead_letter_by_tenant (tenant=? AND id<?)",
        ),
        (
            letters::select_letters(false, true),
            "SEARCH dead_letter USING INDEX open_letter_by_tenant (tenant=? AND id<?)",
        ),
        (
            letters::select_letters(true, false),
            "SEARCH dead_letter USING INDEX dead_letter_by_subscription (subscription=? AND id<?)",
        ),
        (
            letters::select_letters(true, true),
            "SEARCH dead_letter USING INDEX dead_letter_by_subscription (subscription=? AND id<?)",
        ),
        (letters::COUNT_OPEN.to_owned(), "SCAN dead_letter USING COVERING INDEX open_letter_by_delivery"),
        (
            history::BY_SUBSCRIPTION.to_owned(),
            "SEARCH attempt USING INDEX attempt_by_subscription (subscription=? AND rowid<?)",
        ),
        (reader::DOCUMENTS_OF.to_owned(), "SEARCH document USING PRIMARY KEY (kind=? AND owner=? AND id>?)"),
    ] {
        assert_eq!(plan(&connection, &sql), [expected], "{sql}");
    }
    assert_eq!(
        plan(&connection, settle::BEHIND),
        [
            "SEARCH progress USING PRIMARY KEY (subscription>?)",
            "CORRELATED SCALAR SUBQUERY 1",
            "SEARCH pending_row USING PRIMARY KEY (subscription=?)"
        ]
    );
    // Numbers are sorted, not what they stand for.
    let by_event = plan(&connection, history::BY_EVENT);
    assert_eq!(
        by_event,
        [
            "SEARCH attempt USING COVERING INDEX attempt_by_event (tenant=? AND span=? AND first<?)",
            "USE TEMP B-TREE FOR ORDER BY"
        ]
    );
}
