//! Single cases of a lane whose workers fetch.

use super::cases::{all, commit, lane, minutes, settings, settle};
use super::*;

fn pulled(retries_max: u32) -> Settings {
    let pull = Pull { retries_max, ack_wait: Duration::from_secs(30) };
    Settings { pull: Some(pull), deactivate_after: None, ..settings() }
}

#[test]
fn a_worker_that_fails_at_everything_opens_no_circuit_and_gets_each_event_four_times() {
    let mut lane = lane(pulled(3), 20);
    let nack = Outcome::Retry { reason: "no".into(), answer: Answer::default(), retry_after: Some(Duration::ZERO) };
    let sent = all(&mut lane, &nack, minutes(0));
    assert_eq!(sent.len(), 80);
    assert!((1..=20).all(|offset| sent.iter().filter(|send| send.0 == offset).map(|send| send.1).eq(1..=4)));
    assert_eq!((lane.standing().circuit.failures(), lane.is_current()), (0, true));
}

#[test]
fn a_worker_says_exactly_when_an_event_comes_back_and_else_the_last_step_goes_on() {
    let mut lane = lane(pulled(9), 1);
    let mut at = minutes(0);
    for (asked, minutes) in [(Some(30), 30), (None, 5), (None, 30), (None, 120), (None, 1_440), (None, 1_440)] {
        let send = lane.next(at).unwrap();
        let retry_after = asked.map(|minutes| Duration::from_secs(60 * minutes));
        let outcome = Outcome::Retry { reason: "no".into(), answer: Answer::default(), retry_after };
        settle(&mut lane, &send, outcome, at);
        commit(&mut lane);
        let due = at.plus(Duration::from_secs(60 * minutes));
        assert_eq!(lane.wake_at(at), Some(due));
        at = due;
    }
}

#[test]
fn a_late_word_counts_until_somebody_else_has_the_event() {
    let mut lane = lane(pulled(3), 2);
    let over = Outcome::Retry { reason: "over".into(), answer: Answer::default(), retry_after: Some(Duration::ZERO) };
    for _ in 0..2 {
        let send = lane.next(minutes(0)).unwrap();
        settle(&mut lane, &send, over.clone(), minutes(0));
    }
    assert_eq!(lane.late(Offset(1), 1), Late::Counts);
    assert_eq!((lane.late(Offset(1), 1), lane.late(Offset(2), 3)), (Late::Settled, Late::Stale));
    commit(&mut lane);
    let again = lane.next(minutes(0)).unwrap();
    assert_eq!((again.offset, again.attempt), (Offset(2), 2));
    assert_eq!(lane.late(Offset(2), 1), Late::Stale);
    assert_eq!((lane.late(Offset(1), 1), lane.late(Offset(9), 1)), (Late::Settled, Late::Stale));
}

#[test]
fn what_is_out_when_a_lane_ends_waits_for_its_worker_and_counts_for_nothing() {
    let mut lane = lane(pulled(3), 2);
    lane.next(minutes(0)).unwrap();
    lane.take_back(minutes(1));
    let changes = commit(&mut lane);
    let rows: Vec<_> = changes.rows.iter().map(|row| (row.offset.0, row.attempts, row.due)).collect();
    assert_eq!((rows, lane.in_flight()), (vec![(1, 0, minutes(1))], 0));
    let second = lane.next(minutes(0)).unwrap();
    assert_eq!(second.offset, Offset(2));
    assert_eq!(lane.next(minutes(0)), None);
    assert_eq!(lane.late(Offset(1), 1), Late::Counts);
}
