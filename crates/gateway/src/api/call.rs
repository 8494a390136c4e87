//! One admitted request: who asks, for which tenant, with which parameters.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, Request};
use parking_lot::Mutex;
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::key::Scope;
use tidings_core::tenant::TenantName;
use tidings_log::{CommitError, Tenant};

use super::kinds;
use super::problem::Problem;
use super::routes::{Access, Route};
use super::tickets;
use crate::app::App;
use crate::clock;
use crate::control::audit::{self, Actor};
use crate::control::keys::Principal;
use crate::control::tickets::Grant;

/// Where an operator names the tenant.
const TENANT_HEADER: &str = "tidings-tenant";
/// Values of a filter parameter.
const VALUES_MAX: usize = 100;

/// One admitted request.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) principal: Principal,
    pub(crate) tenant: TenantName,
    /// The ticket that it came with instead of a key.
    pub(crate) ticket: Option<Grant>,
    pub(crate) parts: Parts,
    /// Behind a lock only to be shared between threads; nobody waits for it.
    pub(crate) body: Mutex<Body>,
    path: &'static str,
    query: Vec<(Cow<'static, str>, String)>,
}

/// Checks key, scope, tenant and parameters, before the body is read.
pub(crate) fn admit(
    app: Arc<App>,
    route: &Route,
    trusted: Option<Principal>,
    request: Request<Body>,
) -> Result<Call, Problem> {
    let (parts, body) = request.into_parts();
    let ticket = ticket(&app, route, &parts)?;
    let principal = match (route.access, &ticket) {
        (_, Some(ticket)) => ticket.principal(),
        (Access::Open, None) => Principal { scopes: Vec::new(), ..Principal::operator(Actor::Development) },
        (Access::Needs(scope), None) => {
            let principal = authenticate(&app, trusted, &parts.headers)?;
            if !principal.may(scope) {
                return Err(Problem::lacks(scope));
            }
            principal
        }
    };
    let tenant = tenant(&principal, &parts.headers)?;
    let query = query(route, parts.uri.query().unwrap_or_default())?;
    Ok(Call { app, principal, tenant, ticket, parts, body: Mutex::new(body), path: route.path, query })
}

/// The ticket that a request for a stream brings, if it brings no key.
fn ticket(app: &App, route: &Route, parts: &Parts) -> Result<Option<Grant>, Problem> {
    if parts.headers.contains_key(AUTHORIZATION) || !route.query.contains(&tickets::PARAMETER) {
        return Ok(None);
    }
    let presented = tickets::presented(parts.uri.query().unwrap_or_default(), &parts.headers);
    let read = |text: String| app.tickets.read(&text, &app.keys, clock::now());
    presented.map(read).transpose().map_err(tickets::refused)
}

fn authenticate(app: &App, trusted: Option<Principal>, headers: &HeaderMap) -> Result<Principal, Problem> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        let trusted = trusted.ok_or_else(Problem::unauthorized)?;
        if trusted.actor == Actor::Development {
            own_page(app, headers)?;
        }
        return Ok(trusted);
    };
    let text = value.to_str().unwrap_or_default();
    let key = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    key.and_then(|(_, key)| app.keys.principal(key.trim(), clock::now())).ok_or_else(Problem::unauthorized)
}

/// Without keys, whatever page a developer opens could tell the server what it likes: those of other origins are refused,
/// and names that somebody else's DNS gives this address.
fn own_page(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    let local = name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if !local {
        let detail = "a development server answers to localhost and loopback addresses: use one of them in the URL";
        return Err(Problem::new(&kinds::FORBIDDEN, detail));
    }
    let Err(origin) = app.settings.origins.check(headers) else { return Ok(()) };
    let detail = "a development server takes nothing from pages of other origins: name this one in `cors.origins`";
    Err(Problem::new(&kinds::FORBIDDEN, detail).with("origin", String::from_utf8_lossy(origin.as_bytes())))
}

/// The key's tenant; an operator may name one.
fn tenant(principal: &Principal, headers: &HeaderMap) -> Result<TenantName, Problem> {
    let named = match headers.get(TENANT_HEADER) {
        None => None,
        Some(value) => {
            let name = TenantName::parse(value.to_str().unwrap_or_default())
                .map_err(|error| Problem::new(&kinds::INVALID_HEADER, format!("Tidings-Tenant: {error}")))?;
            Some(name)
        }
    };
    match (&principal.tenant, named) {
        (None, named) => Ok(named.unwrap_or_else(TenantName::default_tenant)),
        (Some(own), Some(named)) if *own != named => {
            let detail = "this key belongs to one tenant: leave the header Tidings-Tenant out";
            Err(Problem::new(&kinds::FORBIDDEN, detail))
        }
        (Some(own), _) => Ok(own.clone()),
    }
}

