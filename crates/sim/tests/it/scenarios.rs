//! What the rules say of typical lives of a subscriber, each with many seeds.

use std::collections::BTreeSet;
use std::time::Duration;

use tidings_core::lane::{LOST, OnExhausted, Settings};
use tidings_core::rate::Rate;
use tidings_core::retry::Schedule;
use tidings_core::time::Timestamp;
use tidings_log::Unavailable;
use tidings_log::store::DeadState;
use tidings_sim::disk::Trouble;
use tidings_sim::receiver::{Mood, Poison, Seen};
use tidings_sim::run::{End, Run, run};
use tidings_sim::world::{Act, Hook, Order, World, at};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const SEEDS: u64 = 25;

/// Runs a world with many seeds; the judge must be content, and so must `check`.
fn always(build: impl Fn(&mut World), check: impl Fn(&Run)) {
    for seed in 0..SEEDS {
        let mut world = World::blank(seed);
        build(&mut world);
        let run = run(&world, None, false);
        let broken: Vec<_> = run.violations.iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "seed {seed}: {}", broken.join("\n"));
        check(&run);
    }
}

fn ms(time: Timestamp) -> u64 {
    time.since(at(0)).as_millis().try_into().unwrap()
}

/// When attempts of an event began, and with which number.
fn attempts(run: &Run, id: &str) -> Vec<(u64, u32)> {
    run.seen.iter().filter(|seen| &*seen.id == id).map(|seen| (ms(seen.began), seen.attempt)).collect()
}

fn delivered(run: &Run) -> Vec<&Seen> {
    run.seen.iter().filter(|seen| seen.is_delivered()).collect()
}

fn quick(steps_ms: &[u64]) -> Settings {
    let steps = steps_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
    Settings { schedule: Schedule::new(steps).unwrap(), ..Hook::named("w").settings }
}

#[test]
fn who_fails_for_five_rounds_is_deactivated_and_gets_everything_once_activated() {
    let build = |world: &mut World| {
        world.hook(Hook::named("w").until(4 * HOUR, Mood::Down(503)));
        world.publish(0, Duration::ZERO, &["first"], 1);
        world.publish(3 * HOUR, Duration::from_secs(1), &["a", "b", "first"], 40);
        world.act(5 * HOUR, Act::Order(0, Order::Activate));
    };
    always(build, |run| {
        let told = run.told(0, "tidings.webhook.deactivated");
        assert_eq!(told.len(), 1);
        let tries = attempts(run, "first-0-0");
        // 0 s, 1 min, 6 min, 36 min, 2 h 36 min, each step a tenth longer at the most; the sixth after a day.
        for (place, minutes) in [0, 1, 6, 36, 156].into_iter().enumerate() {
            let late = minutes * MINUTE / 10 + 2_000;
            assert!((minutes * MINUTE..=minutes * MINUTE + late).contains(&tries[place].0), "{tries:?}");
        }
        assert!(tries[5].0 >= 26 * HOUR && tries.len() == 6, "{tries:?}");
        assert!(ms(told[0]) >= tries[4].0 && ms(told[0]) < tries[4].0 + 5_000);
        assert_eq!(delivered(run).len(), 121);
        assert!(run.seen.iter().skip(5).all(|seen| ms(seen.began) >= 5 * HOUR));
        assert!(run.kept[0].letters.is_empty());
        let rounds = run.told(0, "tidings.webhook.failing");
        assert_eq!(rounds.len(), 3, "rounds two to four are told");
    });
}

