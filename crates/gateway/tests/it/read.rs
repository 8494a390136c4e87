//! Reading the log back: filters, pages, times, aggregates, against a model that a child could check.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::http::Client;
use crate::support::server::Server;

const TYPES: [&str; 6] =
    ["order.created", "order.item.added", "orders.created", "cart.closed", "order.shipped", "cart.item.added"];
const CHANNELS: [&str; 4] = ["user:1", "user:2", "team:\u{fc}", "all"];
const AGGREGATES: [&str; 4] = ["a", "b/c", "d e", "\u{e9}%25"];

/// What the model keeps of an event.
struct Kept {
    offset: u64,
    json: Value,
}

impl Kept {
    fn event_type(&self) -> &str {
        self.json["eventType"].as_str().unwrap()
    }

    fn carries(&self, channels: &[&str]) -> bool {
        self.json["channels"].as_array().into_iter().flatten().any(|own| channels.contains(&own.as_str().unwrap()))
    }
}

fn publish_random(client: &Client, count: usize) -> Vec<Kept> {
    let mut chance = Chance::new(7);
    let mut kept = Vec::new();
    while kept.len() < count {
        let events: Vec<Value> = (0..=chance.below(9))
            .map(|_| {
                let mut event = json!({ "eventType": chance.one_of(&TYPES), "data": chance.below(1_000) });
                if chance.below(3) > 0 {
                    event["aggregateId"] = (*chance.one_of(&AGGREGATES)).into();
                }
                let channels: Vec<_> = (0..chance.below(3)).map(|_| *chance.one_of(&CHANNELS)).collect();
                event["channels"] = json!(channels);
                event
            })
            .collect();
        let answer = client.post("/events", json!(events).to_string()).expect(201).json();
        let results = answer["results"].as_array().unwrap();
        kept.extend(events.into_iter().zip(results).map(|(mut json, result)| {
            json["sequenceNumber"] = result["sequenceNumber"].clone();
            json["eventId"] = result["eventId"].clone();
            Kept { offset: result["offset"].as_u64().unwrap(), json }
        }));
    }
    kept
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        write!(out, "%{byte:02X}").unwrap();
        out
    })
}

/// All offsets behind `path`, page by page.
fn pages(client: &Client, path: &str) -> Vec<u64> {
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let after = cursor.map_or(String::new(), |cursor: String| format!("&after={cursor}"));
        let page = client.get(&format!("{path}{after}")).expect(200).json();
        let items = page["data"].as_array().unwrap();
        assert!(page["nextCursor"].is_null() || !items.is_empty(), "an empty page promises more");
        seen.extend(items.iter().map(|event| event["offset"].as_u64().unwrap()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return seen,
        }
        assert!(seen.len() < 10_000, "{path} never ends");
    }
}

fn expected(kept: &[Kept], takes: impl Fn(&Kept) -> bool) -> Vec<u64> {
    kept.iter().filter(|event| takes(event)).map(|event| event.offset).collect()
}

type Takes = Box<dyn Fn(&Kept) -> bool>;

#[test]
fn filters_and_pages_show_what_a_naive_reader_would_find() {
    let server = Server::dev();
    let client = server.client();
    let kept = publish_random(&client, 300);
    let of = |wanted: &'static str| -> Takes { Box::new(move |event: &Kept| event.json["aggregateId"] == wanted) };
    let cases: Vec<(String, Takes)> = vec![
        (String::new(), Box::new(|_| true)),
        ("types=*".into(), Box::new(|_| true)),
        ("types=order.created".into(), Box::new(|event| event.event_type() == "order.created")),
        ("types=order.*".into(), Box::new(|event| event.event_type().starts_with("order."))),
        ("types=order.item.*".into(), Box::new(|event| event.event_type() == "order.item.added")),
        (
            "eventTypes=cart.closed,order.shipped".into(),
            Box::new(|event| ["cart.closed", "order.shipped"].contains(&event.event_type())),
        ),
        (
            "types=cart.*&eventTypes=order.created".into(),
            Box::new(|event| event.event_type() == "order.created" || event.event_type().starts_with("cart.")),
        ),
        ("types=nothing.*".into(), Box::new(|_| false)),
        ("types=tidings.*".into(), Box::new(|_| false)),
        ("channels=user:1".into(), Box::new(|event| event.carries(&["user:1"]))),
        (
            format!("channels=user%3A2,{}", encoded("team:\u{fc}")),
            Box::new(|event| event.carries(&["user:2", "team:\u{fc}"])),
        ),
        ("channels=user".into(), Box::new(|_| false)),
        ("aggregateId=a".into(), of("a")),
        (format!("aggregateId={}", encoded("\u{e9}%25")), of("\u{e9}%25")),
        ("aggregateId=d+e".into(), of("d e")),
        ("aggregateId=A".into(), Box::new(|_| false)),
        (
            "types=order.*&channels=user:1,all&aggregateId=a".into(),
            Box::new(|event| {
                event.event_type().starts_with("order.")
                    && event.carries(&["user:1", "all"])
                    && event.json["aggregateId"] == "a"
            }),
        ),
        ("types=&channels=&aggregateId=".into(), Box::new(|_| true)),
    ];
    for (query, takes) in &cases {
        let up = expected(&kept, takes);
        for limit in [7, 250] {
            assert_eq!(pages(&client, &format!("/events?{query}&limit={limit}")), up, "{query}");
            let down: Vec<_> = up.iter().rev().copied().collect();
            assert_eq!(pages(&client, &format!("/events?{query}&limit={limit}&order=desc")), down, "{query}, down");
        }
    }
    // `after` is exclusive, both ways.
    for after in [0, 1, 150, 299, 300, 1_000_000, u64::MAX] {
        let up = expected(&kept, |event| event.offset > after);
        assert_eq!(pages_after(&client, "asc", after), up[..up.len().min(250)]);
        let mut down = expected(&kept, |event| event.offset < after);
        down.reverse();
        assert_eq!(pages_after(&client, "desc", after), down[..down.len().min(250)]);
    }
}

