//! The route table: what each route needs is declared here and enforced in one place.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{MethodFilter, on};
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use tidings_core::key::Scope;

use super::call::{self, Call};
use super::problem::{self, Problem};
use super::unread;
use super::webhooks::{deliveries, orders, replays, secrets};
use super::{
    audit, consumers, dead_letters, errors, events, health, keys, metrics, openapi, publish, quarantine, stream,
    tickets, webhooks, websocket,
};
use crate::app::App;
use crate::clock;
use crate::control::audit::Actor;
use crate::control::keys::Principal;

pub(crate) type Answer = Result<Response<Body>, Problem>;
type Handler = fn(Call) -> BoxFuture<'static, Answer>;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody.
    Open,
    /// A key with the scope.
    Needs(Scope),
}

/// A route.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    /// The query parameters that it takes; others are refused.
    pub(crate) query: &'static [&'static str],
    handler: Handler,
}

impl Route {
    /// Has the request answered. Who hangs up halfway has a handler dropped that only reads or waits; one that changes
    /// things goes on to its end.
    async fn answer(&self, call: Call) -> Answer {
        let handled = (self.handler)(call);
        // A publish is one commit, and a fetch gives its messages only at its end.
        if self.method == Method::GET || matches!(self.path, "/events" | "/consumers/{name}/fetch") {
            return handled.await;
        }
        tokio::spawn(handled).await.unwrap_or_else(|panicked| Err(problem::internal(&panicked)))
    }
}

const EVENT_FILTER: &[&str] =
    &["types", "eventTypes", "channels", "aggregateId", "since", "until", "after", "order", "limit"];
const AGGREGATE_FILTER: &[&str] = &["types", "eventTypes", "since", "until", "after", "order", "limit"];
const STREAM: &[&str] =
    &["types", "eventTypes", "channels", "aggregateId", "from", "lastEventId", "named", "ping", "ticket"];
const PAGE: &[&str] = &["after", "limit"];
const DELIVERIES: &[&str] = &["status", "after", "limit"];
const DEAD_LETTERS: &[&str] = &["webhook", "consumer", "sink", "type", "since", "after", "limit"];
const QUARANTINE: &[&str] = &["source", "after", "limit"];

/// Every route of the API.
pub(crate) fn all() -> Vec<Route> {
    use Access::{Needs, Open};
    use Scope::{AuditRead, EventsErase, EventsRead, EventsWrite, KeysRead, KeysWrite, StreamsRead};
    let get = Method::GET;
    let post = Method::POST;
    let delete = Method::DELETE;
    let mut routes = vec![
        route(&post, "/events", Needs(EventsWrite), &[], |call| Box::pin(publish::publish(call))),
        route(&get, "/events", Needs(EventsRead), EVENT_FILTER, |call| Box::pin(events::list(call))),
        route(&get, "/events/stream", Needs(StreamsRead), STREAM, |call| Box::pin(stream::open(call))),
        route(&get, "/events/ws", Needs(StreamsRead), &[tickets::PARAMETER], |call| Box::pin(websocket::open(call))),
        route(&post, "/stream-tickets", Needs(StreamsRead), &[], |call| Box::pin(tickets::create(call))),
        route(&get, "/events/{eventId}", Needs(EventsRead), &[], |call| Box::pin(events::one(call))),
        route(&get, "/events/{eventId}/deliveries", Needs(EventsRead), PAGE, |call| Box::pin(events::deliveries(call))),
        route(&delete, "/events/{eventId}/data", Needs(EventsErase), &[], |call| Box::pin(events::erase(call))),
        route(&get, "/aggregates/{aggregateId}/events", Needs(EventsRead), AGGREGATE_FILTER, |call| {
            Box::pin(events::of_aggregate(call))
        }),
        route(&get, "/audit/head", Needs(AuditRead), &[], |call| Box::pin(audit::head(call))),
        route(&post, "/keys", Needs(KeysWrite), &[], |call| Box::pin(keys::create(call))),
        route(&get, "/keys", Needs(KeysRead), PAGE, |call| Box::pin(keys::list(call))),
        route(&delete, "/keys/{id}", Needs(KeysWrite), &[], |call| Box::pin(keys::revoke(call))),
        route(&get, "/health/live", Open, &[], |call| Box::pin(health::live(call))),
        route(&get, "/health/ready", Open, &[], |call| Box::pin(health::ready(call))),
        route(&get, "/health/events", Open, &[], |call| Box::pin(health::events(call))),
        route(&get, metrics::PATH, Needs(Scope::OpsRead), &[], |call| Box::pin(metrics::metrics(call))),
        route(&get, "/errors/{slug}", Open, &[], |call| Box::pin(errors::page(call))),
        route(&get, "/openapi.json", Open, &[], |call| Box::pin(openapi::document(call))),
    ];
    routes.extend(of_webhooks());
    routes.extend(of_consumers());
    routes.extend(of_dead_letters());
    routes.extend(of_sources());
    routes
}

