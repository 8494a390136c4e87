//! What is told once is kept once, byte for byte, and answered with its place.

mod forms;

use std::collections::BTreeSet;
use std::sync::Barrier;

use serde_json::{Value, json};

use crate::support::http::{Answer, Client};
use crate::support::problem::{problem, slug};
use crate::support::server::Server;

const JSON: (&str, &str) = ("content-type", "application/json");

fn head(client: &Client) -> u64 {
    client.get("/audit/head").expect(200).json()["offset"].as_u64().unwrap_or(0)
}

/// The text of `data` in an envelope that ends with the numbers of the log.
fn data_of(envelope: &str) -> &str {
    let begin = envelope.find(",\"data\":").unwrap() + 8;
    let end = envelope.rfind(",\"offset\":").unwrap_or(envelope.len() - 1);
    &envelope[begin..end]
}

fn keyed(client: &Client, key: &str, body: &str) -> Answer {
    client.send("POST", "/events", &[JSON, ("idempotency-key", key)], body.as_bytes())
}

#[test]
fn one_event_is_answered_with_its_place() {
    let server = Server::dev();
    let client = server.client();
    let first = client.post("/events", r#"{"eventType":"order.created","data":{"total":1}}"#).expect(201).json();
    let id = first["eventId"].as_str().unwrap();
    assert_eq!(first, json!({ "eventId": id, "offset": 1, "sequenceNumber": null, "duplicate": false }));
    assert_eq!((id.len(), &id[14..15]), (36, "7"), "a UUIDv7");
    let body = r#"{"eventType":"order.created","data":null,"aggregateId":"o1"}"#;
    for number in 1..=3 {
        let answer = client.post("/events", body).expect(201).json();
        assert_eq!((&answer["offset"], &answer["sequenceNumber"]), (&json!(number + 1), &json!(number)));
    }
}

#[test]
fn a_batch_is_answered_in_its_order() {
    let server = Server::dev();
    let client = server.client();
    let event = |number: usize| json!({ "eventType": "a.b", "eventId": format!("e{number}"), "data": number });
    let events: Vec<_> = (0..5).map(event).collect();
    let lines: Vec<_> = events.iter().map(ToString::to_string).collect();
    let array = client.post("/events", json!(events).to_string()).expect(201).json();
    assert_eq!((&array["accepted"], &array["duplicates"]), (&json!(5), &json!(0)));
    for (index, result) in array["results"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&result["eventId"], &result["offset"]), (&json!(format!("e{index}")), &json!(index + 1)));
    }
    // The same again as lines, with Windows line ends and an empty line: nothing is new.
    let ndjson = [("content-type", "application/x-ndjson; charset=utf-8")];
    let again = client.send("POST", "/events", &ndjson, lines.join("\r\n\r\n").as_bytes()).expect(200).json();
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(5)));
    assert_eq!(again["results"][3], json!({ "eventId": "e3", "offset": 4, "sequenceNumber": null, "duplicate": true }));
    // One of three is new.
    let mixed = format!("[{},{},{}]", lines[0], event(9), lines[4]);
    let mixed = client.post("/events", mixed).expect(201).json();
    assert_eq!((&mixed["accepted"], &mixed["duplicates"]), (&json!(1), &json!(2)));
    // An array of one is a batch, an object is not.
    let one = client.post("/events", format!("[{}]", lines[0])).expect(200).json();
    assert_eq!(one["results"][0]["duplicate"], true);
    assert_eq!(head(&client), 6);
}

