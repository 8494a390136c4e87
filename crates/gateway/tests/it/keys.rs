//! Keys: who may do what, whose things are seen, and what is never shown.

mod confined;
mod folder;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::{Answer, Client};
use crate::support::problem::{problem, slug};
use crate::support::server::Server;
use crate::support::sse::Stream;
use crate::support::{Stop, instant, until};

/// The routes of the document that the server itself shows: method, path, scope.
fn routes(client: &Client) -> Vec<(String, String, Option<String>)> {
    let document = client.get("/openapi.json").expect(200).json();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let scope = operation["x-scope"].as_str().map(str::to_owned);
            routes.push((method.to_uppercase(), path.clone(), scope));
        }
    }
    routes
}

/// A path with something in its places.
fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "some" } else { part }).collect::<Vec<_>>().join("/")
}

fn call(client: &Client, method: &str, path: &str) -> Answer {
    client.send(method, path, &[("content-type", "application/json")], if method == "POST" { b"{}" } else { b"" })
}

#[test]
fn every_route_but_the_open_ones_asks_for_a_key() {
    let server = Server::guarded();
    let client = server.client();
    let key = server.make_key(&["--tenant", "acme", "--scopes", "events:read"]);
    let (front, secret) = key.text.rsplit_once('_').unwrap();
    let other = server.make_key(&["--tenant", "acme", "--scopes", "events:read"]);
    let other_secret = other.text.rsplit_once('_').unwrap().1;
    let bad = [
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer x".to_owned(),
        format!("Basic {}", key.text),
        key.text.clone(),
        format!("Bearer {front}_{other_secret}"),
        format!("Bearer {front}_{}", &secret[1..]),
        format!("Bearer {front}_{secret}a"),
        format!("Bearer {front}_"),
        format!("Bearer {}", key.text.to_uppercase()),
        format!("Bearer {}", key.text.replace("tdg_live", "tdg_test")),
        format!("Bearer {}", key.text.replace(&key.id, "aaaaaaaaaaaaaaaa")),
        format!("Bearer {},{}", key.text, key.text),
        "Bearer sch\u{f6}n".to_owned(),
    ];
    let mut open = BTreeSet::new();
    for (method, path, scope) in routes(&client) {
        if scope.is_none() {
            open.insert(path);
            continue;
        }
        let path = filled(&path);
        let without = call(&client, &method, &path);
        assert_eq!((without.status, slug(&problem(&without))), (401, "unauthorized"), "{method} {path}");
        assert_eq!(without.header("www-authenticate"), Some("Bearer"));
        for value in &bad {
            let refused = call(&client.with("authorization", value), &method, &path);
            assert_eq!((refused.status, &refused.body), (401, &without.body), "{method} {path} {value}");
        }
    }
    assert_eq!(
        Vec::from_iter(open),
        ["/errors/{slug}", "/health/events", "/health/live", "/health/ready", "/openapi.json"]
    );
}

#[test]
fn every_route_takes_the_scope_that_it_is_listed_with() {
    let server = Server::guarded();
    let all = "events:write events:read events:erase streams:read webhooks:read webhooks:write webhooks:secret \
               consumers:read consumers:write consumers:work keys:read keys:write audit:read ops:read";
    let all: Vec<_> = all.split_whitespace().collect();
    let mut with = BTreeMap::new();
    let mut without = BTreeMap::new();
    for scope in &all {
        let others: Vec<_> = all.iter().copied().filter(|other| other != scope).collect();
        let key = |scopes: &str| server.client().key(&server.make_key(&["--tenant", "acme", "--scopes", scopes]).text);
        with.insert(*scope, key(scope));
        without.insert(*scope, key(&others.join(",")));
    }
    for (method, path, scope) in routes(&server.client()) {
        let Some(scope) = scope.as_deref() else { continue };
        let path = filled(&path);
        let refused = call(&without[scope], &method, &path);
        let told = problem(&refused);
        assert_eq!((refused.status, slug(&told), &told["scope"]), (403, "forbidden", &json!(scope)), "{method} {path}");
        assert!(told["detail"].as_str().unwrap().contains(scope), "{refused}");
        if path == "/events/stream" {
            Stream::open(&with[scope], &path);
        } else {
            let answer = call(&with[scope], &method, &path);
            assert!(told_apart(&answer), "{method} {path} with {scope}: {answer}");
        }
    }
}

