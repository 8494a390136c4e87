//! A judge that finds nothing proves nothing: each planted fault breaks the rule that it should.

use tidings_sim::generate;
use tidings_sim::oracle::Violation;
use tidings_sim::plant::Plant;
use tidings_sim::run::run;
use tidings_sim::world::Hook;

/// So many seeds may pass until a fault shows.
const SEEDS: u64 = 400;

fn breaks(plant: Plant, rule: &str) {
    breaks_for(plant, rule, |_| true);
}

/// The same, for one of the subscriptions that are meant.
fn breaks_for(plant: Plant, rule: &str, meant: impl Fn(&Hook) -> bool) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let world = generate::world(seed);
        let violations = run(&world, Some(plant), false).violations;
        let of_it = |violation: &&Violation| violation.hook.is_none_or(|hook| meant(&world.hooks[hook]));
        if violations.iter().filter(of_it).any(|violation| violation.rule == rule) {
            return;
        }
        others.extend(violations.into_iter().map(|violation| violation.rule));
    }
    panic!("{} never broke {rule}, but {others:?}", plant.name());
}

#[test]
fn each_fault_breaks_its_rule() {
    let rule = |plant| match plant {
        Plant::AckBeforeCommit | Plant::CursorBefore2xx | Plant::DropOnShutdown | Plant::BlockRowAfterCursor => "I1",
        Plant::OrderLostOnRetry => "I3",
        Plant::DuplicateOnResume => "I4",
        Plant::BodyReserialised => "I5",
        Plant::TenantFilterMissing => "I6",
        Plant::DeadLetterLost => "I8",
        Plant::HistoryDropped => "I10",
        Plant::RetryTooEarly => "S1",
        Plant::RetryAfterIgnored => "S2",
        Plant::CircuitNeverCloses | Plant::DeactivationUntold => "S3",
        Plant::ConcurrencyIgnored => "S4",
        Plant::CountForgotten => "S5",
        Plant::PromiseForgotten => "S6",
        Plant::CarelessStart => "I9",
    };
    for (_, plant) in Plant::ALL {
        breaks(plant, rule(plant));
    }
}

#[test]
fn faults_show_for_workers_as_well() {
    let rules = [
        (Plant::CursorBefore2xx, "I1"),
        (Plant::OrderLostOnRetry, "I3"),
        (Plant::DuplicateOnResume, "I4"),
        (Plant::TenantFilterMissing, "I2"),
        (Plant::PromiseForgotten, "S6"),
    ];
    for (plant, rule) in rules {
        breaks_for(plant, rule, |hook| hook.workers.is_some());
    }
}
