//! How far an outbox has been read, as it is kept in the log.

use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::outbox::ReadError;

/// Everything that `seen` shows has become events; and of what `page` shows beyond that, the rows up to a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) seen: Snapshot,
    /// A difference that is too large for one batch.
    pub(super) page: Option<Page>,
    pub(super) identity: Identity,
    /// How far a slot has been read, if one is: what it tells of transactions that `seen` shows was read from the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<At>,
}

/// What a slot told has become events up to a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct At {
    /// Another one after it was made anew.
    pub(super) slot: String,
    pub(super) place: Place,
}

/// In what a slot tells: behind all transactions whose commit record begins before `commit`, and behind so many rows and
/// messages of the one whose record begins there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) commit: u64,
    pub(super) within: u32,
}

/// Within the difference to `until`: rows through number `after` are done, `last` is the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) until: Snapshot,
    pub(super) after: i64,
    pub(super) last: i64,
}

/// Which database this was, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Of the cluster: another one after a dump was restored.
    pub(super) system: String,
    /// Of its history: another one after a failover or a restore to a point in time.
    pub(super) timeline: String,
    /// Of the outbox: another one after it was made anew.
    pub(super) install: String,
    /// Counted up in the source from time to time: a smaller one says that its files were taken back.
    pub(super) mark: i64,
    /// How often it was read from its beginning. The source forgets it in a crash.
    pub(super) era: i64,
}

impl Position {
    /// Before everything.
    pub(super) fn beginning() -> Self {
        Self { seen: Snapshot::nothing(), page: None, identity: Identity::default(), at: None }
    }

    pub(super) fn parse(text: &str) -> Result<Self, ReadError> {
        serde_json::from_str(text).map_err(|error| ReadError::Trouble(format!("the kept position: {error}")))
    }

    pub(super) fn text(&self) -> Box<str> {
        // Texts and numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}
