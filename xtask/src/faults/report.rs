//! What a fault found: facts, violations, one verdict.

use serde_json::{Map, Value, json};
use std::fmt::Display;
use std::time::Duration;

const SHOWN_MAX: usize = 20;

/// The outcome of one fault.
#[derive(Debug)]
pub(super) struct Report {
    fault: &'static str,
    facts: Map<String, Value>,
    violations: Vec<String>,
}

impl Report {
    /// An empty one, which passes.
    pub(super) fn new(fault: &'static str, seed: u64) -> Self {
        let mut facts = Map::new();
        facts.insert("seed".to_owned(), seed.into());
        Self { fault, facts, violations: Vec::new() }
    }

    /// Notes a figure.
    pub(super) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Notes a time, in milliseconds.
    pub(super) fn millis(&mut self, name: &str, time: Duration) {
        self.fact(name, u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    /// Notes that a promise was broken.
    pub(super) fn violation(&mut self, what: impl Display) {
        self.violations.push(what.to_string());
    }

    /// Notes several, each behind the name of the place where it was seen.
    pub(super) fn violations(&mut self, place: &str, all: impl IntoIterator<Item = String>) {
        self.violations.extend(all.into_iter().map(|what| format!("{place}: {what}")));
    }

    /// Whether nothing was broken.
    pub(super) fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// The summary for programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "fault": self.fault,
            "verdict": if self.passed() { "pass" } else { "fail" },
            "facts": self.facts,
            "violations": self.violations,
        })
    }

    /// The verdict for people: what was broken, and one line at the end.
    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> =
            self.violations.iter().take(SHOWN_MAX).map(|what| format!("  broken: {what}")).collect();
        if self.violations.len() > SHOWN_MAX {
            lines.push(format!("  … and {} more", self.violations.len() - SHOWN_MAX));
        }
        let facts: Vec<String> = self.facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let verdict = if self.passed() { "PASS" } else { "FAIL" };
        lines.push(format!("{verdict} {} {}", self.fault, facts.join(" ")));
        lines.join("\n")
    }
}
