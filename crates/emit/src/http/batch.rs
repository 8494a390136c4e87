//! What an answer to a batch means for each of its events. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use tidings_core::id::EventId;

/// The log has the event.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Its id, given or made.
    pub event_id: EventId,
    /// Its place in the tenant's order.
    pub offset: u64,
    /// Its place among the events of its aggregate, from 1.
    pub sequence_number: Option<u64>,
    /// Whether the log had it already: it was published before, or an earlier try of this one arrived.
    pub duplicate: bool,
}

/// The gateway does not take the event, and would not if it were sent again: a problem (RFC 9457).
#[derive(Clone, PartialEq, Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What kind of problem, such as `/errors/event-id-conflict`.
    pub kind: String,
    /// What is wrong and the way out, for a person.
    pub detail: String,
    /// The problem as it was told, with members such as `currentSequence`.
    pub problem: Map<String, Value>,
}

/// What to do with the events of a batch.
#[derive(PartialEq, Debug)]
pub(super) enum Verdict {
    /// All are in the log, in order.
    Taken(Vec<Receipt>),
    /// These are refused, by their index; the others are to be sent again, without them.
    Refused(BTreeMap<usize, Refusal>),
    /// One of them is at fault, and nobody says which: send the halves apart.
    Split,
    /// To be sent again later, all of them.
    Again(String),
}

#[derive(Deserialize)]
struct Results {
    results: Vec<Receipt>,
}

/// Reads the answer to a batch of `count` events, 1 or more.
pub(super) fn verdict(status: u16, body: &[u8], count: usize) -> Verdict {
    match status {
        200..=299 => match serde_json::from_slice::<Results>(body) {
            Ok(Results { results }) if results.len() == count => Verdict::Taken(results),
            // Not a gateway, or half an answer: the ids make sending it again harmless.
            _ => Verdict::Again(format!("status {status} with an answer that is not a gateway's")),
        },
        408 | 429 | 500..=599 => Verdict::Again(format!("status {status}")),
        400..=499 => refused(status, body, count),
        _ => Verdict::Again(format!("status {status}, which is not a gateway's")),
    }
}

fn refused(status: u16, body: &[u8], count: usize) -> Verdict {
    let problem: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str, other: &str| problem.get(name).and_then(Value::as_str).unwrap_or(other).to_owned();
    let refusal =
        |detail: String| Refusal { status, kind: text("type", "about:blank"), detail, problem: problem.clone() };
    let whole = text("detail", "the gateway gives no reason");
    let index_of =
        |value: &Value| value.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
    let mut named = BTreeMap::new();
    if let Some(index) = problem.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok()) {
        named.insert(index, refusal(whole.clone()));
    }
    for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let told = ["pointer", "message"].map(|name| error.get(name).and_then(Value::as_str).unwrap_or_default());
        if let Some(index) = index_of(error) {
            named.entry(index).or_insert_with(|| refusal(told.join(": ")));
        }
    }
    named.retain(|index, _| *index < count);
    // Only these may be one event's fault: a key without a scope refuses all of them.
    let of_one = matches!(status, 400 | 409 | 413 | 422);
    match (named.is_empty(), of_one && count > 1) {
        (false, _) => Verdict::Refused(named),
        (true, true) => Verdict::Split,
        (true, false) => Verdict::Refused((0..count).map(|index| (index, refusal(whole.clone()))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_indexes(status: u16, body: &str, count: usize) -> Vec<usize> {
        match verdict(status, body.as_bytes(), count) {
            Verdict::Refused(named) => named.into_keys().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn receipts_come_in_the_order_of_the_events() {
        let body = br#"{"accepted":1,"duplicates":1,"results":[{"eventId":"a","offset":3,"sequenceNumber":null,"duplicate":false},{"eventId":"b","offset":1,"sequenceNumber":7,"duplicate":true}]}"#;
        let Verdict::Taken(receipts) = verdict(201, body, 2) else { panic!("not taken") };
        assert_eq!(receipts[1].sequence_number, Some(7));
        assert!(receipts[1].duplicate && !receipts[0].duplicate);
        assert!(matches!(verdict(201, body, 3), Verdict::Again(_)));
    }

    #[test]
    fn what_may_pass_is_sent_again() {
        for status in [408, 429, 500, 502, 503, 507, 301, 100] {
            assert!(matches!(verdict(status, b"{}", 1), Verdict::Again(_)), "{status}");
        }
        assert!(matches!(verdict(200, b"<html>", 1), Verdict::Again(_)));
    }

    #[test]
    fn only_the_events_at_fault_are_refused() {
        let invalid = r#"{"type":"/errors/invalid-event","detail":"x","errors":[{"index":2,"pointer":"/data","message":"no"},{"index":0,"pointer":"/a","message":"b"},{"index":99,"pointer":"","message":""}]}"#;
        assert_eq!(refused_indexes(422, invalid, 5), [0, 2]);
        assert_eq!(refused_indexes(409, r#"{"type":"/errors/event-id-conflict","detail":"taken","index":1}"#, 5), [1]);
        assert_eq!(verdict(413, b"{}", 5), Verdict::Split);
        assert_eq!(refused_indexes(413, "{}", 1), [0]);
        assert_eq!(refused_indexes(401, r#"{"detail":"no key"}"#, 3), [0, 1, 2]);
    }

    #[test]
    fn a_refusal_says_what_the_problem_says() {
        let body = br#"{"type":"/errors/sequence-conflict","detail":"read what is new","index":0,"currentSequence":4}"#;
        let Verdict::Refused(named) = verdict(409, body, 1) else { panic!("not refused") };
        let refusal = &named[&0];
        assert_eq!((refusal.kind.as_str(), refusal.detail.as_str()), ("/errors/sequence-conflict", "read what is new"));
        assert_eq!(refusal.problem["currentSequence"], 4);
    }
}
