//! Metrics, traces and logs: what they tell, and what they never tell.

mod secrets;
mod traces;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::http::Client;
use crate::support::problem::problem;
use crate::support::receiver::Receiver;
use crate::support::server::Server;
use crate::support::until;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

fn scrape(client: &Client) -> String {
    let answer = client.get("/metrics").expect(200);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    let text = answer.text().to_owned();
    assert!(text.ends_with("# EOF\n"), "{text}");
    text
}

/// The samples: what they are called, with their labels, and their values.
fn samples(text: &str) -> Vec<(&str, f64)> {
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    samples.map(|(series, value)| (series, value.parse().unwrap())).collect()
}

#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let found = samples(text).into_iter().find(|(name, _)| *name == series);
    found.unwrap_or_else(|| panic!("no {series} in {text}")).1
}

#[track_caller]
fn wait_for(client: &Client, series: &str, wanted: f64) {
    until(series, Duration::from_secs(20), || {
        let text = scrape(client);
        ((value(&text, series) - wanted).abs() < 0.5).then_some(())
    });
}

#[test]
fn numbers_move_with_what_happens() {
    let server = Server::dev();
    let client = server.client();
    let before = scrape(&client);
    let receiver = Receiver::answering(|_, before| if before == 0 { 503 } else { 200 });
    let webhook = json!({"url": receiver.url(), "eventTypes": ["order.*"], "retry": {"schedule": ["100ms"]}});
    client.post("/webhooks", webhook.to_string()).expect(201);
    for number in 0..3 {
        client.publish(&format!(r#"{{"eventType":"order.created","data":{number}}}"#));
    }
    client.post("/events", "{").expect(400);
    client.get("/no/such/path").expect(404);
    client.delete("/events").expect(405);
    receiver.wait(4);
    wait_for(&client, r#"tidings_delivery_attempts_total{outcome="delivered"}"#, 3.0);
    wait_for(&client, "tidings_deliveries_in_flight", 0.0);
    let after = scrape(&client);
    let moved = |series: &str| value(&after, series) - value(&before, series);
    // The creation of the webhook is an event too.
    assert!((moved("tidings_log_events_total") - 4.0).abs() < 0.5, "{after}");
    assert!((moved("tidings_log_head_offsets") - 4.0).abs() < 0.5, "{after}");
    assert!(moved("tidings_log_commit_seconds_count") >= 4.0 && moved("tidings_log_commits_grouped_total") >= 4.0);
    let requests = |labels: &str| value(&after, &format!("tidings_http_requests_total{{{labels}}}"));
    assert!((requests(r#"method="POST",route="/events",status="2xx""#) - 3.0).abs() < 0.5);
    assert!((requests(r#"method="POST",route="/events",status="4xx""#) - 1.0).abs() < 0.5);
    assert!((requests(r#"method="any",route="unmatched",status="4xx""#) - 2.0).abs() < 0.5);
    let publishing = r#"method="POST",route="/events""#;
    assert!((value(&after, &format!("tidings_http_request_seconds_count{{{publishing}}}")) - 4.0).abs() < 0.5);
    assert!(value(&after, &format!("tidings_http_request_seconds_sum{{{publishing}}}")) > 0.0);
    assert!((value(&after, r#"tidings_delivery_attempts_total{outcome="failed"}"#) - 1.0).abs() < 0.5);
    assert!((value(&after, r#"tidings_subscriptions{state="active"}"#) - 1.0).abs() < 0.5);
    for positive in ["tidings_log_size_bytes", "tidings_log_free_bytes", "process_resident_memory_bytes"] {
        assert!(value(&after, positive) > 0.0, "{positive}");
    }
    assert!(value(&after, "process_open_fds") < value(&after, "process_max_fds"));
}

#[test]
fn whatever_is_published_or_asked_the_series_stay_the_same() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let work = |tenant: &str, number: usize| {
        let client = client.tenant(tenant);
        let webhook = json!({"url": receiver.url(), "eventTypes": [format!("t{number}.*")]});
        let made = client.post("/webhooks", webhook.to_string()).expect(201).json();
        let event =
            format!(r#"{{"eventType":"t{number}.x","aggregateId":"a{number}","channels":["c:{number}"],"data":1}}"#);
        let published = client.publish(&event);
        client.get(&format!("/events/{}", published["eventId"].as_str().unwrap())).expect(200);
        client.get(&format!("/webhooks/{}", made["id"].as_str().unwrap())).expect(200);
        client.get(&format!("/aggregates/a{number}/events?limit={}", number + 1)).expect(200);
        client.get(&format!("/no/{number}")).expect(404);
    };
    work("default", 0);
    scrape(&client);
    let before = scrape(&client);
    for number in 1..20 {
        work(&format!("tenant-{number}"), number);
    }
    receiver.wait(20);
    let after = scrape(&client);
    let series = |text: &str| samples(text).into_iter().map(|(series, _)| series.to_owned()).collect::<BTreeSet<_>>();
    let (before, after) = (series(&before), series(&after));
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(after.len() < 300, "{}", after.len());
}

#[test]
fn metrics_take_a_key_of_the_operator_unless_the_settings_open_them() {
    let server = Server::guarded();
    problem(&server.client().get("/metrics").expect(401));
    let reader = server.make_key(&["--tenant", "acme", "--scopes", "ops:read"]);
    problem(&server.client().key(&reader.text).get("/metrics").expect(403));
    scrape(&server.operator());
    let open = Server::with(false, "[metrics]\nopen = true\n");
    scrape(&open.client());
    problem(&open.client().get("/keys").expect(401));
}

#[test]
fn a_webhook_that_is_deactivated_is_logged_once_and_single_failures_are_not() {
    let (gone, failing) = (Receiver::answering(|_, _| 410), Receiver::answering(|_, _| 500));
    let mut server = Server::dev();
    let client = server.client();
    let mut ids = Vec::new();
    for receiver in [&gone, &failing] {
        let webhook = json!({"url": receiver.url(), "eventTypes": ["a.b"], "retry": {"schedule": ["100ms"]}});
        let made = client.post("/webhooks", webhook.to_string()).expect(201).json();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    wait_for(&client, r#"tidings_subscriptions{state="deactivated"}"#, 1.0);
    wait_for(&client, "tidings_dead_letters_open", 1.0);
    server.signal(rustix::process::Signal::TERM);
    server.ended(Duration::from_secs(30));
    let logs = server.stderr();
    let told: Vec<_> = logs.lines().filter(|line| line.contains("deactivated")).collect();
    assert!(told.len() == 1 && told[0].contains("WARN") && told[0].contains(&ids[0]), "{logs}");
    let quiet = |line: &str| line.contains(" INFO failing");
    assert!(logs.lines().filter(|line| line.contains(&ids[1])).all(quiet), "{logs}");
}

/// Every word in `text` that is the name of a metric.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !(char.is_ascii_lowercase() || char == '_'));
    words.filter(|word| word.starts_with("tidings_") || word.starts_with("process_")).collect()
}

#[test]
fn dashboard_and_alerts_name_metrics_that_there_are() {
    let collector = Receiver::start();
    // Outboxes are told of where there are some, also of one that cannot be read.
    let outbox = "[[outbox]]\nname = \"shop\"\nurl = \"sqlite:///nowhere/app.db\"\n";
    let server = Server::with(true, &format!("[telemetry]\notlp = \"http://{}\"\n{outbox}", collector.address));
    let client = server.client();
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    let text = scrape(&client);
    let known: BTreeSet<&str> =
        samples(&text).into_iter().map(|(series, _)| series.split('{').next().unwrap()).collect();
    for file in ["grafana-dashboard.json", "prometheus-rules.yml"] {
        let text = std::fs::read_to_string(Path::new(DEPLOY).join(file)).unwrap();
        let named = names(&text);
        assert!(named.len() > 5, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
    let guide = std::fs::read_to_string(Path::new(DEPLOY).join("../docs/guide/operations.md")).unwrap();
    let families: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let unsaid: Vec<_> = families.iter().filter(|family| !guide.contains(**family)).collect();
    assert!(unsaid.is_empty(), "the guide does not tell of {unsaid:?}");
}

#[test]
fn memory_comes_in_small_pages() {
    let server = Server::with(true, "");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_nonzero())).unwrap();
    assert!(status.contains("\nTHP_enabled:\t0\n"), "{status}");
}
