//! Tells of a source that is far behind: once, and once more when that is over.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidings_core::time::Timestamp;
use tidings_log::store::{Document, Expect, Kind, Owner};
use tidings_log::{Append, Store, Write};
use tokio::time::sleep;

use super::desk::{self, Settings};
use super::meter::{Meter, State};
use super::relay::{Env, Halt};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Watches one source. It does not lean on the relay, for that may be what hangs.
pub struct Alarm {
    store: Arc<dyn Store>,
    env: Env,
    settings: Settings,
    meter: Arc<Meter>,
    /// The longest delay that is nothing to tell of. Over it is at half of that, so that it does not flutter.
    bound: Duration,
}

impl Alarm {
    /// Watches what `meter` counts.
    pub fn new(store: Arc<dyn Store>, env: Env, settings: Settings, meter: Arc<Meter>, bound: Duration) -> Self {
        Self { store, env, settings, meter, bound }
    }

    /// Runs until it is dropped.
    pub async fn run(self) {
        loop {
            if let Err(halt) = self.look().await {
                tracing::warn!(source = %self.settings.name, reason = %halt, "cannot tell how far behind an outbox is");
            }
            sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Result<(), Halt> {
        // Made by the relay before it connects.
        let Some(tenant) = self.store.tenant(&self.settings.tenant) else { return Ok(()) };
        let now = (self.env.now)();
        let measures = self.meter.measures(now);
        let reading = measures.state == State::Reading;
        let (late, over) = (measures.delay > self.bound, reading && measures.delay <= self.bound / 2);
        if !late && !over {
            return Ok(());
        }
        // Kept with what was told, so that a restart neither repeats nor forgets it.
        let id: Box<str> = format!("outbox-delayed.{}", self.settings.name).into();
        let told = self.store.get(Kind::Setting, Owner::Operator, &id).await?;
        let (event_type, data, kept) = match told {
            None if late => {
                let data = json!({
                    "source": self.settings.name,
                    "delayMs": millis(measures.delay),
                    "boundMs": millis(self.bound),
                    "state": measures.state.as_str(),
                    "reason": measures.error,
                });
                let body = now.as_millis().to_string().into_bytes();
                let document = Document { kind: Kind::Setting, owner: Owner::Operator, id, revision: 0, body };
                ("tidings.source.delayed", data, Write::Put(document, Expect::New))
            }
            Some(document) if over => {
                let since = String::from_utf8_lossy(&document.body).parse().map_or(now, Timestamp::from_millis);
                let data = json!({"source": self.settings.name, "afterMs": millis(now.since(since))});
                ("tidings.source.recovered", data, Write::Remove(Kind::Setting, Owner::Operator, id))
            }
            _ => return Ok(()),
        };
        let event = desk::notice(self.env, tenant, event_type, &data);
        let append = Write::Append(Append { tenant, events: vec![event], request: None });
        self.store.commit(now, vec![append, kept]).await?;
        Ok(())
    }
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}
