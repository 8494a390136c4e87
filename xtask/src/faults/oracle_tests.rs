//! The oracle is a check, so it must be able to fail: every fault is planted once and seen caught.

use super::super::event::Run;
use super::super::ledger::{Ack, Shape};
use super::*;

struct Row {
    mark: Mark,
    offset: u64,
    sequence: Option<u64>,
    id: String,
    data: String,
}

/// Three requests: one acknowledged event, an acknowledged batch of three, a batch of two with unknown outcome.
fn sent() -> (Ledger, Vec<Row>) {
    let mut ledger = Ledger::new(Run::new(7));
    let marks = [vec![(1, 1)], vec![(1, 2), (7, 1), (2, 1)], vec![(2, 2), (1, 3)]];
    let mut rows = Vec::new();
    for (no, marks) in marks.into_iter().enumerate() {
        let marks: Vec<Mark> = marks.into_iter().map(|(key, n)| Mark { key, n }).collect();
        let naming = if no == 1 { Naming::IdempotencyKey } else { Naming::OwnIds };
        let request = ledger.plan(if no == 0 { Shape::Single } else { Shape::Lines }, naming, marks);
        let mut numbers = Vec::new();
        for (index, &mark) in request.marks.iter().enumerate() {
            let offset = rows.len() as u64 + 1;
            let data = ledger.run.data(mark, request.place(index));
            let sequence = (mark.key != 7).then_some(u64::from(mark.n));
            let own = naming == Naming::OwnIds;
            let id = if own { ledger.run.own_id(mark) } else { format!("server-{offset}") };
            numbers.push(Numbers { offset, sequence, event_id: (!own).then(|| id.as_str().into()) });
            rows.push(Row { mark, offset, sequence, id, data });
        }
        if no < 2 {
            ledger.acked(request.no, Ack { at: Duration::from_secs(no as u64 + 1), numbers });
        }
    }
    (ledger, rows)
}

fn judge(ledger: &Ledger, rows: &[Row], cutoff: Option<Duration>) -> Vec<Breach> {
    let mut oracle = Oracle::new(ledger, cutoff, BTreeSet::new());
    for row in rows {
        oracle.see(&Stored {
            offset: row.offset,
            event_id: row.id.clone(),
            event_type: Run::event_type(row.mark.key).to_owned(),
            aggregate_id: ledger.run.aggregate(row.mark.key),
            sequence_number: row.sequence,
            recorded_at: "2026-11-22T10:15:30.123Z".to_owned(),
            data: RawValue::from_string(row.data.clone()).expect("data is JSON"),
        });
    }
    oracle.finish().counts.into_keys().collect()
}

fn planted(fault: impl FnOnce(&mut Vec<Row>)) -> Vec<Breach> {
    let (ledger, mut rows) = sent();
    fault(&mut rows);
    judge(&ledger, &rows, None)
}

#[test]
fn a_whole_log_passes_with_and_without_the_request_of_unknown_outcome() {
    assert_eq!(planted(|_| {}), []);
    assert_eq!(planted(|rows| rows.truncate(4)), []);
}

#[test]
fn a_lost_acknowledged_event_is_caught() {
    assert_eq!(planted(|rows| rows.truncate(0)), [Breach::Lost]);
    assert!(planted(|rows| drop(rows.remove(0))).contains(&Breach::Lost));
    assert!(planted(|rows| rows.truncate(3)).contains(&Breach::Torn));
}

#[test]
fn an_acknowledgement_after_the_cutoff_does_not_bind() {
    let (ledger, rows) = sent();
    let at = |secs| Some(Duration::from_secs(secs));
    assert_eq!(judge(&ledger, &rows[..1], at(2)), []);
    assert_eq!(judge(&ledger, &rows[..1], at(3)), [Breach::Lost]);
    assert_eq!(judge(&ledger, &rows[..2], at(2)), [Breach::Torn]);
}

#[test]
fn an_event_there_twice_is_caught() {
    let breaches = planted(|rows| {
        let (ledger, mut again) = sent();
        drop(ledger);
        let mut copy = again.swap_remove(0);
        copy.offset = 7;
        rows.push(copy);
    });
    assert_eq!(breaches, [Breach::Twice]);
}

#[test]
fn a_gap_in_offsets_is_caught() {
    assert_eq!(planted(|rows| rows[4..].iter_mut().for_each(|row| row.offset += 1)), [Breach::Gap]);
}

#[test]
fn a_gap_in_a_sequence_is_caught() {
    assert_eq!(planted(|rows| rows[5].sequence = Some(4)), [Breach::Order]);
    assert_eq!(planted(|rows| rows[4].sequence = None), [Breach::Order]);
}

#[test]
fn a_moved_event_is_caught() {
    assert_eq!(planted(|rows| rows[1].id = "server-9".to_owned()), [Breach::Moved]);
}

#[test]
fn rewritten_bytes_are_caught() {
    assert_eq!(planted(|rows| rows[2].data = rows[2].data.replace("1.10", "1.1")), [Breach::Altered]);
    assert_eq!(planted(|rows| rows[4].id = "other".to_owned()), [Breach::Altered]);
}

#[test]
fn an_event_never_sent_is_caught() {
    let breaches = planted(|rows| rows[5].data = rows[5].data.replace(r#""n":3"#, r#""n":4"#));
    assert_eq!(breaches, [Breach::Phantom, Breach::Torn]);
}

#[test]
fn a_batch_there_in_part_is_caught() {
    assert_eq!(planted(|rows| rows.truncate(5)), [Breach::Torn]);
}
