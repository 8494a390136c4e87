//! A judge that finds nothing proves nothing: each planted fault breaks the rule that it should.

use tidings_sim::generate;
use tidings_sim::plant::Plant;
use tidings_sim::run::run;

/// So many seeds may pass until a fault shows.
const SEEDS: u64 = 400;

fn breaks(plant: Plant, rule: &str) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let violations = run(&generate::world(seed), Some(plant), false).violations;
        if violations.iter().any(|violation| violation.rule == rule) {
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
        Plant::CarelessStart => "I9",
    };
    for (_, plant) in Plant::ALL {
        breaks(plant, rule(plant));
    }
}