#[test]
fn data_is_kept_byte_for_byte() {
    let server = Server::dev();
    let client = server.client();
    let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
    let texts = [
        "1.10",
        "1e400",
        "-0",
        "-0.0",
        "1E+2",
        "0.1000000000000000055511151231257827",
        "123456789012345678901234567890",
        "18446744073709551616",
        "null",
        "true",
        "\"\"",
        "{}",
        "[]",
        "{ \"b\" :\t1 ,\r\n \"a\" : [ 1 , 2 ] }",
        "{\"z\":1,\"a\":2,\"\":3}",
        "\"\\u0041\\/\\b\\f\\n\\r\\t\\\"\\\\\"",
        "\"\\u0000\"",
        "\"\\ud83d\\ude00 \u{1f600} \u{2028}\u{2029} e\u{301} \u{e9} \u{7f}\"",
        "{\"data\":{\"eventId\":\"x\",\"offset\":5}}",
        "{\"__proto__\":{\"constructor\":1}}",
        "\"]}\\\",\\\"offset\\\":1}\"",
        &deep,
    ];
    for (index, text) in texts.iter().enumerate() {
        let id = format!("d{index}");
        client.publish(&format!("{{\"data\": {text} ,\"eventId\":\"{id}\",\"eventType\":\"a.b\"}}"));
        let shown = client.get(&format!("/events/{id}")).expect(200);
        assert_eq!(data_of(shown.text()), *text);
    }
    let page = client.get("/events?limit=250").expect(200);
    assert_eq!(page.text().matches(",\"recordedAt\":").count(), texts.len());
    for text in texts {
        assert!(page.text().contains(&format!(",\"data\":{text},\"offset\":")), "{text}");
    }
}