/// One page of the largest size.
fn pages_after(client: &Client, order: &str, after: u64) -> Vec<u64> {
    let page = client.get(&format!("/events?limit=250&order={order}&after={after}")).expect(200).json();
    page["data"].as_array().unwrap().iter().map(|event| event["offset"].as_u64().unwrap()).collect()
}

#[test]
fn an_aggregate_is_read_by_its_numbers_both_ways() {
    let server = Server::dev();
    let client = server.client();
    let kept = publish_random(&client, 300);
    for aggregate in AGGREGATES {
        let own: Vec<&Kept> = kept.iter().filter(|event| event.json["aggregateId"] == aggregate).collect();
        for (order, wanted) in [("asc", (1..=own.len()).collect::<Vec<_>>()), ("desc", (1..=own.len()).rev().collect())]
        {
            let (mut numbers, mut after) = (Vec::new(), String::new());
            loop {
                let path = format!("/aggregates/{}/events?order={order}&limit=20{after}", encoded(aggregate));
                let page = client.get(&path).expect(200).json();
                for event in page["data"].as_array().unwrap() {
                    assert_eq!(event["aggregateId"], aggregate);
                    let same = kept.iter().find(|kept| kept.json["eventId"] == event["eventId"]).unwrap();
                    assert_eq!(event["data"], same.json["data"]);
                    numbers.push(usize::try_from(event["sequenceNumber"].as_u64().unwrap()).unwrap());
                }
                let Some(next) = page["nextCursor"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(numbers, wanted, "{aggregate} {order}");
        }
    }
    assert_eq!(client.get("/aggregates/none/events").expect(200).json(), json!({ "data": [], "nextCursor": null }));
}

#[test]
fn times_mean_when_the_log_took_it() {
    let server = Server::dev();
    let client = server.client();
    let recorded =
        |id: &str| client.get(&format!("/events/{id}")).expect(200).json()["recordedAt"].as_str().unwrap().to_owned();
    for number in 0..4 {
        // When it happened, as the producer says, is something else.
        client.publish(&format!(
            r#"{{"eventId":"e{number}","eventType":"a.b","timestamp":"1999-01-01T00:00:00Z","data":1}}"#
        ));
        let first = recorded(&format!("e{number}"));
        // The next one is recorded in another millisecond.
        crate::support::until("the clock", std::time::Duration::from_secs(1), || {
            let probe = client.publish(r#"{"eventType":"probe.made","data":1}"#);
            let id = probe["eventId"].as_str().unwrap().to_owned();
            (recorded(&id) > first).then_some(())
        });
    }
    let seen = |query: &str| -> Vec<String> {
        let page = client.get(&format!("/events?types=a.b&{query}")).expect(200).json();
        page["data"].as_array().unwrap().iter().map(|event| event["eventId"].as_str().unwrap().to_owned()).collect()
    };
    let (second, third) = (recorded("e1"), recorded("e2"));
    assert_eq!(seen(&format!("since={second}")), ["e1", "e2", "e3"], "since is inclusive");
    assert_eq!(seen(&format!("until={third}")), ["e0", "e1"], "until is exclusive");
    assert_eq!(seen(&format!("since={second}&until={third}")), ["e1"]);
    assert_eq!(seen(&format!("since={second}&until={third}&order=desc")), ["e1"]);
    assert_eq!(seen(&format!("since={third}&until={second}")), [""; 0]);
    assert_eq!(seen("until=2000-01-01T00:00:00Z"), [""; 0]);
    assert_eq!(seen("since=2000-01-01T00:00:00%2B02:00"), ["e0", "e1", "e2", "e3"]);
    assert_eq!(seen("since=2000-01-01T00:00:00+02:00"), ["e0", "e1", "e2", "e3"], "a bare + of a zone");
    assert_eq!(seen("since=2999-01-01T00:00:00Z"), [""; 0]);
}

#[test]
fn a_log_that_was_never_written_to_is_empty() {
    let server = Server::dev();
    let client = server.client();
    for path in
        ["/events", "/events?order=desc&types=a.b&since=2000-01-01T00:00:00Z", "/aggregates/x/events", "/webhooks"]
    {
        assert_eq!(client.get(path).expect(200).json(), json!({ "data": [], "nextCursor": null }), "{path}");
    }
    client.get("/events/e1").expect(404);
}

#[test]
fn what_was_acknowledged_is_read_by_whoever_asks_next() {
    let server = Server::dev();
    let client = server.client();
    for number in 0..100 {
        client.publish(&format!(r#"{{"eventId":"e{number}","eventType":"a.b","aggregateId":"x","data":{number}}}"#));
        client.get(&format!("/events/e{number}")).expect(200);
        let last = client.get("/events?order=desc&limit=1").expect(200).json();
        assert_eq!(last["data"][0]["data"], number);
    }
}
