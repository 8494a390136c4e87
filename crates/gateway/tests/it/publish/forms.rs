//! CloudEvents in their forms, and tenants beside each other.

use super::*;

#[test]
fn cloud_events_are_taken_in_all_three_forms() {
    let server = Server::dev();
    let client = server.client();
    let structured = r#"{"specversion":"1.0","id":"s1","source":"/shop","type":"order.created","subject":"o1","time":"2026-01-02T03:04:05Z","datacontenttype":"application/json","correlationid":"c7","data":{"total": 1.10}}"#;
    let send =
        |media_type: &str, body: &str| client.send("POST", "/events", &[("content-type", media_type)], body.as_bytes());
    let answer = send("application/cloudevents+json; charset=utf-8", structured).expect(201).json();
    assert_eq!((&answer["eventId"], &answer["sequenceNumber"]), (&json!("s1"), &json!(1)));
    let shown = client.get("/events/s1").expect(200);
    assert_eq!(data_of(shown.text()), r#"{"total": 1.10}"#);
    let shown = shown.json();
    assert_eq!((&shown["source"], &shown["aggregateId"]), (&json!("/shop"), &json!("o1")));
    assert_eq!(
        (&shown["timestamp"], &shown["metadata"]),
        (&json!("2026-01-02T03:04:05.000Z"), &json!({ "correlationId": "c7" }))
    );
    // Binary: attributes in headers, percent-encoded; the body is the data. The same event sent again is known.
    let binary = [
        JSON,
        ("ce-specversion", "1.0"),
        ("ce-id", "b1"),
        ("ce-source", "/shop"),
        ("ce-type", "com.example.OrderShipped"),
        ("ce-subject", "caf%C3%A9 1"),
    ];
    client.send("POST", "/events", &binary, b" [1.10] ").expect(201);
    client.send("POST", "/events", &binary, b"[1.10]").expect(200);
    let shown = client.get("/events/b1").expect(200);
    assert_eq!(data_of(shown.text()), "[1.10]");
    let shown = shown.json();
    assert_eq!(
        (&shown["eventType"], &shown["aggregateId"]),
        (&json!("com.example.order_shipped"), &json!("caf\u{e9} 1"))
    );
    assert_eq!(shown["metadata"]["originaltype"], "com.example.OrderShipped");
    // No data is null; an id that does not fit becomes one that does, the same each time.
    let strange = r#"{"specversion":"1.0","id":"not ours.","source":"/shop","type":"order.created"}"#;
    let first = send("application/cloudevents+json", strange).expect(201).json();
    assert_eq!(send("application/cloudevents+json", strange).expect(200).json()["eventId"], first["eventId"]);
    let shown = client.get(&format!("/events/{}", first["eventId"].as_str().unwrap())).expect(200).json();
    assert_eq!((&shown["data"], &shown["metadata"]["originalid"]), (&Value::Null, &json!("not ours.")));
    // A batch.
    let batch = format!("[{structured},{}]", structured.replace("s1", "s2"));
    let answer = send("application/cloudevents-batch+json", &batch).expect(201).json();
    assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(1), &json!(1)));
}

#[test]
fn tenants_do_not_meet() {
    let server = Server::dev();
    let (one, other) = (server.client().tenant("one"), server.client().tenant("other"));
    let body = r#"{"eventId":"e1","eventType":"a.b","aggregateId":"x","data":1}"#;
    for client in [&one, &other] {
        let answer = client.post("/events", body).expect(201).json();
        assert_eq!((&answer["offset"], &answer["sequenceNumber"]), (&json!(1), &json!(1)));
    }
    one.publish(r#"{"eventId":"mine","eventType":"a.b","data":1}"#);
    other.get("/events/mine").expect(404);
    assert_eq!(other.get("/events").expect(200).json()["data"].as_array().unwrap().len(), 1);
}
