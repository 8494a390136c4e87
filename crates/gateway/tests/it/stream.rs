//! Server-Sent Events: live, resumed, filtered, and over restarts.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::server::Server;
use crate::support::sse::{Block, Stream};
use crate::support::{Stop, instant, until};

fn publish(client: &Client, event_type: &str, number: usize) {
    client.publish(&format!(r#"{{"eventId":"e{number}","eventType":"{event_type}","data":{number}}}"#));
}

/// A server with ten events, `a.b` and `c.d` in turn.
fn ten() -> (Server, Client) {
    let server = Server::dev();
    let client = server.client();
    for number in 1..=10 {
        publish(&client, if number % 2 == 1 { "a.b" } else { "c.d" }, number);
    }
    (server, client)
}

fn ids(stream: &mut Stream, count: usize) -> Vec<String> {
    (0..count).map(|_| stream.event().id.unwrap()).collect()
}

fn numbers(range: std::ops::RangeInclusive<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn an_event_arrives_live_in_a_frame_of_its_own() {
    let server = Server::dev();
    let client = server.client();
    let mut stream = Stream::open(&client, "/events/stream");
    assert!(stream.head.header("cache-control").unwrap().contains("no-cache"));
    assert_eq!(stream.head.header("x-accel-buffering"), Some("no"));
    assert_eq!(stream.head.header("content-encoding"), None);
    let hello = stream.next();
    assert!(hello.data.is_none() && (500..5_000).contains(&hello.retry.unwrap()), "{hello:?}");
    let event = r#"{"eventId":"e1","eventType":"a.b","aggregateId":"x","channels":["u"],"metadata":{"k":"v"},"data":{"n":1.10}}"#;
    client.publish(event);
    let block = stream.next();
    assert_eq!(block.raw.lines().count(), 2, "{block:?}");
    assert!(block.raw.starts_with("id: 1\ndata: {\"eventId\":\"e1\","), "{block:?}");
    assert!(block.raw.ends_with(",\"data\":{\"n\":1.10}}"), "{block:?}");
    let mut shown = client.get("/events/e1").expect(200).json();
    for number in ["offset", "recordedAt"] {
        shown.as_object_mut().unwrap().remove(number);
    }
    assert_eq!(block.json(), shown);
}

#[test]
fn a_stream_begins_where_the_client_says() {
    let (_server, client) = ten();
    let sixth = client.get("/events/e6").expect(200).json()["recordedAt"].as_str().unwrap().to_owned();
    let since = client.get(&format!("/events?since={sixth}&limit=1")).expect(200).json();
    let since = since["data"][0]["offset"].as_u64().unwrap();
    // The header, then lastEventId, then from; an id that is not ours is none.
    let cases: [(&str, Option<&str>, u64); 14] = [
        ("", Some("4"), 5),
        ("?lastEventId=4", None, 5),
        ("?from=4", None, 5),
        ("?from=0", None, 1),
        ("?from=earliest", None, 1),
        (&format!("?from={sixth}"), None, since),
        ("?lastEventId=7&from=2", None, 8),
        ("?lastEventId=7&from=2", Some("4"), 5),
        ("?from=earliest", Some("9"), 10),
        ("?from=earliest", Some("0"), 1),
        ("?from=3", Some("not-ours"), 4),
        ("?from=3", Some("-1"), 4),
        ("?from=3", Some("+5"), 4),
        ("?from=3", Some(&"9".repeat(300)), 4),
    ];
    for (query, header, first) in cases {
        let headers: Vec<_> = header.map(|id| ("last-event-id", id)).into_iter().collect();
        let mut stream = Stream::try_open(&client, &format!("/events/stream{query}"), &headers).unwrap();
        assert_eq!(stream.event().id, Some(first.to_string()), "{query} {header:?}");
    }
    // Without a word, and at the end of the log: what comes next.
    for query in ["", "from=latest", "from=", "from=HEAD", "lastEventId=HEAD", "from=2999-01-01T00:00:00Z"] {
        let head = client.get("/audit/head").expect(200).json()["offset"].as_u64().unwrap();
        let query = query.replace("HEAD", &head.to_string());
        let mut stream = Stream::open(&client, &format!("/events/stream?{query}"));
        stream.next();
        publish(&client, "a.b", usize::try_from(head).unwrap() + 1);
        assert_eq!(stream.event().id, Some((head + 1).to_string()), "{query}");
    }
}

#[test]
fn a_replay_ends_with_a_word_and_goes_on_live() {
    let (_server, client) = ten();
    let mut stream = Stream::open(&client, "/events/stream?from=4");
    assert_eq!(ids(&mut stream, 6), numbers(5..=10));
    assert_eq!(stream.status(), json!({ "replay": "complete", "through": 10 }));
    publish(&client, "a.b", 11);
    assert_eq!(stream.next().id.as_deref(), Some("11"));
    // Nothing to replay is a whole replay.
    assert_eq!(Stream::open(&client, "/events/stream?from=11").status()["replay"], "complete");
}

#[test]
fn filters_hold_for_what_is_replayed_and_for_what_is_live() {
    let (_server, client) = ten();
    let mut stream = Stream::open(&client, "/events/stream?from=earliest&types=a.*");
    assert_eq!(ids(&mut stream, 5), ["1", "3", "5", "7", "9"]);
    assert_eq!(stream.status(), json!({ "replay": "complete", "through": 10 }));
    client.publish(r#"{"eventType":"c.d","channels":["user:1"],"aggregateId":"x","data":11}"#);
    client.publish(r#"{"eventType":"a.b","channels":["user:2"],"aggregateId":"x","data":12}"#);
    client.publish(r#"{"eventType":"a.b","channels":["user:1"],"aggregateId":"x","data":13}"#);
    assert_eq!(ids(&mut stream, 2), ["12", "13"]);
    let mut narrow = Stream::open(&client, "/events/stream?from=earliest&types=a.*,c.d&channels=user:1&aggregateId=x");
    assert_eq!(ids(&mut narrow, 2), ["11", "13"]);
    // Operational events must be named.
    client.post("/keys", r#"{"scopes":["events:read"]}"#).expect(201);
    let mut all = Stream::open(&client, "/events/stream?from=13");
    assert_eq!(all.status()["replay"], "complete");
    let mut named = Stream::open(&client, "/events/stream?from=13&types=tidings.*");
    assert_eq!(named.event().json()["eventType"], "tidings.key.created");
}

#[test]
fn names_are_given_only_when_asked_for() {
    let (_server, client) = ten();
    for (query, name) in [("named=1", Some("a.b")), ("named=true", Some("a.b")), ("named=0", None), ("named=", None)] {
        let mut stream = Stream::open(&client, &format!("/events/stream?from=earliest&{query}"));
        assert_eq!(stream.event().event.as_deref(), name, "{query}");
    }
}

#[test]
fn line_breaks_in_data_stay_in_one_frame() {
    let server = Server::dev();
    let client = server.client();
    let mut stream = Stream::open(&client, "/events/stream");
    stream.next();
    let data =
        "{\r\n \"a\" :\r[1,\n\n2 ],\r\n\r\n\"id\": \"x\\r\\n\\nid: 99\\n\\ndata: no\", \"sep\":\"\u{2028}\u{85}\"}";
    client.publish(&format!("{{\"eventType\":\"a.b\",\"data\":{data}}}"));
    client.publish(r#"{"eventType":"a.b","data":"after"}"#);
    let block = stream.next();
    assert_eq!(block.id.as_deref(), Some("1"));
    assert_eq!(block.json()["data"], serde_json::from_str::<Value>(data).unwrap());
    assert_eq!(stream.next().json()["data"], "after");
}

#[test]
fn a_client_that_loses_the_stream_before_the_first_event_misses_none() {
    let (_server, client) = ten();
    let mut stream = Stream::open(&client, "/events/stream");
    stream.next();
    let last = stream.last_id.clone();
    drop(stream);
    publish(&client, "a.b", 11);
    assert_eq!(ids(&mut Stream::resume(&client, "/events/stream", &last), 1), ["11"]);
}

#[test]
fn heartbeats_move_the_cursor_of_a_filtered_stream_past_what_it_does_not_get() {
    let (_server, client) = ten();
    let mut filtered = Stream::open(&client, "/events/stream?from=8&types=a.b");
    let mut whole = Stream::open(&client, "/events/stream");
    let mut seen = Stream::open(&client, "/events/stream?ping=event");
    let begun = instant();
    assert_eq!(ids(&mut filtered, 1), ["9"]);
    filtered.status();
    whole.next();
    assert_eq!(seen.next().raw.lines().count(), 2);
    // Scripts learn the cursor with the first block too: the ping has it.
    assert_eq!((seen.next().event.as_deref(), seen.last_id.as_str()), (Some("ping"), "10"));
    publish(&client, "c.d", 11);
    for stream in [&mut whole, &mut seen] {
        stream.event();
    }
    let beat = filtered.next();
    assert!((14..18).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(beat.raw, ":keepalive\nid: 11");
    assert_eq!(whole.next().raw, ":keepalive");
    assert_eq!(seen.next().raw, ":keepalive");
    assert_eq!(seen.next().event.as_deref(), Some("ping"));
    let mut resumed = Stream::resume(&client, "/events/stream?types=a.b", &filtered.last_id);
    assert_eq!(resumed.status(), json!({ "replay": "complete", "through": 11 }));
}

#[test]
fn an_id_from_the_future_is_told_as_a_reset() {
    let (_server, client) = ten();
    let mut stream = Stream::resume(&client, "/events/stream", "1000");
    assert_eq!(stream.status(), json!({ "replay": "reset", "from": 11 }));
    publish(&client, "a.b", 11);
    assert_eq!(ids(&mut stream, 1), ["11"]);
}

#[test]
fn what_retention_took_is_told_as_a_gap() {
    let mut server = Server::with(true, "");
    let client = server.client();
    let events = vec![r#"{"eventType":"a.b","data":1}"#; 5_000].join("\n");
    client.send("POST", "/events", &[("content-type", "application/x-ndjson")], events.as_bytes()).expect(201);
    until("seals", Duration::from_secs(10), || {
        client.get("/audit/head").json()["sealedThrough"].as_u64().filter(|through| *through == 5_000)
    });
    server.kill();
    server.set("[retention]\nevents = 100\n");
    server.start();
    // It removes some at a time: what is there a second later too is what stays.
    let earliest = || client.get("/events?limit=1").json()["data"][0]["offset"].as_u64();
    let mut seen = (earliest(), instant());
    let first = until("retention", Duration::from_secs(20), || {
        let now = earliest();
        if now != seen.0 {
            seen = (now, instant());
        }
        now.filter(|first| *first > 1 && seen.1.elapsed() > Duration::from_secs(1))
    });
    assert!(first <= 4_901, "never more than was asked for: {first}");
    let mut stream = Stream::resume(&client, "/events/stream", "1");
    let gap = stream.status();
    assert_eq!(gap["replay"], "gap");
    // It may be removing still; what is told is where this stream goes on.
    assert_eq!(stream.event().id, Some(gap["from"].to_string()));
    assert!(gap["from"].as_u64().unwrap() >= first);
    // Who asks for the earliest gets it without a complaint.
    let mut earliest = Stream::open(&client, "/events/stream?from=earliest");
    earliest.next();
    assert!(earliest.next().is_event());
}

#[test]
fn one_stream_too_many_is_asked_to_come_back_by_an_answer_that_an_event_source_understands() {
    let server = Server::with(true, "[limits]\nstreams = 1\n");
    let client = server.client();
    let held = Stream::open(&client, "/events/stream");
    let mut refused = Stream::open(&client, "/events/stream");
    let (_, blocks) = refused.rest();
    assert!(blocks[0].retry.unwrap() >= 1_000, "{blocks:?}");
    assert_eq!(blocks[1].json(), json!({ "closing": "overloaded" }));
    drop(held);
    until("the seat", Duration::from_secs(5), || {
        Stream::open(&client, "/events/stream").next().raw.starts_with("id:").then_some(())
    });
}

#[test]
fn a_reader_that_sleeps_is_not_buffered_for() {
    let server = Server::dev();
    let client = server.client();
    let mut sleeping = Stream::open(&client, "/events/stream");
    let event = json!({ "eventType": "a.b", "data": "x".repeat(100_000) }).to_string();
    let batch = format!("[{}]", vec![event; 50].join(","));
    for _ in 0..20 {
        client.post("/events", &batch).expect(201);
    }
    // 100 MB were published; the reader gets all of it, in order, from the log.
    for number in 1..=1_000 {
        assert_eq!(sleeping.event().id, Some(number.to_string()));
    }
}

/// Follows `path` like an `EventSource`: comes back with the last id until `enough` events were seen.
fn follow(client: &Client, path: &str, enough: &AtomicU64) -> Vec<Block> {
    let mut seen: Vec<Block> = Vec::new();
    let mut last = String::new();
    let begun = instant();
    loop {
        assert!(begun.elapsed() < Duration::from_mins(1), "{} events came", seen.len());
        let headers = [("last-event-id", last.as_str())];
        let headers = if last.is_empty() { &[][..] } else { &headers[..] };
        let Ok(mut stream) = Stream::try_open(client, path, headers) else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        while let Ok(block) = stream.try_next() {
            last.clone_from(&stream.last_id);
            if block.is_event() {
                seen.push(block);
            }
            if seen.len() as u64 >= enough.load(Ordering::Relaxed) {
                return seen;
            }
        }
    }
}

#[test]
fn a_client_that_resumes_misses_nothing_and_sees_nothing_twice_over_five_restarts_under_load() {
    let mut server = Server::dev();
    let client = server.client();
    let (enough, stop) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let whole = scope.spawn(|| follow(&client, "/events/stream?from=earliest", &enough));
        let hand = scope.spawn(|| {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let event = format!(r#"{{"eventId":"n{number}","eventType":"a.b","aggregateId":"x","data":{number}}}"#);
                // Until it is acknowledged; the id makes it one event.
                until("an answer", Duration::from_secs(20), || {
                    let headers = [("content-type", "application/json")];
                    let answer = client.try_send("POST", "/events", &headers, event.as_bytes()).ok()?;
                    assert!(matches!(answer.status, 200 | 201 | 503), "{answer}");
                    (answer.status < 300).then_some(())
                });
            }
            number
        });
        for round in 0..5 {
            let before = client.get("/audit/head").expect(200).json()["offset"].as_u64().unwrap_or(0);
            until("load", Duration::from_secs(20), || {
                let now = client.get("/audit/head").expect(200).json()["offset"].as_u64().unwrap_or(0);
                (now > before + 50).then_some(())
            });
            if round % 2 == 0 {
                server.kill();
            } else {
                server.signal(Signal::TERM);
                assert!(server.ended(Duration::from_secs(25)).0.success());
            }
            server.start();
        }
        drop(stopping);
        let published = hand.join().unwrap();
        // One more wakes a reader that has seen all there is.
        enough.store(published, Ordering::Relaxed);
        client.publish(r#"{"eventType":"a.b","data":"last"}"#);
        let seen = whole.join().unwrap();
        for (index, block) in seen.iter().take(usize::try_from(published).unwrap()).enumerate() {
            assert_eq!(block.id, Some((index + 1).to_string()));
            assert_eq!(
                (&block.json()["data"], &block.json()["sequenceNumber"]),
                (&json!(index + 1), &json!(index + 1))
            );
        }
        assert!(seen.len() as u64 - published <= 1);
    });
}

#[test]
fn a_filtered_client_that_resumes_sees_each_of_its_events_once() {
    let mut server = Server::dev();
    let client = server.client();
    let enough = AtomicU64::new(60);
    std::thread::scope(|scope| {
        let filtered = scope.spawn(|| follow(&client, "/events/stream?from=earliest&types=a.b", &enough));
        for number in 1..=120 {
            publish(&client, if number % 2 == 1 { "a.b" } else { "c.d" }, number);
            if number % 40 == 0 {
                server.kill();
                server.start();
            }
        }
        let ids: Vec<_> = filtered.join().unwrap().into_iter().map(|block| block.id.unwrap()).collect();
        assert_eq!(ids, (0..60).map(|number| (number * 2 + 1).to_string()).collect::<Vec<_>>());
    });
}

/// A client that finds no room in the queue of connections tries again only after a second.
#[test]
fn clients_that_come_all_at_once_wait_for_nobody() {
    let server = Server::dev();
    server.signal(Signal::STOP);
    let connect = |_| TcpStream::connect_timeout(&server.address, Duration::from_millis(900)).unwrap();
    let connections: Vec<_> = (0..600).map(connect).collect();
    server.signal(Signal::CONT);
    drop(connections);
    server.client().get("/health/live").expect(200);
}
