//! `/keys`: API keys over the API.

use http::StatusCode;
use serde_json::json;
use tidings_core::key::Scope;
use tidings_core::tenant::TenantName;

use super::body::{self, answer};
use super::call::Call;
use super::kinds;
use super::page::limit;
use super::problem::Problem;
use super::routes::Answer;
use crate::control::keys::{NewKey, listing};

pub(crate) async fn create(mut call: Call) -> Answer {
    let mut new: NewKey = body::json(&mut call).await?;
    let operator = call.principal.tenant.is_none();
    if new.scopes.is_empty() {
        return Err(body::invalid("/scopes: name at least one scope"));
    }
    if new.scopes.contains(&Scope::Admin) {
        if new.tenant.is_some() {
            return Err(body::invalid("/tenant: an operator's key (scope `admin`) belongs to no tenant"));
        }
    } else if new.tenant.is_none() {
        new.tenant = Some(call.tenant.clone());
    }
    // Nobody gives away more than it has.
    let foreign = !operator && new.tenant.as_ref() != call.principal.tenant.as_ref();
    let missing = new.scopes.iter().find(|scope| !call.principal.may(**scope));
    if foreign || missing.is_some() {
        let detail = match missing {
            Some(scope) => format!("this key has no scope `{scope}`, so it cannot give it away"),
            None => "this key makes keys of its own tenant only".to_owned(),
        };
        return Err(Problem::new(&kinds::FORBIDDEN, detail));
    }
    if let Some(walls) = &call.principal.channels {
        let inside = new.channels.as_ref().is_some_and(|wanted| wanted.iter().all(|channel| walls.contains(channel)));
        if !inside {
            return Err(Problem::new(&kinds::FORBIDDEN, "this key is confined to channels, so are the keys it makes"));
        }
    }
    let environment = &call.app.settings.environment;
    let (record, key) = call.app.keys.create(&*call.app.store, environment, new, &call.principal.actor).await?;
    let mut shown = listing(&record);
    shown["key"] = key.into();
    Ok(answer(StatusCode::CREATED, shown.to_string()))
}

pub(crate) async fn list(call: Call) -> Answer {
    limit(&call)?;
    let shown: Vec<_> = call.app.keys.list(owner(&call).as_ref()).iter().map(|record| listing(record)).collect();
    Ok(answer(StatusCode::OK, json!({ "data": shown, "nextCursor": null }).to_string()))
}

pub(crate) async fn revoke(call: Call) -> Answer {
    let id = call.path_value()?;
    let (store, owner) = (&*call.app.store, owner(&call));
    if call.app.keys.revoke(store, owner.as_ref(), &id, &call.principal.actor).await? {
        Ok(answer(StatusCode::OK, json!({ "id": id, "revoked": true }).to_string()))
    } else {
        Err(Problem::not_found("key"))
    }
}

/// Whose keys the call speaks of: the tenant's, or the operators' own if an operator names no tenant.
fn owner(call: &Call) -> Option<TenantName> {
    let named = call.parts.headers.contains_key("tidings-tenant");
    (call.principal.tenant.is_some() || named).then(|| call.tenant.clone())
}
