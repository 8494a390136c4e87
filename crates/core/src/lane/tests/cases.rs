//! Single cases of a lane.

use super::*;
use crate::lane::item::LOST;
use crate::rate::Rate;

const MINUTE: i64 = 60_000;

pub(super) fn minutes(minutes: i64) -> Timestamp {
    Timestamp::from_millis(minutes * MINUTE)
}

pub(super) fn settings() -> Settings {
    Settings { max_concurrency: 16, deactivate_after: Some(5), ..Settings::default() }
}

/// A lane at the beginning, with events 1 to `count`, each of an aggregate of its own.
pub(super) fn lane(settings: Settings, count: u64) -> Lane {
    let mut lane = Lane::new(settings, Standing::default(), Offset(0), Acks::default(), [], minutes(0));
    (1..=count).for_each(|offset| assert!(lane.offer(Offset(offset), Some(offset))));
    lane
}

pub(super) fn failed() -> Outcome {
    Outcome::Retry { reason: "status 503".into(), answer: Answer::default(), retry_after: None }
}

pub(super) fn settle(lane: &mut Lane, send: &Send, outcome: Outcome, now: Timestamp) {
    let attempted = Attempted { offset: send.offset, began: now, ended: now, about: About::default() };
    lane.settle(attempted, outcome, 0.0);
}

/// Sends everything that may go at `now`, with one outcome; answers what was sent.
pub(super) fn all(lane: &mut Lane, outcome: &Outcome, now: Timestamp) -> Vec<(u64, u32)> {
    let mut sent = Vec::new();
    while let Some(send) = lane.next(now) {
        settle(lane, &send, outcome.clone(), now);
        sent.push((send.offset.0, send.attempt));
        commit(lane);
    }
    sent
}

pub(super) fn commit(lane: &mut Lane) -> Changes {
    let changes = lane.take_changes().unwrap_or_default();
    lane.committed();
    changes
}

