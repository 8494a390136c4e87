//! The log itself: whole, dense, and with all that was acknowledged.

use super::Violation;
use crate::run::Run;

pub(super) fn check(run: &Run) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut broken = |rule, text| violations.push(Violation { rule, hook: None, text });
    for finding in &run.verified.findings {
        broken("I7", format!("{finding:?}"));
    }
    for (tenant, id, offset) in &run.acked {
        let found = run.logs[*tenant].iter().find(|event| event.subject.id.as_str() == &**id);
        match found {
            None => broken("I1", format!("{id} of tenant {tenant} was acknowledged and is not in the log")),
            Some(event) if event.offset != *offset => {
                broken("I7", format!("{id} was acknowledged at offset {offset} and is at {}", event.offset));
            }
            Some(_) => {}
        }
    }
    for event in run.logs.iter().flatten().filter(|event| !event.subject.event_type.is_operational()) {
        let (tenant, id) = (event.tenant.0 as usize - 1, event.subject.id.as_str());
        if !run.world.publishes(tenant, id) {
            broken("I2", format!("{id} of tenant {tenant} was published by nobody"));
        }
    }
    if !run.finished {
        broken("I9", format!("after {} days it was still not at rest", crate::run::DRAIN_DAYS));
    }
    violations
}