fn of_webhooks() -> Vec<Route> {
    use Scope::WebhooksSecret;
    let read = |path, query, handler| route(&Method::GET, path, Access::Needs(Scope::WebhooksRead), query, handler);
    let write = |method, path, handler| route(&method, path, Access::Needs(Scope::WebhooksWrite), &[], handler);
    let secret = |method, path, handler| route(&method, path, Access::Needs(WebhooksSecret), &[], handler);
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    vec![
        write(post.clone(), "/webhooks", |call| Box::pin(webhooks::create(call))),
        read("/webhooks", PAGE, |call| Box::pin(webhooks::list(call))),
        read("/webhooks/{id}", &[], |call| Box::pin(webhooks::one(call))),
        write(patch, "/webhooks/{id}", |call| Box::pin(webhooks::change(call))),
        write(delete.clone(), "/webhooks/{id}", |call| Box::pin(webhooks::remove(call))),
        write(post.clone(), "/webhooks/{id}/pause", |call| Box::pin(orders::pause(call))),
        write(post.clone(), "/webhooks/{id}/resume", |call| Box::pin(orders::resume(call))),
        write(post.clone(), "/webhooks/{id}/activate", |call| Box::pin(orders::activate(call))),
        write(post.clone(), "/webhooks/{id}/test", |call| Box::pin(orders::test(call))),
        write(post.clone(), "/webhooks/{id}/replay", |call| Box::pin(replays::create(call))),
        read("/webhooks/{id}/replays", PAGE, |call| Box::pin(replays::list(call))),
        write(delete, "/webhooks/{id}/replays/{replayId}", |call| Box::pin(replays::cancel(call))),
        read("/webhooks/{id}/deliveries", DELIVERIES, |call| Box::pin(deliveries::list(call))),
        read("/webhooks/{id}/attempts", PAGE, |call| Box::pin(deliveries::attempts(call))),
        secret(get, "/webhooks/{id}/secret", |call| Box::pin(secrets::secret(call))),
        secret(post, "/webhooks/{id}/rotate-secret", |call| Box::pin(secrets::rotate(call))),
    ]
}

fn of_consumers() -> Vec<Route> {
    use Scope::{ConsumersRead, ConsumersWork, ConsumersWrite};
    let (get, post) = (Method::GET, Method::POST);
    let read = |path, query, handler| route(&get, path, Access::Needs(ConsumersRead), query, handler);
    let write = |method: &Method, path, handler| route(method, path, Access::Needs(ConsumersWrite), &[], handler);
    let work = |path, handler| route(&post, path, Access::Needs(ConsumersWork), &[], handler);
    vec![
        read("/consumers", PAGE, |call| Box::pin(consumers::list(call))),
        read("/consumers/{name}", &[], |call| Box::pin(consumers::one(call))),
        write(&Method::PUT, "/consumers/{name}", |call| Box::pin(consumers::put(call))),
        write(&Method::DELETE, "/consumers/{name}", |call| Box::pin(consumers::remove(call))),
        write(&post, "/consumers/{name}/pause", |call| Box::pin(consumers::pause(call))),
        write(&post, "/consumers/{name}/resume", |call| Box::pin(consumers::resume(call))),
        write(&post, "/consumers/{name}/seek", |call| Box::pin(consumers::seek(call))),
        work("/consumers/{name}/fetch", |call| Box::pin(consumers::work::fetch(call))),
        work("/consumers/{name}/ack", |call| Box::pin(consumers::work::ack(call))),
        work("/consumers/{name}/nack", |call| Box::pin(consumers::work::nack(call))),
        work("/consumers/{name}/extend", |call| Box::pin(consumers::work::extend(call))),
    ]
}