fn query(route: &Route, text: &str) -> Result<Vec<(Cow<'static, str>, String)>, Problem> {
    if let Some(part) = text.split('&').find(|part| percent_decode(part).is_none()) {
        let name = part.split('=').next().unwrap_or_default();
        return Err(Problem::parameter(name, "is not percent-encoded UTF-8 (`%` itself is `%25`)"));
    }
    let mut pairs: Vec<(Cow<'static, str>, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        let Some(known) = route.query.iter().find(|known| **known == name) else {
            let message = match route.query {
                [] => "this route takes no parameters".to_owned(),
                known => format!("unknown; this route takes {}", known.join(", ")),
            };
            return Err(Problem::parameter(&name, message));
        };
        if pairs.iter().any(|(seen, _)| seen == known) {
            return Err(Problem::parameter(&name, "given twice; separate several values by commas"));
        }
        pairs.push((Cow::Borrowed(*known), value.into_owned()));
    }
    Ok(pairs)
}

impl Call {
    /// A call of the same caller with another body and no headers: what a message of a WebSocket asks for.
    pub(crate) fn another(&self, body: Bytes) -> Self {
        Self {
            app: Arc::clone(&self.app),
            principal: self.principal.clone(),
            tenant: self.tenant.clone(),
            ticket: self.ticket.clone(),
            parts: Request::new(()).into_parts().0,
            body: Mutex::new(Body::from(body)),
            path: self.path,
            query: Vec::new(),
        }
    }

    /// A query parameter; an empty one counts as left out.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The values of a parameter that takes several, separated by commas.
    fn values<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Problem> {
        let Some(text) = self.parameter(name) else { return Ok(Vec::new()) };
        let values: Result<Vec<T>, String> = text.split(',').map(|value| parse(value.trim())).collect();
        let values = values.map_err(|error| Problem::parameter(name, error))?;
        if values.len() > VALUES_MAX {
            return Err(Problem::parameter(name, format!("at most {VALUES_MAX} values")));
        }
        Ok(values)
    }

    /// The decoded value of the first `{…}` in the route's path.
    pub(crate) fn path_value(&self) -> Result<String, Problem> {
        self.path_part(|part| part.starts_with('{'))
    }

    /// The decoded value of `{name}` in the route's path.
    pub(crate) fn path_value_of(&self, name: &str) -> Result<String, Problem> {
        self.path_part(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) == Some(name))
    }

    fn path_part(&self, wanted: impl Fn(&str) -> bool) -> Result<String, Problem> {
        let place = self.path.split('/').position(wanted);
        let raw = place.and_then(|place| self.parts.uri.path().split('/').nth(place)).unwrap_or_default();
        percent_decode(raw).ok_or_else(|| Problem::parameter("path", "is not percent-encoded UTF-8"))
    }

    /// The filter that the parameters ask for, within the walls of the key.
    pub(crate) fn filter(&self) -> Result<Filter, Problem> {
        if let Some(ticket) = &self.ticket {
            const SAID: [&str; 4] = ["types", "eventTypes", "channels", "aggregateId"];
            if let Some(name) = SAID.into_iter().find(|name| self.parameter(name).is_some()) {
                return Err(Problem::parameter(name, "the ticket says which events: leave it out"));
            }
            return Ok(ticket.filter());
        }
        let mut types = self.values("types", TypePattern::parse)?;
        types.extend(self.values("eventTypes", TypePattern::parse)?);
        self.check_types(&types)?;
        let aggregate = self.parameter("aggregateId").map(tidings_core::event::AggregateId::parse).transpose();
        Ok(Filter {
            types,
            channels: self.values("channels", tidings_core::event::Channel::parse)?,
            aggregate: aggregate.map_err(|error| Problem::parameter("aggregateId", error))?,
            confined: self.principal.channels.clone(),
        })
    }

    /// Operational events take a scope of their own.
    pub(crate) fn check_types(&self, types: &[TypePattern]) -> Result<(), Problem> {
        if types.iter().any(TypePattern::names_operational) && !self.principal.may(Scope::OpsRead) {
            let detail = "`tidings.*` events take a key with scope `ops:read`";
            return Err(Problem::new(&kinds::FORBIDDEN, detail).with("scope", Scope::OpsRead.as_str()));
        }
        Ok(())
    }

    /// The tenant's number, if anything was ever written to it.
    pub(crate) fn known_tenant(&self) -> Option<Tenant> {
        self.app.store.tenant(&self.tenant)
    }

    /// The tenant's number; it is made if it is new.
    pub(crate) async fn tenant(&self) -> Result<Tenant, CommitError> {
        audit::tenant(&*self.app.store, &self.tenant, clock::now()).await
    }
}

fn percent_decode(raw: &str) -> Option<String> {
    if !raw.contains('%') {
        return Some(raw.to_owned());
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
