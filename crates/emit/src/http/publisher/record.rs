//! A publisher for tests, which publishes nowhere.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{PublishError, Publisher, Receipt, Way};
use crate::event::Checked;
use crate::testing::Emissions;

/// What a publisher that publishes nowhere was given.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    texts: Vec<String>,
    heads: HashMap<String, u64>,
}

impl Publisher {
    /// One for tests: it publishes nowhere, says yes to everything that keeps the rules, and remembers it.
    pub fn recording() -> (Self, Record) {
        let record = Record::default();
        (Self { way: Way::Record(record.clone()) }, record)
    }
}

impl Record {
    /// What was published so far.
    pub fn emissions(&self) -> Emissions {
        Emissions::read(self.0.lock().texts.clone())
    }

    pub(super) fn note(&self, checked: &Checked, answer: oneshot::Sender<Result<Receipt, PublishError>>) {
        let mut state = self.0.lock();
        state.texts.push(String::from_utf8_lossy(&checked.text).into_owned());
        let offset = state.texts.len() as u64;
        let sequence_number = checked.draft.aggregate.as_ref().map(|aggregate| {
            let head = state.heads.entry(aggregate.to_string()).or_default();
            *head += 1;
            *head
        });
        // An error: nobody waits for it.
        let _ = answer.send(Ok(Receipt { event_id: checked.id.clone(), offset, sequence_number, duplicate: false }));
    }
}
