//! Every change of what is managed is an event of its own: who, what, when.

use serde_json::Value;
use tidings_core::event::Operational;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_log::store::Prepared;
use tidings_log::{Append, CommitError, Store, Tenant, Unavailable, Write, Written};

use crate::clock;

/// The tenant that operators' own events belong to.
const SYSTEM: &str = "system";

/// Who changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// The holder of a key, by the key's id.
    Key(Box<str>),
    /// Somebody at the machine: the command line on the data folder.
    Operator,
    /// Anybody, on a development server.
    Development,
}

impl Actor {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Key(id) => format!("key:{id}"),
            Self::Operator => "operator".to_owned(),
            Self::Development => "development".to_owned(),
        }
    }
}

/// The number of a tenant; it is made if it is new.
pub(crate) async fn tenant(store: &dyn Store, name: &TenantName, now: Timestamp) -> Result<Tenant, CommitError> {
    if let Some(tenant) = store.tenant(name) {
        return Ok(tenant);
    }
    match &store.commit(now, vec![Write::Tenant(name.clone())]).await?[..] {
        [Written::Tenant(tenant)] => Ok(*tenant),
        other => Err(Unavailable::Trouble(format!("unexpected answer {other:?}").into()).into()),
    }
}

/// The operational event that a change is recorded as; it commits together with the change.
pub(crate) async fn event(
    store: &dyn Store,
    owner: Option<&TenantName>,
    event_type: &'static str,
    actor: &Actor,
    what: &Value,
    now: Timestamp,
) -> Result<Write, CommitError> {
    let system = TenantName::parse(SYSTEM).unwrap_or_else(|_| TenantName::default_tenant());
    let tenant = tenant(store, owner.unwrap_or(&system), now).await?;
    append(tenant, event_type, actor, what, now)
}

/// An operational event for a tenant that exists.
pub(crate) fn append(
    tenant: Tenant,
    event_type: &'static str,
    actor: &Actor,
    what: &Value,
    now: Timestamp,
) -> Result<Write, CommitError> {
    let (actor, data) = (actor.name(), what.to_string().into());
    let event = Operational { event_type, about: None, actor: Some(&actor), data };
    let encoded = event.encode(now, clock::random()).map_err(|error| Unavailable::Trouble(error.into()))?;
    Ok(Write::Append(Append { tenant, events: vec![Prepared::new(tenant, encoded)], request: None }))
}