#[test]
fn a_dead_endpoint_gets_one_probe_a_step_and_is_deactivated_at_the_fifth() {
    let mut lane = lane(settings(), 100);
    assert_eq!(all(&mut lane, &failed(), minutes(0)), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
    let mut at = 0;
    for (step, offset) in [(1, 6), (5, 7), (30, 8)] {
        at += step;
        assert_eq!(lane.wake_at(minutes(at - 1)), Some(minutes(at)), "never early");
        assert_eq!(all(&mut lane, &failed(), minutes(at - 1)), []);
        // Of those that may be sent the one with the fewest attempts, the oldest first.
        assert_eq!(all(&mut lane, &failed(), minutes(at)), [(offset, 1)]);
        assert!(lane.standing().is_active());
    }
    assert_eq!(all(&mut lane, &failed(), minutes(156)), [(9, 1)]);
    assert_eq!(lane.standing().status.name(), "deactivated");
    assert_eq!(all(&mut lane, &failed(), minutes(10_000)), []);
    lane.activate();
    let delivered = Outcome::Delivered(Answer::default());
    let sent: Vec<_> = all(&mut lane, &delivered, minutes(10_000)).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(sent.len(), 100, "all that waited");
}

#[test]
fn a_poison_event_alone_deactivates_at_the_fifth_and_dies_at_its_sixth() {
    let mut lane = lane(settings(), 1);
    for (at, attempt) in [(0, 1), (1, 2), (6, 3), (36, 4), (156, 5)] {
        assert_eq!(all(&mut lane, &failed(), minutes(at)), [(1, attempt)]);
    }
    assert_eq!(lane.standing().status.name(), "deactivated");
    lane.activate();
    let day = 156 + 24 * 60;
    assert_eq!(all(&mut lane, &failed(), minutes(day - 1)), []);
    let send = lane.next(minutes(day)).unwrap();
    assert_eq!(send.attempt, 6);
    settle(&mut lane, &send, failed(), minutes(day));
    let changes = commit(&mut lane);
    assert_eq!((changes.dead.len(), changes.dead[0].attempts), (1, 6));
    assert!(lane.standing().is_active());
}

#[test]
fn a_poison_event_among_successes_deactivates_nothing() {
    let mut lane = lane(settings(), 1);
    let mut dead = 0;
    for (next, minute) in (2..).zip(0..=1_700) {
        while let Some(send) = lane.next(minutes(minute)) {
            let outcome = if send.offset == Offset(1) { failed() } else { Outcome::Delivered(Answer::default()) };
            settle(&mut lane, &send, outcome, minutes(minute));
            dead += commit(&mut lane).dead.len();
        }
        lane.offer(Offset(next), Some(next));
    }
    assert_eq!(dead, 1);
    assert!(lane.standing().is_active());
}

#[test]
fn gone_deactivates_at_once_and_its_event_waits() {
    let mut lane = lane(settings(), 2);
    let send = lane.next(minutes(0)).unwrap();
    settle(&mut lane, &send, Outcome::Gone { answer: Answer::default() }, minutes(0));
    assert_eq!(all(&mut lane, &failed(), minutes(1)), []);
    let changes = commit(&mut lane);
    assert!(matches!(&changes.notices[..], [Notice::Deactivated { .. }]));
    assert_eq!(changes.rows.len(), 1);
    assert_eq!(changes.standing.unwrap().status.name(), "deactivated");
}

#[test]
fn retry_after_pushes_the_attempt_and_the_probe() {
    let mut lane = lane(settings(), 5);
    let asked = Outcome::Retry {
        reason: "status 429".into(),
        answer: Answer::default(),
        retry_after: Some(Duration::from_mins(10)),
    };
    assert_eq!(all(&mut lane, &asked, minutes(0)).len(), 5);
    assert_eq!(all(&mut lane, &asked, minutes(9)), []);
    assert_eq!(all(&mut lane, &asked, minutes(10)).len(), 1);
}

#[test]
fn replays_take_a_fifth_of_the_room_and_keep_to_the_key_lock() {
    let mut lane = lane(settings(), 40);
    let delivered = Outcome::Delivered(Answer::default());
    assert_eq!(all(&mut lane, &delivered, minutes(0)).len(), 40);
    for offset in 1..=40 {
        assert!(lane.revive(Offset(offset), Some(offset), Some("rp".into())));
    }
    commit(&mut lane);
    // 41 to 60 are of the aggregates of 1 to 20, whose replays come first; 61 to 80 of others.
    for offset in 41..=80 {
        let key = if offset <= 60 { offset - 40 } else { offset };
        assert!(lane.offer(Offset(offset), Some(key)));
    }
    let sends: Vec<_> = std::iter::from_fn(|| lane.next(minutes(1))).collect();
    let (replays, live): (Vec<_>, Vec<_>) = sends.iter().partition(|send| send.replay.is_some());
    assert_eq!((replays.len(), live.len()), (3, 13));
    assert!(live.iter().all(|send| send.offset > Offset(60)));
}

#[test]
fn a_rate_is_kept_whatever_waits() {
    let mut lane = lane(Settings { rate: Some(Rate::parse("10/s").unwrap()), ..settings() }, 100);
    let delivered = Outcome::Delivered(Answer::default());
    assert_eq!(all(&mut lane, &delivered, Timestamp::from_millis(0)).len(), 10);
    assert_eq!(lane.wake_at(Timestamp::from_millis(0)), Some(Timestamp::from_millis(100)));
    assert_eq!(all(&mut lane, &delivered, Timestamp::from_millis(500)).len(), 5);
}

#[test]
fn one_slow_answer_does_not_hold_up_what_is_acknowledged() {
    let mut lane = lane(settings(), 600);
    // One that is not known to answer has a single attempt in flight.
    lane.standing.circuit.trust();
    let slow = lane.next(minutes(0)).unwrap();
    assert_eq!(slow.offset, Offset(1));
    let delivered = Outcome::Delivered(Answer::default());
    assert_eq!(all(&mut lane, &delivered, minutes(0)).len(), 599);
    assert_eq!((lane.unsettled(), lane.cursor()), (1, Offset(0)), "all but the slow one are committed");
    for offset in 601..=ACKS_SPAN + 700 {
        lane.offer(Offset(offset), None);
        all(&mut lane, &delivered, minutes(0));
    }
    assert_eq!(lane.rows(), 1, "the bitmap is full: the slow one has a row");
    settle(&mut lane, &slow, Outcome::Delivered(Answer::default()), minutes(1));
    commit(&mut lane);
    assert_eq!((lane.rows(), lane.cursor()), (0, Offset(ACKS_SPAN + 700)));
}

#[test]
fn what_is_told_of_a_subscription_is_no_round_and_what_is_told_of_others_warns_nobody() {
    for (about, status, notices) in
        [(About::Application, "deactivated", 2), (About::Operational, "deactivated", 1), (About::Itself, "active", 0)]
    {
        let mut lane = lane(Settings { deactivate_after: Some(3), ..settings() }, 1);
        let mut told = 0;
        for at in [0, 1, 6] {
            let send = lane.next(minutes(at)).unwrap();
            let attempted = Attempted { offset: send.offset, began: minutes(at), ended: minutes(at), about };
            lane.settle(attempted, failed(), 0.0);
            told += commit(&mut lane).notices.len();
        }
        assert_eq!((lane.standing().status.name(), told), (status, notices), "{about:?}");
    }
}

#[test]
fn only_who_was_warned_hears_that_it_works_again() {
    for (about, told) in [(About::Application, 1), (About::Operational, 0), (About::Itself, 0)] {
        let mut lane = lane(settings(), 1);
        for at in [0, 1] {
            let send = lane.next(minutes(at)).unwrap();
            let attempted = Attempted { offset: send.offset, began: minutes(at), ended: minutes(at), about };
            lane.settle(attempted, failed(), 0.0);
            commit(&mut lane);
        }
        let send = lane.next(minutes(6)).unwrap();
        settle(&mut lane, &send, Outcome::Delivered(Answer::default()), minutes(6));
        assert_eq!(commit(&mut lane).notices.len(), told, "{about:?}");
    }
}

/// Ends the process: answers the lane that goes on from what was committed, careful, with what was lost.
fn crashed(disk: &Disk, settings: &Settings, now: Timestamp) -> (Lane, Vec<(u64, u32)>) {
    let rows: Vec<_> = disk.rows.values().map(|row| (row.clone(), Some(row.offset.0))).collect();
    let (cursor, acks) = (disk.cursor, Acks::from_bytes(disk.cursor, &disk.acked));
    let mut lane = Lane::new(settings.clone(), disk.standing.clone(), cursor, acks, rows, now);
    lane.be_careful(true);
    let lost = lane.in_doubt();
    // Chance parts those that were lost together.
    for send in &lost {
        lane.lost(send.offset, now, if send.offset == Offset(2) { 0.0 } else { 1.0 });
    }
    (lane, lost.into_iter().map(|send| (send.offset.0, send.attempt)).collect())
}

#[test]
fn an_event_at_which_the_process_ends_uses_its_attempts_up_and_its_neighbours_do_not() {
    let (mut disk, mut now) = (Disk::default(), minutes(0));
    let delivered = Outcome::Delivered(Answer::default());
    let mut sent = Vec::new();
    for _ in 0..20 {
        let (mut lane, lost) = crashed(&disk, &settings(), now);
        assert!(lost.iter().all(|(offset, attempt)| *offset == 2 || *attempt <= 2), "{lost:?}");
        (1..=3).for_each(|offset| assert!(lane.offer(Offset(offset), Some(offset)) || offset <= disk.cursor.0));
        loop {
            // Nothing goes before it is counted.
            if let Some(send) = lane.next(now) {
                let row = disk.rows.get(&send.offset).map(|row| (row.state, row.attempts));
                assert_eq!(row, Some((RowState::Counted, send.attempt)));
                if send.offset == Offset(2) {
                    sent.push((now.as_millis() / MINUTE, send.attempt));
                    break;
                }
                settle(&mut lane, &send, delivered.clone(), now);
            }
            match lane.take_changes() {
                Some(changes) => {
                    disk.take(&changes);
                    lane.committed();
                }
                None => match lane.wake_at(now) {
                    Some(at) => now = at.max(now),
                    None => break,
                },
            }
        }
    }
    assert_eq!(sent, [(0, 1), (0, 2), (0, 3), (30, 4), (150, 5), (1590, 6)]);
    assert_eq!((disk.dead.iter().collect::<Vec<_>>(), disk.cursor), (vec![&Offset(2)], Offset(3)));
    assert!(disk.rows.is_empty() && disk.standing.circuit.failures() == 0, "{:?}", disk.rows);
}

#[test]
fn what_lost_its_first_two_attempts_goes_within_a_second_and_what_lost_three_by_the_schedule() {
    let (mut disk, mut now) = (Disk::default(), minutes(0));
    let mut waits = Vec::new();
    for attempt in 1..=4 {
        let (mut lane, lost) = crashed(&disk, &settings(), now);
        assert_eq!(lost, (1..attempt).last().map(|made| (1, made)).into_iter().collect::<Vec<_>>());
        lane.offer(Offset(1), None);
        let began = now;
        let send = loop {
            if let Some(send) = lane.next(now) {
                break send;
            }
            match lane.take_changes() {
                Some(changes) => {
                    disk.take(&changes);
                    lane.committed();
                }
                None => now = lane.wake_at(now).unwrap().max(now),
            }
        };
        assert_eq!(send.attempt, attempt);
        waits.push(now.since(began));
    }
    assert_eq!(waits[..3], [Duration::ZERO, Duration::ZERO, Duration::from_secs(1)]);
    assert!(waits[3] >= Duration::from_mins(30), "{waits:?}");
}

#[test]
fn what_was_counted_and_not_sent_is_taken_back_when_nothing_more_is_sent() {
    let mut lane = lane(settings(), 1);
    lane.be_careful(true);
    assert_eq!(lane.next(minutes(0)), None);
    lane.pause(minutes(0));
    let rows = commit(&mut lane).rows;
    assert_eq!((rows[0].state, rows[0].attempts), (RowState::Waiting, 0));
    lane.resume();
    commit(&mut lane);
    assert_eq!(lane.next(minutes(1)), None);
    let row = commit(&mut lane).rows.remove(0);
    assert_eq!((row.state, row.attempts, &*row.reason), (RowState::Counted, 1, ""));
    let send = lane.next(minutes(1)).unwrap();
    settle(&mut lane, &send, failed(), minutes(1));
    let row = commit(&mut lane).rows.remove(0);
    assert_eq!((row.state, row.attempts, &*row.reason), (RowState::Waiting, 1, "status 503"));
    assert_ne!(&*row.reason, LOST);
}
