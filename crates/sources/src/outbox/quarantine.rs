//! Rows that have not become events, kept whole in the log until somebody replays or discards them.
//!
//! A row that is *rejected* blocks its aggregate: later rows of it come here too and *wait*, so that its order holds.

use serde::{Deserialize, Serialize};
use tidings_core::chain::data_digest;
use tidings_log::store::{Document, Expect, Kind, Owner};
use tidings_log::{Store, Tenant, Unavailable, Write};

use super::row::Row;

/// Rows in quarantine, of one source; then it is read no further.
pub(super) const QUARANTINED_MAX: usize = 10_000;
/// Documents read at once.
const PAGE: usize = 500;
/// Digits of an id: of the row's number, and hexadecimal ones of its event.
const NUMBER_DIGITS: usize = 20;
const SOME_DIGITS: usize = 8;

/// A row that has not become an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The source it came from.
    pub source: Box<str>,
    /// When it was put aside, in milliseconds since 1970.
    pub at_ms: i64,
    /// What is wrong with it; empty: it waits for an earlier row of its aggregate.
    pub faults: Vec<Fault>,
    /// The row, whole.
    pub row: Row,
}

/// One thing that is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where in the event (RFC 6901).
    pub pointer: String,
    /// The rule that is broken.
    pub rule: String,
    /// What is wrong and the way out.
    pub message: String,
}

impl From<&tidings_core::problem::Violation> for Fault {
    fn from(violation: &tidings_core::problem::Violation) -> Self {
        let (pointer, message) = (violation.pointer.clone(), violation.message.clone());
        Self { pointer, rule: violation.rule.as_str().to_owned(), message }
    }
}

impl Quarantined {
    /// Its id: that of its source, a dot, the row's number, so that ids sort as rows do, and some of its event's id, for
    /// an outbox that is made anew numbers its rows from 1 again.
    pub fn id(&self) -> Box<str> {
        id_of(&self.source, &self.row)
    }

    /// Whether a text can be such an id.
    pub fn is_id(text: &str) -> bool {
        let parts = text.rsplit_once('.').and_then(|(_, row)| row.split_once('-'));
        parts.is_some_and(|(number, some)| {
            let digits = number.len() == NUMBER_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
            digits && some.len() == SOME_DIGITS && some.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    }

    /// The row that a document is of.
    pub fn parse(document: &Document) -> Result<Self, Unavailable> {
        serde_json::from_slice(&document.body)
            .map_err(|error| Unavailable::Trouble(format!("quarantined row {}: {error}", document.id).into()))
    }

    pub(super) fn put(&self, tenant: Tenant) -> Write {
        let document = Document {
            kind: Kind::Quarantined,
            owner: Owner::Tenant(tenant),
            id: self.id(),
            revision: 0,
            // A row is texts and numbers: they always have a JSON form.
            body: serde_json::to_vec(self).unwrap_or_default(),
        };
        Write::Put(document, Expect::Any)
    }

    pub(super) fn remove(&self, tenant: Tenant) -> Write {
        Write::Remove(Kind::Quarantined, Owner::Tenant(tenant), self.id())
    }

    pub(super) fn waits(&self) -> bool {
        self.faults.is_empty()
    }
}

pub(super) fn id_of(source: &str, row: &Row) -> Box<str> {
    let digest = data_digest(&[0; 16], row.event_id.as_deref().unwrap_or_default().as_bytes());
    let some = digest[..4].iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    format!("{source}.{:0NUMBER_DIGITS$}-{some:0SOME_DIGITS$x}", row.number).into()
}

/// All rows of a source that are in quarantine, by number.
pub(super) async fn all(store: &dyn Store, tenant: Tenant, source: &str) -> Result<Vec<Quarantined>, Unavailable> {
    let prefix = format!("{source}.");
    let mut rows = Vec::new();
    let mut after: Box<str> = prefix.clone().into();
    loop {
        let page = store.list(Kind::Quarantined, Some(Owner::Tenant(tenant)), &after, PAGE).await?;
        let ours = page.iter().take_while(|document| document.id.starts_with(&prefix)).count();
        for document in &page[..ours] {
            rows.push(Quarantined::parse(document)?);
        }
        match page.last() {
            Some(last) if ours == page.len() => after = last.id.clone(),
            _ => return Ok(rows),
        }
    }
}
