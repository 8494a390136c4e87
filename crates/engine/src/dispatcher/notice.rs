//! What people are told of deliveries: operational events, in the tenant's own log.

use std::sync::Arc;

use serde_json::{Value, json};
use tidings_core::event::Operational;
use tidings_core::lane::{Dead, Notice};
use tidings_core::time::Timestamp;
use tidings_log::store::{Letter, Prepared};
use tidings_log::{Append, Tenant, Write};

use super::{Env, Subscriber, Subscription};

/// Collects what a commit is to tell.
pub(super) struct Notices<'a> {
    subscription: &'a Subscription,
    env: Env,
    now: Timestamp,
    events: Vec<Prepared>,
}

impl<'a> Notices<'a> {
    pub(super) fn new(subscription: &'a Subscription, env: Env, now: Timestamp) -> Self {
        Self { subscription, env, now, events: Vec::new() }
    }

    /// Of the subscription itself.
    pub(super) fn notice(&mut self, notice: &Notice) {
        let (what, data) = match notice {
            Notice::Failing { round, reason } => {
                let last = self.subscription.settings.deactivate_after;
                ("failing", json!({"round": round, "deactivatesAtRound": last, "reason": reason}))
            }
            Notice::Recovered { rounds } => ("recovered", json!({"rounds": rounds})),
            Notice::Deactivated { reason } => ("deactivated", json!({"reason": reason})),
            Notice::Gap { first, last } => ("gap", json!({"firstOffset": first, "lastOffset": last})),
        };
        let (kind, _) = self.who();
        self.push(&format!("tidings.{kind}.{what}"), data);
    }

    /// Of a delivery that was given up.
    pub(super) fn dead(&mut self, dead: &Dead, letter: &Letter, event_id: Option<&str>) {
        let data = json!({
            "deadLetter": letter.id,
            "eventId": event_id,
            "eventType": letter.event_type,
            "offset": dead.offset,
            "attempts": dead.attempts,
            "reason": dead.reason,
        });
        self.push("tidings.delivery.dead_lettered", data);
    }

    /// Of a replay that came to its end.
    pub(super) fn replayed(&mut self, replay: &str, sent: u64) {
        self.push("tidings.replay.completed", json!({"replay": replay, "events": sent}));
    }

    /// What the subscription is called, and what kind of subscriber that is.
    fn who(&self) -> (&'static str, &str) {
        match &self.subscription.subscriber {
            Subscriber::Webhook => ("webhook", &self.subscription.id),
            Subscriber::Consumer(name) => ("consumer", name),
        }
    }

    fn push(&mut self, name: &str, mut data: Value) {
        if !self.subscription.told {
            return;
        }
        let (kind, called) = self.who();
        data[kind] = called.into();
        let mut random = [0; 26];
        (self.env.random)(&mut random);
        let (about, data) = (Some(&*self.subscription.id), data.to_string().into());
        let event = Operational { event_type: name, about, actor: None, data };
        match event.encode(self.now, random) {
            Ok(encoded) => self.events.push(Prepared::new(self.subscription.tenant, encoded)),
            Err(error) => tracing::error!(subscription = &*self.subscription.id, name, %error, "it cannot be told"),
        }
    }

    /// The write that tells all of it.
    pub(super) fn write(self, tenant: Tenant) -> Option<Write> {
        let append = Append { tenant, events: self.events, request: None };
        (!append.events.is_empty()).then_some(Write::Append(append))
    }
}

/// What is known of an event whose delivery failed.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) event_type: Arc<str>,
    pub(super) id: Arc<str>,
}
