//! What an answer to `POST /events` says: yes with numbers, not now, or something the contract does not allow.

use super::http::Reply;
use super::ledger::{Naming, Numbers, Request, Shape};
use serde::Deserialize;

/// The meaning of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// Acknowledged: the numbers of each event, in order.
    Yes(Vec<Numbers>),
    /// Refused for now, the outcome unknown: to be repeated.
    NotNow,
    /// Against the contract, and why.
    Wrong(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct One {
    event_id: Box<str>,
    offset: u64,
    sequence_number: Option<u64>,
    duplicate: bool,
}

#[derive(Debug, Deserialize)]
struct Many {
    accepted: usize,
    duplicates: usize,
    results: Vec<One>,
}

/// Reads the answer to `request`.
pub(super) fn read(request: &Request, reply: &Reply) -> Answer {
    match reply.status {
        200 | 201 => read_yes(request, reply).map_or_else(Answer::Wrong, Answer::Yes),
        // A repetition can meet its own first sending still at work.
        409 if request.naming == Naming::IdempotencyKey => Answer::NotNow,
        429 | 500..=599 => Answer::NotNow,
        _ => Answer::Wrong("was not to be refused".to_owned()),
    }
}

fn read_yes(request: &Request, reply: &Reply) -> Result<Vec<Numbers>, String> {
    let results = if request.shape == Shape::Single {
        vec![
            serde_json::from_slice::<One>(&reply.body)
                .map_err(|error| format!("has an unreadable answer ({error})"))?,
        ]
    } else {
        let many: Many =
            serde_json::from_slice(&reply.body).map_err(|error| format!("has an unreadable answer ({error})"))?;
        let doubles = many.results.iter().filter(|one| one.duplicate).count();
        // A replayed answer is the first one, whatever is new by now.
        if many.accepted + many.duplicates != many.results.len() || many.duplicates != doubles {
            return Err(format!("counts {} and {} do not fit its results", many.accepted, many.duplicates));
        }
        many.results
    };
    if results.len() != request.marks.len() {
        return Err(format!("has {} results for {} events", results.len(), request.marks.len()));
    }
    let own = request.naming == Naming::OwnIds;
    let numbers = results.into_iter().map(|one| Numbers {
        offset: one.offset,
        sequence: one.sequence_number,
        event_id: (!own).then_some(one.event_id),
    });
    Ok(numbers.collect())
}

/// Why an answer to a repeated request does not say that it is one, if it does not.
pub(super) fn not_told_as_repetition(request: &Request, reply: &Reply) -> Option<&'static str> {
    if request.naming == Naming::IdempotencyKey {
        let told = reply.header("idempotency-replayed") == Some("true");
        return (!told).then_some("was repeated, but its answer has no Idempotency-Replayed");
    }
    if reply.status != 200 {
        return Some("was repeated, nothing was new, but its answer is not 200");
    }
    let told = match request.shape {
        Shape::Single => serde_json::from_slice::<One>(&reply.body).is_ok_and(|one| one.duplicate),
        _ => serde_json::from_slice::<Many>(&reply.body).is_ok_and(|many| many.accepted == 0),
    };
    (!told).then_some("was repeated, but its answer does not say so")
}
