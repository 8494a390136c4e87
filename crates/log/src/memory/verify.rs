//! Whether what is on the disk is whole: the chain, the times, the numbers.

use std::collections::BTreeMap;

use tidings_core::chain::{self, GENESIS};
use tidings_core::offset::Offset;

use super::state::{Log, State};
use crate::event::{Event, Tenant};
use crate::verify::{Finding, FindingKind, Report, TenantReport};

pub(super) fn verify(state: &State) -> Report {
    let mut report = Report::default();
    for (tenant, log) in state.logs.iter() {
        let mut walk = Walk { state, tenant: *tenant, log, findings: &mut report.findings };
        let found = walk.run();
        report.tenants.push(found);
    }
    report
}

struct Walk<'a> {
    state: &'a State,
    tenant: Tenant,
    log: &'a Log,
    findings: &'a mut Vec<Finding>,
}

impl Walk<'_> {
    fn run(&mut self) -> TenantReport {
        let sealed = self.seals();
        let mut report = TenantReport {
            name: self.log.name.to_string(),
            first: self.log.extent.first.0,
            head: self.log.extent.head.0,
            sealed_through: sealed.map_or(0, |(last, _)| last.0),
            head_hash: chain::hex(&sealed.map_or(GENESIS, |(_, hash)| hash)),
            ..TenantReport::default()
        };
        let state = self.state;
        let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
        let mut before: Option<&Event> = None;
        for (_, event) in state.events.range((self.tenant, Offset(0))..=(self.tenant, Offset(u64::MAX))) {
            report.events += 1;
            report.erased += u64::from(event.bytes().is_none());
            report.unsealed += u64::from(event.offset.0 > report.sealed_through);
            let expected = before.map_or(self.log.extent.first, |before| before.offset.next());
            self.expect_after(expected, event.offset);
            if before.is_some_and(|before| before.recorded > event.recorded) {
                self.note(FindingKind::Time, event.offset, "recorded before the one in front of it");
            }
            if let Some(aggregate) = &event.subject.aggregate {
                let last = numbers.insert(aggregate.as_str(), event.sequence.unwrap_or(0));
                let first = if self.log.extent.first == Offset(1) { Some(1) } else { event.sequence };
                if event.sequence != last.map_or(first, |last| Some(last + 1)) {
                    self.note(FindingKind::Sequence, event.offset, "not the next number of its aggregate");
                }
            }
            before = Some(event);
        }
        let last = before.map_or(self.log.extent.first, |before| before.offset.next());
        self.expect_after(last, self.log.extent.head.next());
        report
    }

    /// Checks each seal against the one before and the events that it covers; answers the end of the chain.
    fn seals(&mut self) -> Option<(Offset, chain::Hash)> {
        let mut end: Option<(Offset, chain::Hash)> = None;
        let state = self.state;
        for ((_, last), sealed) in state.seals.range((self.tenant, Offset(0))..=(self.tenant, Offset(u64::MAX))) {
            let first = sealed.seal.first;
            let gone = *last < self.log.extent.first;
            if let Some((end, hash)) = end {
                self.expect_after(end.next(), first);
                if hash != sealed.previous {
                    self.note(FindingKind::Seal, first, "the seal does not follow the one before it");
                }
            } else if !gone && (first != Offset(1) || sealed.previous != GENESIS) && self.log.extent.first == Offset(1)
            {
                self.note(FindingKind::Seal, first, "the first seal is missing");
            }
            end = Some((*last, sealed.seal.hash));
            if gone {
                continue;
            }
            if sealed.seal.hash != chain::seal(&sealed.previous, first, *last, &sealed.leaves) {
                self.note(FindingKind::Seal, first, "the seal does not match its leaves");
            }
            let events = state.events.range((self.tenant, first)..=(self.tenant, *last));
            let leaves: Vec<u8> = events.flat_map(|(_, event)| event.leaf()).collect();
            if leaves != sealed.leaves {
                self.note(FindingKind::Changed, first, "the events are not what was sealed");
            }
        }
        end
    }

    /// Notes if something is missing between: offsets are dense but for the jumps of eras.
    fn expect_after(&mut self, expected: Offset, found: Offset) {
        let jump =
            |(first, previous): &(Offset, Offset)| *first == found && previous.next() <= expected && expected <= found;
        if found != expected && !self.log.eras.iter().any(jump) {
            self.note(FindingKind::Missing, expected, "events are missing");
        }
    }

    fn note(&mut self, kind: FindingKind, offset: Offset, message: &str) {
        let tenant = Some(self.log.name.to_string());
        self.findings.push(Finding { tenant, offset: Some(offset.0), event_id: None, kind, message: message.into() });
    }
}