/// Whether the scope was enough: what comes then may be another refusal.
fn told_apart(answer: &Answer) -> bool {
    answer.status != 401 && (answer.status != 403 || answer.json().get("scope").is_none())
}

#[test]
fn what_belongs_to_another_tenant_is_as_if_it_were_not_there() {
    // A development server knows keys too, and takes webhooks.
    let server = Server::dev();
    let tenant = |name: &str| {
        let scopes = "events:write,events:read,events:erase,streams:read,webhooks:read,webhooks:write,webhooks:secret,keys:read,keys:write,audit:read,ops:read";
        server.client().key(&server.make_key(&["--tenant", name, "--scopes", scopes]).text)
    };
    let (owner, other) = (tenant("one"), tenant("other"));
    let settings = r#"{"url":"http://127.0.0.1:9/hooks","retry":{"schedule":["100ms"]}}"#;
    let webhook = owner.post("/webhooks", settings).expect(201).json();
    owner.publish(r#"{"eventId":"secret-event","eventType":"a.b","aggregateId":"x","data":"canary"}"#);
    let letter = until("a dead letter", Duration::from_secs(10), || {
        owner.get("/dead-letters").expect(200).json()["data"][0]["id"].as_str().map(str::to_owned)
    });
    let letter = letter.as_str();
    let key = owner.post("/keys", r#"{"scopes":["events:read"]}"#).expect(201).json();
    let (webhook, key) = (webhook["id"].as_str().unwrap(), key["id"].as_str().unwrap());
    let paths = [
        ("GET", "/events/*".to_owned(), "secret-event"),
        ("GET", "/events/*/deliveries".to_owned(), "secret-event"),
        ("DELETE", "/events/*/data".to_owned(), "secret-event"),
        ("GET", "/webhooks/*".to_owned(), webhook),
        ("GET", "/webhooks/*/secret".to_owned(), webhook),
        ("GET", "/webhooks/*/deliveries".to_owned(), webhook),
        ("GET", "/webhooks/*/attempts".to_owned(), webhook),
        ("GET", "/webhooks/*/replays".to_owned(), webhook),
        ("PATCH", "/webhooks/*".to_owned(), webhook),
        ("POST", "/webhooks/*/pause".to_owned(), webhook),
        ("POST", "/webhooks/*/resume".to_owned(), webhook),
        ("POST", "/webhooks/*/activate".to_owned(), webhook),
        ("POST", "/webhooks/*/test".to_owned(), webhook),
        ("POST", "/webhooks/*/replay".to_owned(), webhook),
        ("POST", "/webhooks/*/rotate-secret".to_owned(), webhook),
        ("DELETE", "/webhooks/*/replays/rp_0".to_owned(), webhook),
        ("GET", "/dead-letters/*".to_owned(), letter),
        ("POST", "/dead-letters/*/replay".to_owned(), letter),
        ("DELETE", "/webhooks/*".to_owned(), webhook),
        ("DELETE", "/keys/*".to_owned(), key),
    ];
    for (method, path, id) in &paths {
        let foreign = call(&other, method, &path.replace('*', id));
        let unknown = call(&other, method, &path.replace('*', &"a".repeat(id.len())));
        assert_eq!((foreign.status, slug(&problem(&foreign))), (404, "not-found"), "{method} {path}");
        assert_eq!(foreign.body, unknown.body, "{method} {path}");
        assert_eq!(
            foreign.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            unknown.headers.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
    }
    for path in ["/events?types=*,tidings.*", "/aggregates/x/events", "/webhooks", "/dead-letters"] {
        let seen = other.get(path).expect(200);
        for canary in ["secret-event", "canary", webhook, letter] {
            assert!(!seen.text().contains(canary), "{path}: {seen}");
        }
    }
    assert!(!other.get("/keys").expect(200).text().contains(key));
    // Bulk requests reach no further.
    assert_eq!(other.post("/dead-letters/replay", r#"{"filter":{}}"#).expect(200).json()["replayed"], 0);
    let filter = json!({ "filter": { "webhook": webhook }, "reason": "mine" }).to_string();
    assert_eq!(other.post("/dead-letters/discard", &filter).expect(200).json()["discarded"], 0);
    let named = json!({ "filter": { "ids": [letter] } }).to_string();
    assert_eq!(other.post("/dead-letters/replay", &named).status, 422);
    // The header names no other tenant.
    let refused = other.tenant("one").get("/events");
    assert_eq!((refused.status, slug(&problem(&refused))), (403, "forbidden"));
    other.tenant("other").get("/events").expect(200);
    // It is all still there.
    for (method, path, id) in &paths {
        if *method == "GET" {
            call(&owner, method, &path.replace('*', id)).expect(200);
        }
    }
}

#[test]
fn an_operator_speaks_of_the_tenant_that_it_names() {
    let server = Server::guarded();
    let operator = server.operator();
    operator.tenant("acme").publish(r#"{"eventId":"e1","eventType":"a.b","data":1}"#);
    operator.tenant("acme").get("/events/e1").expect(200);
    operator.get("/events/e1").expect(404);
    operator.tenant("nobody").get("/events").expect(200);
    operator.publish(r#"{"eventId":"e2","eventType":"a.b","data":1}"#);
    operator.tenant("default").get("/events/e2").expect(200);
}

#[test]
fn a_revoked_key_opens_nothing_from_the_answer_on() {
    let server = Server::guarded();
    let operator = server.operator();
    for way in ["api", "command line"] {
        let key = server.make_key(&["--tenant", "acme", "--scopes", "events:read"]);
        let client = server.client().key(&key.text);
        client.get("/events").expect(200);
        let begun = instant();
        if way == "api" {
            operator.tenant("acme").delete(&format!("/keys/{}", key.id)).expect(200);
        } else {
            let data = server.data();
            let output = server.run(&["keys", "revoke", &key.id, "--tenant", "acme", "--data", data.to_str().unwrap()]);
            assert!(output.status.success(), "{output:?}");
        }
        assert_eq!(client.get("/events").status, 401, "{way}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{way}");
        assert_eq!(client.get("/events").body, server.client().get("/events").body);
        // It is gone for good.
        assert_eq!(operator.tenant("acme").delete(&format!("/keys/{}", key.id)).status, 404);
    }
}

#[test]
fn an_open_stream_ends_with_its_key_however_busy_it_is() {
    let server = Server::guarded();
    let operator = server.operator();
    let busy = server.make_key(&["--tenant", "acme", "--scopes", "streams:read"]);
    let idle = server.make_key(&["--tenant", "quiet", "--scopes", "streams:read"]);
    let dying = server.make_key(&["--tenant", "quiet", "--scopes", "streams:read", "--expires", "1s"]);
    let open = |key: &str| Stream::open(&server.client().key(key), "/events/stream");
    let streams = [open(&busy.text), open(&idle.text), open(&dying.text)];
    operator.tenant("acme").delete(&format!("/keys/{}", busy.id)).expect(200);
    operator.tenant("quiet").delete(&format!("/keys/{}", idle.id)).expect(200);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let operator = operator.tenant("acme");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                operator.publish(r#"{"eventType":"a.b","data":1}"#);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let ended: Vec<_> = streams.into_iter().map(|mut stream| scope.spawn(move || stream.rest())).collect();
        for (ended, reason) in ended.into_iter().zip(["revoked", "revoked", "expired"]) {
            let (took, blocks) = ended.join().unwrap();
            assert!(took < Duration::from_secs(5), "{took:?}");
            let told = blocks.iter().any(|block| block.raw.contains("\"expiring\":\""));
            assert_eq!(told, reason == "expired", "{blocks:?}");
            assert_eq!(blocks.last().unwrap().json(), json!({ "closing": reason }));
        }
    });
}

#[test]
fn an_expired_key_opens_nothing() {
    let server = Server::guarded();
    let key = server.make_key(&["--tenant", "acme", "--scopes", "events:read", "--expires", "1s"]);
    let client = server.client().key(&key.text);
    client.get("/events").expect(200);
    let refused =
        until("expiry", Duration::from_secs(3), || Some(client.get("/events")).filter(|answer| answer.status != 200));
    assert_eq!((refused.status, &refused.body), (401, &server.client().get("/events").body));
}

#[test]
fn a_key_gives_away_no_more_than_it_has() {
    let server = Server::guarded();
    let make = |more: &[&str]| {
        let arguments = [&["--tenant", "acme", "--scopes", "keys:write,events:read"], more].concat();
        server.client().key(&server.make_key(&arguments).text)
    };
    let plain = make(&[]);
    let confined = make(&["--channels", "a,b"]);
    let dying = make(&["--expires", "1h"]);
    let refused = [
        (&plain, r#"{"scopes":["events:write"]}"#),
        (&plain, r#"{"scopes":["events:read","audit:read"]}"#),
        (&plain, r#"{"scopes":["admin"]}"#),
        (&plain, r#"{"scopes":["events:read"],"tenant":"other"}"#),
        (&confined, r#"{"scopes":["events:read"]}"#),
        (&confined, r#"{"scopes":["events:read"],"channels":["c"]}"#),
        (&confined, r#"{"scopes":["events:read"],"channels":["a","c"]}"#),
        (&dying, r#"{"scopes":["events:read"]}"#),
        (&dying, r#"{"scopes":["events:read"],"expiresAt":"2999-01-01T00:00:00Z"}"#),
    ];
    for (client, body) in refused {
        let answer = client.post("/keys", body);
        assert_eq!((answer.status, slug(&problem(&answer))), (403, "forbidden"), "{body}");
    }
    plain.post("/keys", r#"{"scopes":["events:read"],"tenant":"acme"}"#).expect(201);
    confined.post("/keys", r#"{"scopes":["events:read"],"channels":["b"]}"#).expect(201);
    // An operational type is asked for by name, with a scope of its own.
    for path in ["/events?types=tidings.*", "/events?types=a.b,tidings.key.created"] {
        let answer = plain.get(path);
        assert_eq!((answer.status, &problem(&answer)["scope"]), (403, &json!("ops:read")), "{path}");
    }
    let operator = server.operator().tenant("acme");
    let trail = operator.get("/events?types=tidings.*").expect(200).json();
    let audited = trail["data"][0]["eventId"].as_str().unwrap();
    assert_eq!(plain.get(&format!("/events/{audited}")).status, 404);
}

#[test]
fn keys_are_listed_in_pages() {
    let server = Server::guarded();
    let operator = server.operator().tenant("acme");
    let mut made: Vec<_> = (0..7)
        .map(|_| operator.post("/keys", r#"{"scopes":["events:read"]}"#).expect(201).json()["id"].clone())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    made.sort();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = operator.get(&format!("/keys?limit=3&after={after}")).expect(200).json();
        let ids: Vec<_> =
            page["data"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect();
        assert!(ids.len() <= 3);
        seen.extend(ids);
        match page["nextCursor"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, made);
}

#[test]
fn what_is_changed_is_audited_with_who_did_it() {
    let server = Server::guarded();
    let operator = server.operator();
    let made = operator.post("/keys", r#"{"scopes":["keys:write","events:read"],"tenant":"acme"}"#).expect(201).json();
    let id = made["id"].as_str().unwrap();
    let holder = server.client().key(made["key"].as_str().unwrap());
    let child = holder.post("/keys", r#"{"scopes":["events:read"]}"#).expect(201).json();
    let child = child["id"].as_str().unwrap();
    holder.delete(&format!("/keys/{child}")).expect(200);
    let trail = operator.tenant("acme").get("/events?types=tidings.*").expect(200).json();
    let trail: Vec<_> = trail["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            (
                event["eventType"].as_str().unwrap(),
                event["metadata"]["actor"].as_str().unwrap(),
                event["data"]["id"].as_str().unwrap(),
            )
        })
        .collect();
    let actor = format!("key:{id}");
    assert_eq!(trail[1..], [("tidings.key.created", &*actor, child), ("tidings.key.revoked", &*actor, child)]);
    assert_eq!((trail[0].0, trail[0].2), ("tidings.key.created", id));
    assert!(trail[0].1.starts_with("key:"));
    // Operators' keys are the system's business.
    let system = operator.tenant("system").get("/events?types=tidings.*").expect(200).json();
    assert_eq!(system["data"][0]["metadata"]["actor"], "operator");
}