#[test]
fn a_poison_event_among_successes_dies_after_six_attempts_and_deactivates_nothing() {
    let build = |world: &mut World| {
        let poison = Poison { id: Some("bad-0-0"), ..Poison::default() };
        world.hook(Hook { poison, ..Hook::named("w") });
        world.publish(0, Duration::ZERO, &["bad"], 1);
        world.publish(1, Duration::from_mins(9), &["a", "b"], 100);
        world.publish(5, Duration::from_mins(30), &["bad"], 30);
    };
    always(build, |run| {
        assert!(run.told(0, "tidings.webhook.deactivated").is_empty());
        let letters = &run.kept[0].letters;
        assert_eq!(letters.len(), 1);
        assert_eq!((letters[0].attempts, &*letters[0].reason), (6, "status 500"));
        assert_eq!(run.told(0, "tidings.delivery.dead_lettered").len(), 1);
        let tries = attempts(run, "bad-0-0");
        assert_eq!(tries.len(), 6);
        assert!((26 * HOUR..30 * HOUR).contains(&tries[5].0), "{tries:?}");
        assert_eq!(delivered(run).len(), 230);
    });
}

#[test]
fn a_poison_event_alone_deactivates_at_its_fifth_attempt_and_dies_at_its_sixth() {
    let build = |world: &mut World| {
        let poison = Poison { id: Some("bad-0-0"), ..Poison::default() };
        world.hook(Hook { poison, ..Hook::named("w") });
        world.publish(0, Duration::ZERO, &["bad"], 1);
        world.act(40 * HOUR, Act::Order(0, Order::Activate));
    };
    always(build, |run| {
        assert_eq!(run.told(0, "tidings.webhook.deactivated").len(), 1);
        let tries = attempts(run, "bad-0-0");
        assert_eq!(tries.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert!((40 * HOUR..40 * HOUR + MINUTE).contains(&tries[5].0), "its time had come long ago: {tries:?}");
        assert_eq!(run.kept[0].letters.len(), 1);
        assert_eq!(run.kept[0].letters[0].attempts, 6);
    });
}

#[test]
fn an_event_at_which_every_process_ends_dies_after_its_attempts_and_the_others_arrive() {
    let build = |world: &mut World| {
        let poison = Poison { killer: Some("bad-0-0"), ..Poison::default() };
        world.hook(Hook { poison, settings: quick(&[1_000, 2_000, 3_000]), ..Hook::named("w") });
        world.hook(Hook::named("neighbour"));
        world.publish(0, Duration::ZERO, &["bad"], 1);
        world.publish(1, Duration::from_millis(500), &["a", "b", "bad"], 20);
    };
    always(build, |run| {
        let letters: Vec<_> = run.kept[0].letters.iter().map(|letter| (letter.attempts, &*letter.reason)).collect();
        assert_eq!(letters, [(4, LOST)]);
        let killed: Vec<_> = run.seen.iter().filter(|seen| seen.hook == 0 && &*seen.id == "bad-0-0").collect();
        // Twice before anybody is suspicious; what is counted is not made again.
        let numbers: Vec<_> = killed.iter().map(|seen| seen.attempt).collect();
        assert!(numbers.len() <= 2 + 4 && numbers.ends_with(&[4]), "{numbers:?}");
        let others = run.seen.iter().filter(|seen| seen.is_delivered()).map(|seen| (seen.hook, &*seen.id));
        assert_eq!(others.collect::<BTreeSet<_>>().len(), 60 + 61);
    });
}

#[test]
fn an_outage_uses_up_one_probe_a_step_and_no_attempts_of_the_rest() {
    let build = |world: &mut World| {
        let settings = Settings { deactivate_after: None, ..Hook::named("w").settings };
        world.hook(Hook { settings, ..Hook::named("w").until(10 * HOUR, Mood::Down(503)) });
        world.publish(0, Duration::from_millis(100), &["a", "b", "c", "d", "e", "f", "g"], 30);
    };
    always(build, |run| {
        let failed: Vec<_> = run.seen.iter().filter(|seen| !seen.is_delivered()).collect();
        assert!(failed.len() <= 4 + 4 + 12, "{} attempts in ten hours", failed.len());
        assert!(run.kept[0].letters.is_empty(), "nobody dies of an outage");
        assert_eq!(delivered(run).len(), 210);
    });
}

#[test]
fn who_asks_to_be_left_alone_is() {
    let build = |world: &mut World| {
        let settings = quick(&[1_000, 1_000, 1_000, 1_000]);
        world.hook(Hook { settings, ..Hook::named("w").until(5_000, Mood::Busy(Duration::from_secs(90))) });
        world.publish(0, Duration::from_millis(10), &["a"], 1);
        world.publish(7_000, Duration::from_millis(10), &["a", "b"], 10);
    };
    always(build, |run| {
        let tries = attempts(run, "a-0-0");
        assert_eq!(tries.len(), 2);
        assert!(tries[1].0 >= 90_000, "{tries:?}");
    });
}

#[test]
fn who_is_gone_is_deactivated_at_once() {
    let build = |world: &mut World| {
        world.hook(Hook::named("w").until(30_000, Mood::Gone));
        world.publish(0, Duration::from_millis(500), &["a", "b"], 10);
        world.act(60_000, Act::Order(0, Order::Activate));
    };
    always(build, |run| {
        assert_eq!(run.told(0, "tidings.webhook.deactivated").len(), 1);
        assert!(run.seen.iter().filter(|seen| ms(seen.began) < 60_000).count() <= 4);
        assert_eq!(delivered(run).len(), 20);
    });
}

#[test]
fn an_aggregate_parks_behind_its_dead_letter_until_somebody_decides() {
    let world_of = |order: Order| {
        move |world: &mut World| {
            let settings = Settings { on_exhausted: OnExhausted::Park, ..quick(&[100, 100]) };
            let poison = Poison { id: Some("bad-0-0"), ..Poison::default() };
            world.hook(Hook { settings, poison, ..Hook::named("w") });
            world.publish(0, Duration::from_millis(300), &["bad", "a"], 20);
            world.act(2_000, Act::Crash(Duration::from_secs(1)));
            world.act(60_000, Act::Order(0, order));
            world.act(60_500, Act::Crash(Duration::from_secs(1)));
        }
    };
    let parked =
        |run: &Run| run.seen.iter().filter(|seen| seen.id.starts_with("bad-0-") && ms(seen.began) < 60_000).count();
    always(world_of(Order::Discard), |run| {
        assert!((3..=5).contains(&parked(run)), "only the first of its aggregate is tried");
        assert!(matches!(run.kept[0].letters[..], [ref letter] if matches!(letter.state, DeadState::Discarded { .. })));
        assert_eq!(run.seen.iter().filter(|seen| &*seen.id == "bad-0-19" && seen.is_delivered()).count(), 1);
    });
    always(world_of(Order::ReplayDead), |run| {
        assert!((3..=5).contains(&parked(run)));
        assert!(run.kept[0].letters.len() >= 2, "it died again");
        assert!(matches!(run.kept[0].letters[0].state, DeadState::Replayed { .. }));
    });
}

#[test]
fn crashes_in_the_middle_of_everything_lose_nothing_and_repeat_little() {
    let build = |world: &mut World| {
        world.hook(Hook { settings: quick(&[200, 400, 800]), ..Hook::named("w").until(9_000, Mood::Flapping(30)) });
        world.hook(Hook { settings: quick(&[100; 8]), ..Hook::named("s").until(9_000, Mood::Slow(300)) });
        world.publish(0, Duration::from_millis(7), &["a", "b", "c", "d", "e"], 200);
        for crash in 1..20 {
            world.act(crash * 377 + world.seed * 13, Act::Crash(Duration::from_millis(20)));
        }
    };
    always(build, |run| assert_eq!(run.lives.len(), 20));
}

#[test]
fn a_graceful_stop_under_load_repeats_nothing() {
    let build = |world: &mut World| {
        world.hook(Hook { settings: quick(&[200, 400]), ..Hook::named("w").until(4_000, Mood::Slow(400)) });
        world.publish(0, Duration::from_millis(5), &["a", "b", "c", "d", "e", "f", "g", "h"], 100);
        for stop in 1..6 {
            let patience = Duration::from_secs(20);
            world.act(stop * 611 + world.seed * 3, Act::Stop { patience, down: Duration::from_millis(50) });
        }
    };
    always(build, |run| {
        assert!(run.lives[..5].iter().all(|life| life.end == End::Stopped));
        assert_eq!(run.seen.len(), 800, "each event once");
    });
}

#[test]
fn a_full_disk_stops_deliveries_in_time_and_repeats_none() {
    let build = |world: &mut World| {
        world.hook(Hook { settings: quick(&[200, 400]), ..Hook::named("w") });
        world.publish(0, Duration::from_millis(2), &["a", "b", "c", "d", "e", "f", "g", "h"], 150);
        let (from, until) = (at(500), at(30_000));
        world.disk.troubles.push(Trouble { from, until, reason: Unavailable::Full, once_in: 1 });
    };
    always(build, |run| assert_eq!(run.seen.len(), 1_200, "each event once"));
}

#[test]
fn a_slow_subscriber_does_not_slow_its_neighbour() {
    let build = |world: &mut World| {
        world.hook(Hook::named("slow").until(HOUR, Mood::Hanging));
        world.hook(Hook::named("quick"));
        world.publish(0, Duration::from_millis(20), &["a", "b", "c"], 100);
    };
    always(build, |run| {
        let late = run.seen.iter().filter(|seen| seen.hook == 1).map(|seen| ms(seen.began)).max();
        assert!(late.unwrap() < 10_000, "{late:?}");
    });
}

#[test]
fn a_pause_holds_over_restarts_until_it_is_ended() {
    let build = |world: &mut World| {
        world.hook(Hook::named("w"));
        world.publish(0, Duration::from_millis(200), &["a", "b"], 50);
        world.act(3_000, Act::Order(0, Order::Pause));
        world.act(5_000, Act::Crash(Duration::from_secs(1)));
        world.act(8_000, Act::Stop { patience: Duration::from_secs(1), down: Duration::from_secs(1) });
        world.act(60_000, Act::Order(0, Order::Resume));
    };
    always(build, |run| {
        let quiet = run.seen.iter().filter(|seen| (4_000..60_000).contains(&ms(seen.began))).count();
        assert_eq!(quiet, 0);
        assert_eq!(delivered(run).len(), 100);
    });
}

#[test]
fn a_slow_rate_holds_although_there_is_little_to_do_between() {
    let build = |world: &mut World| {
        let settings = Settings { rate: Some(Rate::parse("6/m").unwrap()), ..Hook::named("w").settings };
        world.hook(Hook { settings, ..Hook::named("w") });
        world.publish(0, Duration::from_secs(3), &["a", "b"], 20);
    };
    always(build, |run| {
        let early = run.seen.iter().filter(|seen| ms(seen.began) < 2 * MINUTE).count();
        assert!(early <= 14, "{early} attempts in two minutes");
    });
}

/// A replay has a parked event sent again although its dead letter is open, and the letter is discarded when the event is
/// given up again.
#[test]
fn what_is_discarded_at_the_moment_when_it_is_given_up_again_can_be_decided_on_again() {
    for discarded in (1_760..1_880).step_by(5) {
        let build = |world: &mut World| {
            world.disk.read_ms = 40;
            let poison = Poison { id: Some("bad-400-0"), ..Poison::default() };
            let settings = Settings { on_exhausted: OnExhausted::Park, ..quick(&[500]) };
            world.hook(Hook { poison, settings, ..Hook::named("w") });
            world.publish(0, Duration::ZERO, &["a"], 30);
            world.publish(400, Duration::ZERO, &["bad"], 3);
            world.act(700, Act::Order(0, Order::ReplayAll));
            world.act(discarded, Act::Order(0, Order::Discard));
        };
        always(build, |run| {
            let ids: BTreeSet<_> = delivered(run).iter().map(|seen| &*seen.id).collect();
            assert_eq!(ids.len(), 32, "all but the one that always fails");
        });
    }
}
