//! The oracle: holds a log, read from its beginning, against the ledger.
//!
//! It says a promise is broken if an acknowledged event is missing, moved or renumbered; any event is there twice, was
//! never sent or has other bytes; offsets or sequence numbers have a hole; an aggregate is out of order; a batch is
//! there in part; `recordedAt` runs backwards.

use super::event::{Label, Mark};
use super::ledger::{Ledger, Naming, Numbers, Request};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

const TOLD_MAX: usize = 12;

/// An event as `GET /events` gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stored {
    pub(super) offset: u64,
    event_id: String,
    event_type: String,
    aggregate_id: Option<String>,
    sequence_number: Option<u64>,
    recorded_at: String,
    data: Box<RawValue>,
}

/// A way to break the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Breach {
    /// Acknowledged, not there.
    Lost,
    /// There, but not with the numbers of its acknowledgement.
    Moved,
    /// There more than once.
    Twice,
    /// Never sent.
    Phantom,
    /// Sent, but with other bytes or fields.
    Altered,
    /// Offsets are not dense from 1.
    Gap,
    /// Sequence numbers are not dense from 1 in the order of sending.
    Order,
    /// A batch is there in part or in another order.
    Torn,
    /// `recordedAt` went backwards.
    Clock,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "acknowledged event lost",
            Self::Moved => "acknowledged event moved",
            Self::Twice => "event there twice",
            Self::Phantom => "event never sent",
            Self::Altered => "event altered",
            Self::Gap => "offsets not dense",
            Self::Order => "sequence not dense in order",
            Self::Torn => "batch torn",
            Self::Clock => "recordedAt went backwards",
        })
    }
}

/// What the oracle found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Events in the log.
    pub events: u64,
    counts: BTreeMap<Breach, u64>,
    told: Vec<String>,
}

impl Findings {
    /// How often a promise was broken in this way.
    pub(super) fn count(&self, breach: Breach) -> u64 {
        self.counts.get(&breach).copied().unwrap_or(0)
    }

    /// The breaches in words: each kind with its number, then the first few in detail.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.counts.iter().map(|(breach, n)| format!("{breach}: {n}")).collect();
        words.extend(self.told.iter().cloned());
        words
    }

    fn tell(&mut self, breach: Breach, detail: impl FnOnce() -> String) {
        let count = self.counts.entry(breach).or_default();
        *count += 1;
        if *count <= 3 && self.told.len() < TOLD_MAX {
            self.told.push(format!("{breach}: {}", detail()));
        }
    }
}

/// Reads a log event by event. Feed it in offset order, then `finish`.
#[derive(Debug)]
pub(super) struct Oracle<'a> {
    ledger: &'a Ledger,
    cutoff: Option<Duration>,
    operational: BTreeSet<u64>,
    seen: Vec<Vec<u64>>,
    last_of_key: HashMap<u32, (u32, u64)>,
    last_offset: u64,
    last_recorded: String,
    findings: Findings,
}

impl<'a> Oracle<'a> {
    /// An oracle for `ledger`. With a `cutoff`, only acknowledgements read before it bind. `operational` are the
    /// offsets of `tidings.*` events, which a reader does not get unless it names them.
    pub(super) fn new(ledger: &'a Ledger, cutoff: Option<Duration>, operational: BTreeSet<u64>) -> Self {
        Self {
            ledger,
            cutoff,
            operational,
            seen: ledger.requests.iter().map(|request| vec![0; request.marks.len()]).collect(),
            last_of_key: HashMap::new(),
            last_offset: 0,
            last_recorded: String::new(),
            findings: Findings::default(),
        }
    }

    /// The next event of the log.
    pub(super) fn see(&mut self, event: &Stored) {
        self.findings.events += 1;
        self.check_place_in_log(event);
        let Some((mark, request, index)) = self.recognise(event) else { return };
        let offset = event.offset;
        let seen = &mut self.seen[request.no as usize][index];
        if *seen != 0 {
            let first = *seen;
            self.findings.tell(Breach::Twice, || format!("{mark:?} is at offset {first} and at {offset}"));
            return;
        }
        *seen = offset;
        self.check_fields(event, mark, request, index);
        self.check_order_of_key(event, mark);
    }

