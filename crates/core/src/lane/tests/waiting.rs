//! Single cases of aggregates that wait, and of cursors that jump over them.

use super::cases::{all, commit, failed, lane, minutes, settings, settle};
use super::*;

/// A lane whose events all are of one aggregate, with 1 parked.
fn parked(count: u64) -> Lane {
    let settings = Settings {
        schedule: Schedule::new(vec![Duration::from_secs(1)]).unwrap(),
        on_exhausted: OnExhausted::Park,
        deactivate_after: None,
        ..settings()
    };
    let mut lane = Lane::new(settings, Standing::default(), Offset(0), Acks::default(), [], minutes(0));
    (1..=count).for_each(|offset| assert!(lane.offer(Offset(offset), Some(7)) || offset > 1_024));
    assert_eq!(all(&mut lane, &failed(), minutes(0)), [(1, 1)]);
    assert_eq!(all(&mut lane, &failed(), minutes(1)), [(1, 2)]);
    assert_eq!((lane.parked(), lane.rows()), (1, 1));
    lane
}

/// Reads again what waited.
fn follow(lane: &mut Lane) {
    while let Some(follow) = lane.follow() {
        let offsets: Vec<_> = (follow.after.0 + 1..=follow.through.0).map(Offset).collect();
        lane.followed(follow, &offsets, follow.through);
    }
}

#[test]
fn a_parked_aggregate_waits_without_attempts_and_costs_one_row() {
    let mut lane = parked(5_000);
    assert_eq!(all(&mut lane, &failed(), minutes(100_000)), []);
    assert_eq!((lane.cursor(), lane.rows()), (Offset(5_000), 1));
    assert!(lane.release(Offset(1)), "somebody discards the dead letter");
    commit(&mut lane);
    follow(&mut lane);
    let delivered = Outcome::Delivered(Answer::default());
    let sent: Vec<_> = all(&mut lane, &delivered, minutes(100_000)).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(sent, (2..=5_000).collect::<Vec<_>>());
    assert_eq!(lane.rows(), 0);
}

#[test]
fn a_jump_tells_that_it_leaves_out_what_memory_let_go_of() {
    let settings = Settings { schedule: Schedule::new(vec![Duration::from_mins(1)]).unwrap(), ..settings() };
    let mut lane = Lane::new(settings, Standing::default(), Offset(0), Acks::default(), [], minutes(0));
    (1..=9).for_each(|offset| assert!(lane.offer(Offset(offset), Some(7))));
    assert_eq!(all(&mut lane, &failed(), minutes(0)), [(1, 1)]);
    let send = lane.next(minutes(1)).unwrap();
    lane.pause(minutes(1));
    // It is dead, and nothing of that is committed when the cursor jumps.
    settle(&mut lane, &send, failed(), minutes(1));
    assert!(lane.jump(Offset(20)));
    let skipped: Vec<_> = (1..=21).filter(|offset| lane.standing().has_skipped(Offset(*offset))).collect();
    assert_eq!(skipped, (2..=20).collect::<Vec<_>>());
    assert_eq!(commit(&mut lane).dead.len(), 1);
}

#[test]
fn one_that_is_sent_again_goes_before_one_of_its_aggregate_that_is_counted() {
    let settings = Settings { max_concurrency: 1, ..settings() };
    let mut lane = Lane::new(settings, Standing::default(), Offset(5), Acks::default(), [], minutes(0));
    lane.be_careful(true);
    assert!(lane.offer(Offset(6), Some(7)));
    assert_eq!(lane.next(minutes(0)), None, "it is counted first");
    assert!(lane.revive(Offset(3), Some(7), None));
    let delivered = Outcome::Delivered(Answer::default());
    let mut sent = Vec::new();
    for _ in 0..4 {
        commit(&mut lane);
        sent.extend(all(&mut lane, &delivered, minutes(0)));
    }
    assert_eq!(sent, [(3, 1), (6, 1)]);
}

