//! The end of a server: in order, in time, and what was acknowledged is kept.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::http::Client;
use crate::support::problem::slug;
use crate::support::server::Server;
use crate::support::sse::Stream;
use crate::support::{Stop, until};

/// Publishes with four hands until `body` is done; ids of what was acknowledged.
fn under_load(client: &Client, body: impl FnOnce()) -> Vec<String> {
    let (stop, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for hand in 0..4 {
            let (stop, acknowledged) = (&stop, &acknowledged);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = format!("h{hand}n{number}");
                    let event = format!(r#"{{"eventId":"{id}","eventType":"a.b","aggregateId":"g{hand}","data":1}}"#);
                    match client.try_send("POST", "/events", &[("content-type", "application/json")], event.as_bytes())
                    {
                        Ok(answer) if answer.status == 201 => acknowledged.lock().unwrap().push(id),
                        // Its fate is unknown, or it was refused: no promise was made.
                        Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
            });
        }
        let _stop = Stop(&stop);
        until("load", Duration::from_secs(20), || (acknowledged.lock().unwrap().len() > 200).then_some(()));
        body();
    });
    acknowledged.into_inner().unwrap()
}

fn all_there(client: &Client, ids: &[String]) {
    for id in ids {
        assert_eq!(client.get(&format!("/events/{id}")).status, 200, "{id} was acknowledged and is lost");
    }
}

#[test]
fn what_was_acknowledged_before_a_stop_under_load_is_there_after_it() {
    let mut server = Server::guarded();
    let client = server.operator();
    let idle = client.connect().unwrap();
    let stream = Stream::open(&client, "/events/stream");
    let stream = std::thread::spawn(move || {
        let mut stream = stream;
        stream.rest().1
    });
    let acknowledged = under_load(&client, || {
        server.signal(Signal::TERM);
        let (status, took) = server.ended(Duration::from_secs(25));
        assert!(status.success(), "{status}");
        // Balancers get three seconds to notice; neither an idle connection nor a slow reader is waited for.
        assert!((3..12).contains(&took.as_secs()), "{took:?}");
    });
    let last = stream.join().unwrap().pop().unwrap();
    assert_eq!(last.json(), json!({ "closing": "drain" }));
    assert!(last.retry.is_none() || last.retry > Some(0));
    drop(idle);
    server.start();
    all_there(&client, &acknowledged);
    // And nothing else of that number: the aggregate's numbers are dense.
    let page = client.get("/aggregates/g0/events?order=desc&limit=1").expect(200).json();
    let sequence = page["data"][0]["sequenceNumber"].as_u64().unwrap();
    assert!(sequence >= acknowledged.iter().filter(|id| id.starts_with("h0")).count() as u64);
}

#[test]
fn what_was_acknowledged_before_a_crash_under_load_is_there_after_it() {
    let mut server = Server::dev();
    let client = server.client();
    let acknowledged = under_load(&client, || server.kill());
    server.start();
    all_there(&client, &acknowledged);
}

#[test]
fn a_stop_does_not_wait_for_an_idle_connection() {
    let mut server = Server::guarded();
    let client = server.operator();
    let idle = client.connect().unwrap();
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    server.signal(Signal::TERM);
    let (status, took) = server.ended(Duration::from_secs(25));
    assert!(status.success(), "{status}");
    // Balancers get three seconds to notice; then it goes at once.
    assert!((3..6).contains(&took.as_secs()), "{took:?}");
    drop(idle);
}

#[test]
fn a_server_that_stops_says_so_to_balancers_and_still_serves() {
    let mut server = Server::guarded();
    let client = server.operator();
    server.signal(Signal::TERM);
    let answer = until("not ready", Duration::from_secs(2), || {
        Some(client.get("/health/ready")).filter(|answer| answer.status != 200)
    });
    assert_eq!((answer.status, slug(&answer.json())), (503, "not-ready"));
    client.get("/health/live").expect(200);
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    assert!(server.ended(Duration::from_secs(10)).0.success());
}

#[test]
fn a_development_server_ends_in_a_moment() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut server = Server::dev();
        let client = server.client();
        client.publish(r#"{"eventType":"a.b","data":1}"#);
        // Open connections do not hold it: an idle one, a stream, half a request.
        let mut connection = client.connect().unwrap();
        connection.write(&client.request("GET", "/health/live", &[], None, b"")).unwrap();
        connection.answer().unwrap();
        let stream = Stream::open(&client, "/events/stream");
        server.signal(signal);
        let (status, took) = server.ended(Duration::from_secs(10));
        assert!(status.success() && took < Duration::from_secs(2), "{status} {took:?}");
        assert!(!server.data().join("control.sock").exists());
        drop((connection, stream));
    }
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    for first in [Signal::INT, Signal::TERM] {
        let mut server = Server::guarded();
        let client = server.operator();
        client.publish(r#"{"eventId":"e1","eventType":"a.b","data":1}"#);
        server.signal(first);
        until("stopping", Duration::from_secs(2), || (client.get("/health/ready").status != 200).then_some(()));
        server.signal(Signal::INT);
        let (_, took) = server.ended(Duration::from_secs(10));
        assert!(took < Duration::from_secs(1), "{took:?}");
        server.start();
        client.get("/events/e1").expect(200);
    }
}

#[test]
fn a_stream_that_is_not_read_does_not_hold_the_server() {
    let mut server = Server::dev();
    let client = server.client();
    let stalled = Stream::open(&client, "/events/stream");
    let event = json!({ "eventType": "a.b", "data": "x".repeat(100_000) }).to_string();
    let batch = format!("[{}]", vec![event; 50].join(","));
    for _ in 0..4 {
        client.post("/events", &batch).expect(201);
    }
    server.signal(Signal::TERM);
    let (status, took) = server.ended(Duration::from_secs(25));
    assert!(status.success() && took < Duration::from_secs(25), "{status} {took:?}");
    drop(stalled);
}

#[test]
fn a_request_that_never_ends_does_not_hold_the_server() {
    let mut server = Server::dev();
    let client = server.client();
    let mut half = client.connect().unwrap();
    half.write(&client.request("POST", "/events", &[("content-type", "application/json")], Some(100), b"{")).unwrap();
    client.get("/health/live").expect(200);
    server.signal(Signal::TERM);
    let (status, took) = server.ended(Duration::from_secs(25));
    assert!(status.success() && took < Duration::from_secs(25), "{status} {took:?}");
}

/// No other connection is open then: the last words of streams are waited for all the same.
#[test]
fn a_stop_waits_for_a_stream_that_takes_nothing_at_the_moment() {
    let mut server = Server::dev();
    let client = server.client();
    let stream = Stream::open(&client, "/events/stream");
    // More than the kernel holds for both ends.
    let event = json!({ "eventType": "a.b", "data": "x".repeat(200_000) }).to_string();
    (0..60).for_each(|_| drop(client.publish(&event)));
    server.signal(Signal::TERM);
    let (status, took) = server.ended(Duration::from_secs(20));
    assert!(status.success() && took > Duration::from_millis(500), "{status} after {took:?}");
    drop(stream);
}
