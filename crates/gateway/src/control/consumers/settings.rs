//! What a consumer is to be: what its owner sends, and the rules for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidings_core::event::{AggregateId, Channel};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::lane::{self, Ordering, Pull};
use tidings_core::retry::Schedule;

use crate::control::{Fault, check_description, duration_text};

/// How long a worker may take for a message, unless it extends that.
pub(crate) const ACK_WAIT_MIN: Duration = Duration::from_secs(1);
pub(crate) const ACK_WAIT_MAX: Duration = Duration::from_hours(12);
const RETRIES_MAX: u32 = 100;
const FILTER_ITEMS_MAX: usize = 100;

/// What a consumer is to be, as it is sent and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    #[serde(default)]
    pub(crate) event_types: Vec<TypePattern>,
    #[serde(default)]
    channels: Vec<Channel>,
    #[serde(default)]
    aggregate_id: Option<AggregateId>,
    #[serde(default)]
    description: String,
    #[serde(default = "ack_wait", with = "duration_text")]
    pub(crate) ack_wait: Duration,
    #[serde(default = "max_retries")]
    max_retries: u32,
    /// The pauses after a refusal that names none; the last one goes on for ever.
    #[serde(default = "retry")]
    retry: Schedule,
    #[serde(default)]
    ordering: Ordering,
    /// What a newer version kept: an older one loads it and leaves it alone.
    #[serde(flatten)]
    newer: Map<String, Value>,
}

fn ack_wait() -> Duration {
    Duration::from_secs(30)
}

fn max_retries() -> u32 {
    3
}

fn retry() -> Schedule {
    Schedule::new([1, 5, 30].map(Duration::from_secs).to_vec()).unwrap_or_default()
}

impl Settings {
    /// What the types do not say.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        check_description(&self.description)?;
        if !(ACK_WAIT_MIN..=ACK_WAIT_MAX).contains(&self.ack_wait) {
            return Err(("/ackWait".into(), "from 1s to 12h".to_owned()));
        }
        if self.max_retries > RETRIES_MAX {
            return Err(("/maxRetries".into(), format!("from 0 to {RETRIES_MAX}")));
        }
        for (pointer, items) in [("/eventTypes", self.event_types.len()), ("/channels", self.channels.len())] {
            if items > FILTER_ITEMS_MAX {
                return Err((pointer.into(), format!("at most {FILTER_ITEMS_MAX}")));
            }
        }
        match self.newer.keys().next() {
            Some(name) => Err((format!("/{name}").into(), "a consumer has no such member".to_owned())),
            None => Ok(()),
        }
    }

    /// Which events it wants, within walls.
    pub(super) fn filter(&self, confined: Option<&[Channel]>) -> Filter {
        Filter {
            types: self.event_types.clone(),
            channels: self.channels.clone(),
            aggregate: self.aggregate_id.clone(),
            confined: confined.map(<[Channel]>::to_vec),
        }
    }

    /// What it asks of its lane.
    pub(super) fn lane(&self) -> lane::Settings {
        lane::Settings {
            schedule: self.retry.clone(),
            ordering: self.ordering,
            pull: Some(Pull { retries_max: self.max_retries, ack_wait: self.ack_wait }),
            ..lane::Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_guide() {
        let settings: Settings = serde_json::from_value(json!({})).unwrap();
        let expected = json!({
            "eventTypes": [], "channels": [], "aggregateId": null, "description": "", "ackWait": "30s",
            "maxRetries": 3, "retry": ["1s", "5s", "30s"], "ordering": "aggregate",
        });
        assert_eq!(serde_json::to_value(&settings).unwrap(), expected);
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        for (members, pointer) in [
            (json!({"ackWait": "999ms"}), "/ackWait"),
            (json!({"ackWait": "13h"}), "/ackWait"),
            (json!({"maxRetries": 101}), "/maxRetries"),
            (json!({"shiny": 1}), "/shiny"),
        ] {
            let settings: Settings = serde_json::from_value(members).unwrap();
            assert_eq!(settings.check().unwrap_err().0, pointer);
        }
    }
}