fn of_dead_letters() -> Vec<Route> {
    let read = |path, query, handler| route(&Method::GET, path, Access::Needs(Scope::WebhooksRead), query, handler);
    let write = |path, handler| route(&Method::POST, path, Access::Needs(Scope::WebhooksWrite), &[], handler);
    vec![
        read("/dead-letters", DEAD_LETTERS, |call| Box::pin(dead_letters::list(call))),
        read("/dead-letters/{id}", &[], |call| Box::pin(dead_letters::one(call))),
        write("/dead-letters/{id}/replay", |call| Box::pin(dead_letters::replay_one(call))),
        write("/dead-letters/replay", |call| Box::pin(dead_letters::replay(call))),
        write("/dead-letters/discard", |call| Box::pin(dead_letters::discard(call))),
    ]
}

fn of_sources() -> Vec<Route> {
    let read = |path, query, handler| route(&Method::GET, path, Access::Needs(Scope::EventsRead), query, handler);
    let write = |path, handler| route(&Method::POST, path, Access::Needs(Scope::EventsWrite), &[], handler);
    let ops = Access::Needs(Scope::OpsRead);
    vec![
        route(&Method::GET, "/outboxes", ops, &[], |call| Box::pin(quarantine::outboxes(call))),
        read("/quarantine", QUARANTINE, |call| Box::pin(quarantine::list(call))),
        read("/quarantine/{id}", &[], |call| Box::pin(quarantine::one(call))),
        write("/quarantine/{id}/replay", |call| Box::pin(quarantine::replay(call))),
        write("/quarantine/{id}/discard", |call| Box::pin(quarantine::discard(call))),
    ]
}

fn route(
    method: &Method,
    path: &'static str,
    access: Access,
    query: &'static [&'static str],
    handler: Handler,
) -> Route {
    Route { method: method.clone(), path, access, query, handler }
}

/// The API as a service. `trusted` is who asks without a key, where that is allowed.
pub(crate) fn router(app: &Arc<App>, trusted: Option<&Principal>) -> Router {
    let mut router = Router::new();
    let mut methods: Vec<(&'static str, Vec<String>)> = Vec::new();
    for route in all() {
        match methods.iter_mut().find(|(path, _)| *path == route.path) {
            Some((_, allowed)) => allowed.push(route.method.to_string()),
            None => methods.push((route.path, vec![route.method.to_string()])),
        }
        let filter = MethodFilter::try_from(route.method.clone()).unwrap_or(MethodFilter::GET);
        let path = route.path;
        let meter = app.requests.of(route.method.as_str(), path);
        let trusted = trusted.cloned().or_else(|| anybody(app, path));
        let shared = (Arc::new((route, meter)), Arc::clone(app), trusted);
        let serve = move |request: Request<Body>| {
            let (route, app, trusted) = shared.clone();
            async move {
                let began = clock::monotonic();
                let (route, meter) = &*route;
                let origin = app.settings.origins.of(request.headers());
                let origins = app.settings.origins.clone();
                let answer = match call::admit(app, route, trusted, unread::guard(request)) {
                    Ok(call) => route.answer(call).await,
                    Err(problem) => Err(problem),
                };
                let mut response = answer.unwrap_or_else(Problem::into_response);
                origins.mark(origin.as_ref(), &mut response);
                meter.record(response.status(), began.elapsed());
                response
            }
        };
        router = router.route(path, on(filter, serve));
    }
    let unmatched = app.requests.of("any", "unmatched");
    for (path, allowed) in methods {
        let meter = Arc::clone(&unmatched);
        let allowed: Arc<str> = allowed.join(", ").into();
        let origins = app.settings.origins.clone();
        let refuse = move |request: Request<Body>| {
            let preflight = origins.preflight(request.method(), request.headers(), &allowed);
            let origin = origins.of(request.headers());
            drop(unread::guard(request));
            let response = preflight.unwrap_or_else(|| {
                let mut response = Problem::method_not_allowed(&allowed).into_response();
                origins.mark(origin.as_ref(), &mut response);
                response
            });
            meter.record(response.status(), Duration::ZERO);
            async move { response }
        };
        router = router.route(path, axum::routing::any(refuse));
    }
    let origins = app.settings.origins.clone();
    router.fallback(move |request: Request<Body>| {
        let origin = origins.of(request.headers());
        drop(unread::guard(request));
        let mut response = Problem::not_found("path; `/openapi.json` lists all").into_response();
        origins.mark(origin.as_ref(), &mut response);
        unmatched.record(response.status(), Duration::ZERO);
        async move { response }
    })
}

/// Whom the settings let ask for metrics without a key.
fn anybody(app: &App, path: &str) -> Option<Principal> {
    let open = path == metrics::PATH && app.settings.telemetry.metrics_open;
    open.then(|| Principal { scopes: vec![Scope::OpsRead], ..Principal::operator(Actor::Operator) })
}