#[test]
fn the_largest_data_is_taken() {
    let server = Server::dev();
    let client = server.client();
    let text = format!("\"{}\"", "x".repeat(256 * 1024 - 2));
    client.publish(&format!(r#"{{"eventType":"a.b","eventId":"large","data":{text}}}"#));
    assert_eq!(data_of(client.get("/events/large").expect(200).text()), text);
}

#[test]
fn an_envelope_comes_back_as_it_was_meant() {
    let server = Server::dev();
    let client = server.client();
    let channels: Vec<_> = (0..8).map(|number| format!("user:\u{fc}_{number}")).collect();
    let metadata: serde_json::Map<_, _> =
        (0..32).map(|number| (format!("m{number}"), "\"\u{1f600}\\".into())).collect();
    let sent = json!({
        "eventId": "A-z_0", "eventType": "order_v2.item.shipped", "version": 4_294_967_295_u32,
        "timestamp": "2026-11-22T12:15:30.1239+02:00", "source": "https://example.com/a?b#c",
        "aggregateId": "order \"67890\" \u{2713}", "channels": channels, "metadata": metadata, "data": 1,
    });
    client.publish(&sent.to_string());
    let mut shown = client.get("/events/A-z_0").expect(200).json();
    assert!(shown["recordedAt"].as_str().unwrap().ends_with('Z'));
    shown.as_object_mut().unwrap().remove("recordedAt");
    let mut expected = sent;
    expected["timestamp"] = "2026-11-22T10:15:30.123Z".into();
    expected["sequenceNumber"] = 1.into();
    expected["offset"] = 1.into();
    assert_eq!(shown, expected);
    // What is left out gets its default.
    client.publish(r#"{"eventType":"a.b","eventId":"bare","data":1}"#);
    let bare = client.get("/events/bare").expect(200).json();
    assert_eq!((&bare["version"], &bare["source"]), (&json!(1), &json!("/")));
    for absent in ["aggregateId", "sequenceNumber", "channels", "metadata"] {
        assert_eq!(bare.get(absent), None);
    }
    // A null is nothing.
    let nulls = r#"{"eventType":"a.b","data":1,"aggregateId":null,"channels":null,"metadata":null,"version":null}"#;
    client.publish(nulls);
}

#[test]
fn an_event_sent_again_is_recognised_by_its_content() {
    let server = Server::dev();
    let client = server.client();
    let first = r#"{"eventId":"e1","eventType":"a.b","aggregateId":"x","channels":["c1","c2"],"metadata":{"p":"1","q":"2"},"data":{"a":1.0,"b":[]}}"#;
    let placed = client.post("/events", first).expect(201).json();
    let mut answer = placed.clone();
    answer["duplicate"] = true.into();
    let same = [
        first,
        r#" { "data" : { "b" : [ ] , "\u0061" : 1.0 } , "metadata":{"q":"2","p":"1"},"channels":["c1","c2"],"aggregateId":"\u0078","eventType":"a.b","eventId":"e1"}"#,
        r#"{"eventId":"e1","eventType":"a.b","aggregateId":"x","channels":["c1","c2","c1"],"metadata":{"p":"1","q":"2"},"data":{"a":1.0,"b":[]}}"#,
    ];
    for text in same {
        assert_eq!(client.post("/events", text).expect(200).json(), answer, "{text}");
    }
    let other = [
        first.replace("1.0", "1.00"),
        first.replace("1.0", "1"),
        first.replace("\"a.b\"", "\"a.c\""),
        first.replace("\"x\"", "\"y\""),
        first.replace("[]", "[null]"),
        first.replace(r#"["c1","c2"]"#, r#"["c1"]"#),
        first.replace(r#""p":"1""#, r#""p":"2""#),
    ];
    for text in other {
        let refused = client.post("/events", &text);
        assert_eq!((refused.status, slug(&problem(&refused))), (409, "event-id-conflict"), "{text}");
    }
    // In a batch one conflict refuses all, twice the same makes one.
    let refused =
        client.post("/events", r#"[{"eventType":"a.b","data":1},{"eventId":"e1","eventType":"a.b","data":2}]"#);
    assert_eq!((refused.status, &problem(&refused)["index"]), (409, &json!(1)));
    let twice = r#"[{"eventId":"e2","eventType":"a.b","data":1},{"eventId":"e2","eventType":"a.b","data":1}]"#;
    let twice = client.post("/events", twice).expect(201).json();
    assert_eq!((&twice["accepted"], &twice["duplicates"]), (&json!(1), &json!(1)));
    let quarrel = r#"[{"eventId":"e3","eventType":"a.b","data":1},{"eventId":"e3","eventType":"a.b","data":2}]"#;
    client.post("/events", quarrel).expect(409);
    assert_eq!(head(&client), 2);
}

#[test]
fn a_request_sent_again_by_its_key_gets_the_first_answer() {
    let mut server = Server::dev();
    let client = server.client();
    let body = r#"{"eventType":"a.b","aggregateId":"x","expectedSequence":0,"data":1}"#;
    let first = keyed(&client, "k1", body).expect(201);
    assert_eq!(first.header("idempotency-replayed"), None);
    // It is checked first: expectedSequence would not fit any more.
    let again = keyed(&client, "k1", body);
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "{again}");
    assert_eq!(again.json()["offset"], first.json()["offset"]);
    assert_eq!(again.json()["eventId"], first.json()["eventId"]);
    // A quoted key is the same one (RFC 8941); another path, tenant or key is another request.
    assert_eq!(keyed(&client, "\"k1\"", body).header("idempotency-replayed"), Some("true"));
    keyed(&client.tenant("other"), "k1", body).expect(201);
    keyed(&client, "k2", body).expect(409);
    // Another body, even one that means the same.
    for other in [r#"{"eventType":"a.b","data":2}"#, &format!(" {body}")] {
        let refused = keyed(&client, "k1", other);
        assert_eq!((refused.status, slug(&problem(&refused))), (422, "idempotency-key-reused"));
    }
    // What was refused is not an answer to keep.
    keyed(&client, "k3", "{").expect(400);
    keyed(&client, "k3", r#"{"eventType":"a.b","data":3}"#).expect(201);
    // A batch comes back whole, also after a crash.
    let batch = r#"[{"eventType":"a.b","data":4},{"eventType":"a.b","data":5}]"#;
    let first = keyed(&client, "k4", batch).expect(201).json();
    server.kill();
    server.start();
    let again = keyed(&client, "k4", batch);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    for index in 0..2 {
        assert_eq!(again.json()["results"][index]["eventId"], first["results"][index]["eventId"]);
        assert_eq!(again.json()["results"][index]["offset"], first["results"][index]["offset"]);
    }
    assert_eq!(head(&client), 4);
}

#[test]
fn an_event_is_appended_only_after_the_number_it_expects() {
    let server = Server::dev();
    let client = server.client();
    let append = |expected: u64| {
        client.post(
            "/events",
            format!(r#"{{"eventType":"a.b","aggregateId":"x","expectedSequence":{expected},"data":1}}"#),
        )
    };
    let current = |answer: Answer| {
        let problem = problem(&answer);
        assert_eq!((answer.status, slug(&problem)), (409, "sequence-conflict"));
        problem["currentSequence"].clone()
    };
    assert_eq!(current(append(1)), 0);
    append(0).expect(201);
    assert_eq!(current(append(0)), 1);
    append(1).expect(201);
    // Within a batch each counts those before it.
    let item = |number: u64| json!({ "eventType": "a.b", "aggregateId": "x", "expectedSequence": number, "data": 1 });
    client.post("/events", json!([item(2), item(3)]).to_string()).expect(201);
    let refused = client.post("/events", json!([item(4), item(4)]).to_string());
    assert_eq!(problem(&refused)["index"], 1);
    assert_eq!(head(&client), 4);
    // Of many that expect the same, one wins.
    let barrier = Barrier::new(8);
    let won = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    append(4).status
                })
            })
            .collect();
        tries.into_iter().map(|each| each.join().unwrap()).filter(|status| *status == 201).count()
    });
    assert_eq!((won, head(&client)), (1, 5));
}

/// Sends `body` 200 times at once; how many were answered as new, and all ids.
fn at_once(server: &Server, headers: &[(&str, &str)], body: &str) -> (usize, BTreeSet<String>) {
    const TIMES: usize = 200;
    let barrier = Barrier::new(TIMES);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..TIMES)
            .map(|_| {
                scope.spawn(|| {
                    let client = server.client();
                    let mut connection = client.connect().unwrap();
                    let request = client.request("POST", "/events", headers, Some(body.len()), body.as_bytes());
                    barrier.wait();
                    connection.write(&request).unwrap();
                    connection.answer().unwrap()
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 201)), "{}", answers[0]);
    let replayed = |answer: &Answer| answer.header("idempotency-replayed").is_some();
    let new = answers.iter().filter(|answer| answer.status == 201 && !replayed(answer)).count();
    let ids = answers.iter().map(|answer| answer.json()["eventId"].as_str().unwrap().to_owned()).collect();
    (new, ids)
}

#[test]
fn two_hundred_equal_requests_at_once_make_one_event() {
    let server = Server::dev();
    let client = server.client();
    let named = r#"{"eventId":"once","eventType":"a.b","aggregateId":"x","data":{"n":1}}"#;
    assert_eq!(at_once(&server, &[JSON], named), (1, BTreeSet::from(["once".to_owned()])));
    assert_eq!(head(&client), 1);
    let unnamed = r#"{"eventType":"a.b","aggregateId":"x","data":{"n":2}}"#;
    let (new, ids) = at_once(&server, &[JSON, ("idempotency-key", "once")], unnamed);
    assert_eq!((new, ids.len()), (1, 1));
    assert_eq!(head(&client), 2);
    let last = client.get("/aggregates/x/events?order=desc&limit=1").expect(200).json();
    assert_eq!(last["data"][0]["sequenceNumber"], 2);
}

#[test]
fn ten_thousand_events_are_one_request() {
    let server = Server::dev();
    let client = server.client();
    let line = r#"{"eventType":"order.created","aggregateId":"x","data":{"total":42}}"#;
    let ndjson = [("content-type", "application/x-ndjson")];
    let answer = client.send("POST", "/events", &ndjson, vec![line; 10_000].join("\n").as_bytes()).expect(201).json();
    assert_eq!((&answer["accepted"], head(&client)), (&json!(10_000), 10_000));
    assert_eq!(answer["results"][9_999]["sequenceNumber"], 10_000);
}

#[test]
fn a_body_in_chunks_is_taken() {
    let server = Server::dev();
    let client = server.client();
    let body = r#"{"eventType":"a.b","eventId":"chunked","data":"0123456789"}"#;
    let mut connection = client.connect().unwrap();
    let headers = [JSON, ("transfer-encoding", "chunked")];
    connection.write(&client.request("POST", "/events", &headers, None, b"")).unwrap();
    for piece in body.as_bytes().chunks(7) {
        connection.write(format!("{:x}\r\n{}\r\n", piece.len(), str::from_utf8(piece).unwrap()).as_bytes()).unwrap();
    }
    connection.write(b"0\r\n\r\n").unwrap();
    connection.answer().unwrap().expect(201);
    // The connection is good for more.
    connection.write(&client.request("GET", "/events/chunked", &[], None, b"")).unwrap();
    assert_eq!(data_of(connection.answer().unwrap().expect(200).text()), "\"0123456789\"");
}