#[test]
fn of_two_rows_that_tell_of_followers_the_one_that_tells_of_more_counts() {
    let row = |offset, followers| Row { offset, followers: Some(followers), ..Row::default() };
    // One that was sent again came in front of 13, which told of its followers before.
    let rows = [row(Offset(8), Offset(14)), row(Offset(13), Offset(30))].map(|row| (row, Some(7)));
    let mut lane = Lane::new(settings(), Standing::default(), Offset(33), Acks::default(), rows, minutes(0));
    let delivered = Outcome::Delivered(Answer::default());
    assert_eq!(all(&mut lane, &delivered, minutes(0)), [(8, 1), (13, 1)]);
    let Follow { of, after, through } = lane.follow().unwrap();
    assert_eq!((of, after, through), (Offset(13), Offset(14), Offset(33)));
}

#[test]
fn what_follows_a_settled_event_above_the_cursor_is_not_waited_for() {
    let row = Row { offset: Offset(20), state: RowState::Settled, followers: Some(Offset(24)), ..Row::default() };
    let mut lane =
        Lane::new(settings(), Standing::default(), Offset(22), Acks::default(), [(row, Some(7))], minutes(0));
    assert!(lane.offer(Offset(25), Some(7)));
    follow(&mut lane);
    assert_eq!(all(&mut lane, &Outcome::Delivered(Answer::default()), minutes(0)), [(25, 1)]);
    assert_eq!((lane.cursor(), lane.rows(), lane.is_current()), (Offset(25), 0, true));
}

#[test]
fn a_parked_event_that_is_revived_starts_anew_and_comes_first() {
    let mut lane = parked(3);
    assert!(lane.revive(Offset(1), Some(7), None));
    assert!(!lane.revive(Offset(2), Some(7), None), "it is still to come");
    commit(&mut lane);
    let delivered = Outcome::Delivered(Answer::default());
    assert_eq!(all(&mut lane, &delivered, minutes(2)), [(1, 1)]);
    follow(&mut lane);
    assert_eq!(all(&mut lane, &delivered, minutes(2)), [(2, 1), (3, 1)]);
}

#[test]
fn what_is_jumped_over_is_skipped_and_what_lies_ahead_again_is_sent_again() {
    let mut lane = lane(settings(), 20);
    lane.pause(minutes(0));
    commit(&mut lane);
    assert!(lane.jump(Offset(15)));
    lane.activate();
    let changes = commit(&mut lane);
    let standing = changes.standing.unwrap();
    assert_eq!(
        (changes.cursor, standing.has_skipped(Offset(15)), standing.has_skipped(Offset(16))),
        (Offset(15), true, false)
    );
    (16..=20).for_each(|offset| assert!(lane.offer(Offset(offset), Some(offset))));
    let delivered = Outcome::Delivered(Answer::default());
    assert_eq!(all(&mut lane, &delivered, minutes(0)).len(), 5);
    lane.pause(minutes(1));
    commit(&mut lane);
    assert!(lane.jump(Offset(10)));
    lane.activate();
    assert_eq!(commit(&mut lane).cursor, Offset(10));
    (11..=20).for_each(|offset| assert!(lane.offer(Offset(offset), Some(offset))));
    assert_eq!(all(&mut lane, &delivered, minutes(1)).len(), 10);
}

#[test]
fn one_that_comes_in_front_of_an_attempt_that_could_not_be_made_goes() {
    let mut lane = Lane::new(settings(), Standing::default(), Offset(1), Acks::default(), [], minutes(0));
    assert!(lane.offer(Offset(2), Some(7)));
    assert!(lane.next(minutes(0)).is_some());
    assert!(lane.revive(Offset(1), Some(7), None));
    commit(&mut lane);
    lane.postpone(Offset(2), minutes(1));
    let delivered = Outcome::Delivered(Answer::default());
    assert_eq!(all(&mut lane, &delivered, minutes(1)), [(1, 1), (2, 1)]);
}