    /// The verdict, once the whole log was seen.
    pub(super) fn finish(mut self) -> Findings {
        for (request, seen) in self.ledger.requests.iter().zip(&self.seen) {
            let there = seen.iter().filter(|&&offset| offset != 0).count();
            let bound = request.ack.as_ref().is_some_and(|ack| self.cutoff.is_none_or(|cutoff| ack.at < cutoff));
            let (no, all) = (request.no, seen.len());
            if bound && there < all {
                let findings = &mut self.findings;
                for (index, _) in seen.iter().enumerate().filter(|(_, offset)| **offset == 0) {
                    findings.tell(Breach::Lost, || {
                        let numbers = request.ack.as_ref().and_then(|ack| ack.numbers.get(index));
                        format!(
                            "{:?} of request {no} ({all} events), acknowledged as {numbers:?}",
                            request.marks[index]
                        )
                    });
                }
            }
            let in_order = seen.windows(2).all(|pair| pair[0] < pair[1]);
            if there != 0 && there != all || there == all && !in_order {
                let shape = request.shape;
                self.findings.tell(Breach::Torn, || {
                    format!("{shape:?} request {no}: {there} of {all} events are there, at {seen:?}")
                });
            }
        }
        self.findings
    }

    fn check_place_in_log(&mut self, event: &Stored) {
        let mut expected = self.last_offset + 1;
        while self.operational.contains(&expected) {
            expected += 1;
        }
        let offset = event.offset;
        if offset != expected {
            self.findings.tell(Breach::Gap, || format!("offset {offset} where {expected} was due"));
        }
        self.last_offset = self.last_offset.max(offset);
        if event.recorded_at < self.last_recorded {
            let (now, last) = (&event.recorded_at, &self.last_recorded);
            self.findings.tell(Breach::Clock, || format!("{now} at offset {offset} after {last}"));
        }
        self.last_recorded.clone_from(&event.recorded_at);
    }

    /// Finds the sent event that this one is, byte for byte.
    fn recognise(&mut self, event: &Stored) -> Option<(Mark, &'a Request, usize)> {
        let (ledger, offset, text) = (self.ledger, event.offset, event.data.get());
        let excerpt = || text.chars().take(120).collect::<String>();
        let Ok(label) = serde_json::from_str::<Label>(text) else {
            self.findings.tell(Breach::Phantom, || format!("offset {offset}: {}", excerpt()));
            return None;
        };
        let (mark, place) = (label.mark(), label.place());
        let index = place.index as usize;
        let sent = ledger
            .requests
            .get(place.request as usize)
            .filter(|request| label.is_of(&ledger.run) && request.marks.get(index) == Some(&mark));
        let Some(request) = sent else {
            self.findings.tell(Breach::Phantom, || format!("offset {offset}: {}", excerpt()));
            return None;
        };
        let right = ledger.run.data(mark, request.place(index));
        if text != right {
            self.findings.tell(Breach::Altered, || format!("offset {offset}: data is {}, not {right}", excerpt()));
        }
        Some((mark, request, index))
    }

    fn check_fields(&mut self, event: &Stored, mark: Mark, request: &Request, index: usize) {
        let run = &self.ledger.run;
        let offset = event.offset;
        let right_type = super::event::Run::event_type(mark.key);
        if event.aggregate_id != run.aggregate(mark.key) || event.event_type != right_type {
            let (aggregate, kind) = (&event.aggregate_id, &event.event_type);
            self.findings.tell(Breach::Altered, || format!("offset {offset}: type {kind}, aggregate {aggregate:?}"));
        }
        let own = request.naming == Naming::OwnIds;
        if own && event.event_id != run.own_id(mark) {
            let (id, right) = (&event.event_id, run.own_id(mark));
            self.findings.tell(Breach::Altered, || format!("offset {offset}: eventId {id}, sent as {right}"));
        }
        if let Some(promised) = request.ack.as_ref().and_then(|ack| ack.numbers.get(index)) {
            let event_id = (!own).then(|| event.event_id.as_str().into());
            let found = Numbers { offset, sequence: event.sequence_number, event_id };
            if found != *promised {
                self.findings.tell(Breach::Moved, || format!("{mark:?} is {found:?}, acknowledged as {promised:?}"));
            }
        }
    }

    /// Each event follows the one last seen of its key, so that one hole is told once.
    fn check_order_of_key(&mut self, event: &Stored, mark: Mark) {
        let last = self.last_of_key.entry(mark.key).or_default();
        let due = (last.0 + 1, self.ledger.run.aggregate(mark.key).map(|_| last.1 + 1));
        let found = (mark.n, event.sequence_number);
        *last = (mark.n, event.sequence_number.unwrap_or(0));
        if found != due {
            let (key, offset) = (mark.key, event.offset);
            self.findings.tell(Breach::Order, || {
                format!("key {key} at offset {offset}: (n, sequence) is {found:?} where {due:?} was due")
            });
        }
    }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
