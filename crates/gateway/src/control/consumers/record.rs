//! What is kept of a consumer, and what is shown of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidings_core::circuit::Status;
use tidings_core::event::Channel;
use tidings_core::filter::Filter;
use tidings_core::id::uuid_v7;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_engine::dispatcher::LaneStatus;

use super::settings::Settings;
use crate::clock;

/// What is kept of a consumer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Names its subscription; one that is made anew has another.
    pub(crate) id: Box<str>,
    /// Unique in its tenant.
    pub(crate) name: Box<str>,
    pub(crate) tenant: TenantName,
    pub(crate) created_at: Timestamp,
    pub(crate) start: Offset,
    pub(crate) settings: Settings,
    /// The only channels it sees: those of the key that made it.
    pub(crate) confined: Option<Vec<Channel>>,
    /// What a newer version kept.
    #[serde(flatten)]
    newer: Map<String, Value>,
}

impl Record {
    pub(super) fn new(
        (tenant, name): (TenantName, Box<str>),
        settings: Settings,
        start: Offset,
        confined: Option<Vec<Channel>>,
        now: Timestamp,
    ) -> Self {
        let id = format!("cns_{}", uuid_v7(now, clock::random()).simple()).into();
        Self { id, name, tenant, created_at: now, start, settings, confined, newer: Map::new() }
    }

    /// Which events it gets.
    pub(crate) fn filter(&self) -> Filter {
        self.settings.filter(self.confined.as_deref())
    }

    /// What the audit trail tells of it.
    pub(super) fn told(&self) -> Value {
        let mut shown = json!({ "name": self.name, "createdAt": self.created_at, "startFrom": self.start });
        if let (Value::Object(shown), Ok(Value::Object(settings))) = (&mut shown, serde_json::to_value(&self.settings))
        {
            shown.extend(settings);
        }
        shown
    }

    /// That, and how it stands; `out` deliveries are with workers.
    pub(super) fn listing(&self, lane: Option<LaneStatus>, out: usize) -> Value {
        let mut shown = self.told();
        let lane = lane.unwrap_or_default();
        let since = match &lane.standing.status {
            Status::Paused { since } | Status::Deactivated { since, .. } => *since,
            Status::Active => self.created_at,
        };
        shown["status"] = lane.standing.status.name().into();
        shown["since"] = json!(since);
        shown["lag"] = lane.lag.into();
        shown["inFlight"] = out.into();
        shown["pending"] = lane.pending.into();
        shown["deadLetters"] = lane.dead.into();
        shown
    }
}