#[test]
fn what_waited_goes_when_aggregates_keep_no_order_any_more() {
    for state in [RowState::Waiting, RowState::Parked, RowState::Settled] {
        let (due, followers) = (minutes(60), Some(Offset(1)));
        let row = Row { offset: Offset(1), attempts: 1, due, state, followers, ..Row::default() };
        let settings = Settings { ordering: Ordering::None, ..settings() };
        let disk = |rows: Vec<Row>| {
            let rows = rows.into_iter().map(|row| (row, Some(7)));
            Lane::new(settings.clone(), Standing::default(), Offset(200), Acks::default(), rows, minutes(0))
        };
        let mut lane = disk(vec![row]);
        assert!(lane.offer(Offset(201), Some(7)));
        let part = lane.follow().unwrap();
        assert_eq!((part.of, part.after, part.through), (Offset(1), Offset(1), Offset(200)));
        let some: Vec<_> = (2..=50).map(Offset).collect();
        lane.followed(part, &some, Offset(50));
        // Nothing is lost then: each has a row of its own, and the first tells of the rest.
        let mut lane = disk(commit(&mut lane).rows);
        assert!(lane.offer(Offset(201), Some(7)));
        follow(&mut lane);
        let delivered = Outcome::Delivered(Answer::default());
        let mut sent: Vec<_> = all(&mut lane, &delivered, minutes(0)).into_iter().map(|(offset, _)| offset).collect();
        sent.sort_unstable();
        assert_eq!(sent, (2..=201).collect::<Vec<_>>(), "{state:?}");
        let left = usize::from(state != RowState::Settled);
        assert_eq!((commit(&mut lane).cursor.max(lane.cursor()), lane.rows()), (Offset(201), left));
    }
}

#[test]
fn what_is_sent_again_when_aggregates_keep_no_order_any_more_forgets_nothing() {
    let (state, followers) = (RowState::Parked, Some(Offset(1)));
    let row = Row { offset: Offset(1), attempts: 1, state, followers, ..Row::default() };
    let settings = Settings { ordering: Ordering::None, ..settings() };
    let rows = [(row, Some(7))];
    let mut lane = Lane::new(settings, Standing::default(), Offset(3), Acks::default(), rows, minutes(0));
    assert!(!lane.revive(Offset(2), Some(7), Some("rp".into())), "it is still to come");
    assert!(lane.revive(Offset(1), Some(7), None));
    assert_eq!(commit(&mut lane).rows[0].followers, Some(Offset(1)));
}

#[test]
fn the_first_row_tells_of_those_that_wait_once_an_order_is_kept_again() {
    let row = |offset, followers| (Row { offset: Offset(offset), followers, ..Row::default() }, Some(7));
    let rows = [row(3, None), row(8, Some(Offset(3)))];
    let mut lane = Lane::new(settings(), Standing::default(), Offset(9), Acks::default(), rows, minutes(0));
    let told: Vec<_> = commit(&mut lane).rows.iter().map(|row| (row.offset, row.followers)).collect();
    assert_eq!(told, [(Offset(3), Some(Offset(3)))]);
}

#[test]
fn what_is_sent_while_its_row_is_written_is_unsettled() {
    let row = Row { offset: Offset(1), state: RowState::Settled, followers: Some(Offset(1)), ..Row::default() };
    let mut lane = Lane::new(settings(), Standing::default(), Offset(3), Acks::default(), [(row, Some(7))], minutes(0));
    follow(&mut lane);
    assert_eq!(lane.take_changes().unwrap().rows.len(), 1, "the first of those that waited has one now");
    let send = lane.next(minutes(0)).unwrap();
    settle(&mut lane, &send, Outcome::Delivered(Answer::default()), minutes(0));
    lane.committed();
    assert_eq!((send.offset, lane.unsettled()), (Offset(2), 1));
    commit(&mut lane);
    assert_eq!(lane.unsettled(), 0);
}
