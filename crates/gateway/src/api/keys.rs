//! `/keys`: API keys over the API.

use http::StatusCode;
use serde_json::json;
use tidings_core::key::{ApiKey, Scope};
use tidings_core::tenant::TenantName;

use super::body::{self, answer};
use super::call::Call;
use super::kinds;
use super::page::{self, limit};
use super::problem::Problem;
use super::routes::Answer;
use crate::clock;
use crate::control::keys::{NewKey, listing};

pub(crate) async fn create(mut call: Call) -> Answer {
    let mut new: NewKey = body::json(&mut call).await?;
    let operator = call.principal.tenant.is_none();
    new.check(clock::now()).map_err(body::faulty)?;
    if new.tenant.is_none() && !new.scopes.contains(&Scope::Admin) {
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
    if !call.principal.reaches(new.channels.as_deref()) {
        return Err(Problem::new(&kinds::FORBIDDEN, "this key is confined to channels, so are the keys it makes"));
    }
    if let Some(end) = call.principal.expires_at.filter(|end| new.expires_at.is_none_or(|wanted| wanted > *end)) {
        let detail = format!("this key expires, so do the keys it makes: send an expiresAt of {end} at the latest");
        return Err(Problem::new(&kinds::FORBIDDEN, detail));
    }
    let environment = &call.app.settings.environment;
    let (record, key) = call.app.keys.create(&*call.app.store, environment, new, &call.principal.actor).await?;
    let mut shown = listing(&record);
    shown["key"] = key.into();
    Ok(answer(StatusCode::CREATED, shown.to_string()))
}

pub(crate) async fn list(call: Call) -> Answer {
    let limit = limit(&call)?;
    let after = page::after(&call, ApiKey::is_id)?.unwrap_or_default();
    let mut found = call.app.keys.list(owner(&call).as_ref(), after);
    found.retain(|record| call.principal.reaches(record.channels.as_deref()));
    let (page, next) = page::cut(&found, limit, |record| record.id.to_string());
    let items: Vec<_> = page.iter().map(|record| listing(record).to_string().into_bytes()).collect();
    Ok(page::render(&items, next))
}

pub(crate) async fn revoke(call: Call) -> Answer {
    let id = call.path_value()?;
    let (store, owner) = (&*call.app.store, owner(&call));
    let record = call.app.keys.get(owner.as_ref(), &id);
    if !record.is_some_and(|record| call.principal.reaches(record.channels.as_deref())) {
        return Err(Problem::not_found("key"));
    }
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
