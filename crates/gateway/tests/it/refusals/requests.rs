//! Requests that are not right: their form, their parameters, their size, and what they name.

use super::*;

#[test]
fn a_request_of_the_wrong_form_is_refused() {
    let good = r#"{"eventType":"order.created","data":1}"#;
    let post = |kind, names| Case::new("POST", "/events", kind, names);
    let long = "k".repeat(256);
    check(&[
        post(MEDIA, "text/plain").body("text/plain", good),
        post(MEDIA, "application/xml").body("application/xml", good),
        post(MEDIA, "form-urlencoded").body("application/x-www-form-urlencoded", good),
        post(MEDIA, "compressed").body(JSON, good).header("content-encoding", "gzip"),
        post(HEADER, "Idempotency-Key").body(JSON, good).header("idempotency-key", ""),
        post(HEADER, "Idempotency-Key").body(JSON, good).header("idempotency-key", "\"\""),
        post(HEADER, "Idempotency-Key").body(JSON, good).header("idempotency-key", &long),
        post(HEADER, "Idempotency-Key").body(JSON, good).header("idempotency-key", "sch\u{f6}n"),
        post(HEADER, "Tidings-Tenant").body(JSON, good).header("tidings-tenant", "Acme Prod"),
        post(HEADER, "Tidings-Tenant").body(JSON, good).header("tidings-tenant", ""),
        Case::new("POST", "/events?dry=1", PARAMETER, "dry").body(JSON, good),
        Case::new("POST", "/keys", MEDIA, "application/json").body("text/plain", "{}"),
        Case::new("POST", "/webhooks", MEDIA, "application/json").body("text/plain", "{}"),
        Case::new("GET", "/", MISSING, "openapi.json"),
        Case::new("GET", "/event", MISSING, "path"),
        Case::new("GET", "/events/", MISSING, ""),
        Case::new("GET", "//events", MISSING, "path"),
        Case::new("GET", "/events/../events", MISSING, ""),
        Case::new("PUT", "/events", METHOD, "GET").body(JSON, good),
        Case::new("PATCH", "/events", METHOD, "POST").body(JSON, good),
        Case::new("DELETE", "/events", METHOD, "POST"),
        Case::new("POST", "/events/stream", METHOD, "GET"),
        Case::new("OPTIONS", "/webhooks", METHOD, "GET"),
        Case::new("POST", "/events/there", METHOD, "GET").body(JSON, good),
        Case::new("BREW", "/events", METHOD, "GET"),
    ]);
}

#[test]
fn a_parameter_that_is_not_known_or_not_right_is_refused_by_name() {
    let events = [
        ("typ=order.created", "typ"),
        ("TYPES=order.created", "TYPES"),
        ("types=order", "types"),
        ("types=order.*,", "types"),
        ("types=*.created", "types"),
        ("eventTypes=Order.created", "eventTypes"),
        ("types=a.b&types=a.c", "types"),
        ("channels=,", "channels"),
        ("channels=a%00", "channels"),
        ("aggregateId=a%00", "aggregateId"),
        ("aggregateId=%ff", "aggregateId"),
        ("since=yesterday", "since"),
        ("until=2026-01-01", "until"),
        ("since=5", "since"),
        ("after=x", "after"),
        ("after=-1", "after"),
        ("after=1.0", "after"),
        ("after=99999999999999999999", "after"),
        ("order=up", "order"),
        ("order=ASC", "order"),
        ("limit=0", "limit"),
        ("limit=251", "limit"),
        ("limit=1000000", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=%2B5", "limit"),
        ("cursor=5", "cursor"),
    ];
    let mut cases: Vec<_> =
        events.iter().map(|(query, names)| Case::new("GET", format!("/events?{query}"), PARAMETER, names)).collect();
    let others = [
        ("/aggregates/a/events?limit=251", "limit"),
        ("/aggregates/a/events?aggregateId=b", "aggregateId"),
        ("/aggregates/%ff/events", "path"),
        ("/aggregates/%zz/events", "path"),
        ("/aggregates/%00/events", "aggregateId"),
        ("/events/there?x=1", "x"),
        ("/events/there/deliveries?limit=251", "limit"),
        ("/events/there/deliveries?status=dead", "status"),
        ("/events/there/deliveries?after=x", "after"),
        ("/audit/head?x=1", "x"),
        ("/events/stream?type=order.created", "type"),
        ("/events/stream?types=order", "types"),
        ("/events/stream?from=tomorrow", "from"),
        ("/events/stream?from=-1", "from"),
        ("/events/stream?lastEventId=abc", "lastEventId"),
        ("/events/stream?named=yes", "named"),
        ("/events/stream?ping=1", "ping"),
        ("/events/stream?since=2026-01-01T00:00:00Z", "since"),
        ("/webhooks?limit=251", "limit"),
        ("/webhooks?status=active", "status"),
        ("/webhooks?after=wh_1", "after"),
        ("/consumers?after=a.b", "after"),
        ("/quarantine?after=shop", "after"),
        ("/dead-letters?limit=0", "limit"),
        ("/dead-letters?type=order", "type"),
        ("/dead-letters?after=5", "after"),
        ("/dead-letters?types=order.created", "types"),
        ("/dead-letters?since=yesterday", "since"),
        ("/dead-letters/there?x=1", "x"),
        ("/health/events?x=1", "x"),
        ("/keys?tenant=acme", "tenant"),
        ("/keys?limit=251", "limit"),
        ("/keys?after=tdg_x", "after"),
        ("/health/ready?verbose=1", "verbose"),
        ("/openapi.json?x=1", "x"),
    ];
    cases.extend(others.iter().map(|(path, names)| Case::new("GET", *path, PARAMETER, names)));
    check(&cases);
}

#[test]
fn what_is_not_there_is_not_found() {
    let unknown = "00000000-0000-7000-8000-000000000000";
    let long = "a".repeat(2_000);
    let mut cases = Vec::new();
    for id in [unknown, "a.b", "%00", "%2e%2e", "there%20", long.as_str(), "ws"] {
        if id != "ws" {
            cases.push(Case::new("GET", format!("/events/{id}"), MISSING, "event"));
        }
        cases.push(Case::new("GET", format!("/events/{id}/deliveries"), MISSING, "event"));
        cases.push(Case::new("DELETE", format!("/events/{id}/data"), MISSING, "event"));
    }
    for id in ["wh_0", "there", "%00"] {
        cases.push(Case::new("GET", format!("/webhooks/{id}"), MISSING, "webhook"));
        cases.push(Case::new("GET", format!("/webhooks/{id}/secret"), MISSING, "webhook"));
        for path in ["deliveries", "attempts", "replays"] {
            cases.push(Case::new("GET", format!("/webhooks/{id}/{path}"), MISSING, "webhook"));
        }
        for command in ["pause", "resume", "activate", "test", "replay", "rotate-secret"] {
            cases.push(Case::new("POST", format!("/webhooks/{id}/{command}"), MISSING, "webhook").body(JSON, "{}"));
        }
        cases.push(Case::new("PATCH", format!("/webhooks/{id}"), MISSING, "webhook").body(JSON, "{}"));
        cases.push(Case::new("DELETE", format!("/webhooks/{id}/replays/rp_0"), MISSING, "webhook"));
        cases.push(Case::new("GET", format!("/dead-letters/{id}"), MISSING, "dead letter"));
        cases.push(Case::new("POST", format!("/dead-letters/{id}/replay"), MISSING, "dead letter"));
        cases.push(Case::new("DELETE", format!("/webhooks/{id}"), MISSING, "webhook"));
        cases.push(Case::new("DELETE", format!("/keys/{id}"), MISSING, "key"));
    }
    check(&cases);
}

#[test]
fn a_key_that_breaks_a_rule_is_refused_by_the_name_of_the_field() {
    let key = |body: &str, kind, names| Case::new("POST", "/keys", kind, names).body(JSON, body);
    let with = |member: &str, names| key(&format!("{{\"scopes\":[\"events:read\"],{member}}}"), BODY, names);
    let long = format!("\"description\":{}", text_of(100_000));
    let many: Vec<_> = (0..1_001).map(|channel| format!("c:{channel}")).collect();
    check(&[
        key("", MALFORMED, ""),
        key("5", BODY, "object"),
        key(r#"["acme",["events:read"],null,"",null]"#, BODY, "object"),
        key("{}", BODY, "scopes"),
        key(r#"{"scopes":[]}"#, BODY, "/scopes"),
        key(r#"{"scopes":"events:read"}"#, BODY, "/scopes"),
        key(r#"{"scopes":["events:fly"]}"#, BODY, "/scopes/0"),
        key(r#"{"scopes":["events:read",5]}"#, BODY, "/scopes/1"),
        key(r#"{"scopes":["admin"],"tenant":"acme"}"#, BODY, "/tenant"),
        with("\"colour\":1", "colour"),
        with("\"secret\":\"mine\"", "secret"),
        with("\"tenant\":\"Acme Prod\"", "/tenant"),
        with("\"channels\":\"a\"", "/channels"),
        with("\"channels\":[\"\"]", "/channels/0"),
        with(&format!("\"channels\":{}", json!(many)), "/channels"),
        with("\"description\":5", "/description"),
        with(&long, "/description"),
        with("\"expiresAt\":5", "/expiresAt"),
        with("\"expiresAt\":\"never\"", "/expiresAt"),
        with("\"expiresAt\":\"2020-01-01T00:00:00Z\"", "/expiresAt"),
    ]);
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_refusal_can_be_read() {
    let server = Server::dev();
    let client = server.client();
    let before = head(&client);
    // Declared: refused by its head.
    let mut connection = client.connect().unwrap();
    let headers = [("content-type", JSON)];
    connection.write(&client.request("POST", "/events", &headers, Some(8 * 1024 * 1024 + 1), b"")).unwrap();
    assert_eq!(slug(&problem(&connection.answer().unwrap())), "payload-too-large");
    // Sent in one go by a client that reads the answer only then.
    let body = vec![b' '; 9 * 1024 * 1024];
    let answer = client.try_send("POST", "/events", &headers, &body).expect("the refusal arrives");
    assert_eq!(slug(&problem(&answer)), "payload-too-large");
    assert_eq!(head(&client), before);
}

#[test]
fn a_body_without_a_length_is_refused_while_it_streams_in() {
    let server = Server::dev();
    let client = server.client();
    let mut connection = client.connect().unwrap();
    let headers = [("content-type", JSON), ("transfer-encoding", "chunked")];
    connection.write(&client.request("POST", "/events", &headers, None, b"")).unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    // 8 MiB is 128 of them; the body never ends.
    for _ in 0..129 {
        connection.write(&chunk).unwrap();
    }
    assert_eq!(slug(&problem(&connection.answer().unwrap())), "payload-too-large");
}

#[test]
fn a_body_that_does_not_arrive_in_time_is_refused() {
    let server = Server::with(true, "[limits]\nbody_timeout = \"300ms\"\n");
    let client = server.client();
    let before = head(&client);
    let mut connection = client.connect().unwrap();
    let headers = [("content-type", JSON)];
    connection.write(&client.request("POST", "/events", &headers, Some(100), b"{\"eventType\"")).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!(answer.status, 408);
    assert_eq!(slug(&problem(&answer)), "request-timeout");
    assert_eq!(head(&client), before);
}

#[test]
fn a_body_that_breaks_off_leaves_no_event() {
    let server = Server::dev();
    let client = server.client();
    let before = head(&client);
    let whole = r#"{"eventType":"order.created","data":1}"#;
    for (headers, length, body) in [
        (vec![("content-type", JSON)], Some(whole.len() + 5), whole.to_owned()),
        (vec![("transfer-encoding", "chunked")], None, format!("{:x}\r\n{whole}\r\n", whole.len())),
        (vec![("transfer-encoding", "chunked")], None, format!("{:x}\r\n{whole}\r\nXYZ\r\n", whole.len())),
    ] {
        let mut connection = client.connect().unwrap();
        connection.write(&client.request("POST", "/events", &headers, length, body.as_bytes())).unwrap();
        drop(connection);
    }
    // Whoever comes next is served, and sees nothing of it.
    assert_eq!(head(&client), before);
}

#[test]
fn requests_that_proxies_could_split_differently_are_refused() {
    let server = Server::dev();
    let client = server.client();
    let before = head(&client);
    let smuggled =
        "POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 38\r\n\r\n{\"eventType\":\"order.created\",\"data\":1}";
    for head_of in [
        "POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\n",
        "POST /events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n",
        "POST /events HTTP/1.1\r\nhost : x\r\ncontent-length: 0\r\n\r\n",
        "POST /events HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
    ] {
        let mut connection = client.connect().unwrap();
        connection.write(head_of.as_bytes()).unwrap();
        connection.write(smuggled.as_bytes()).ok();
        // An answer or a closed connection: no event either way.
        let status = connection.answer().map_or(400, |answer| answer.status);
        assert!((400..500).contains(&status), "{head_of:?}: {status}");
        assert_eq!(head(&client), before, "{head_of:?}");
    }
}

#[test]
fn whoever_comes_when_all_connections_are_taken_is_told_so() {
    let server = Server::with(true, "[limits]\nconnections = 2\n");
    let client = server.client();
    let mut held = Vec::new();
    let full = loop {
        let mut connection = client.connect().unwrap();
        connection.write(&client.request("GET", "/health/live", &[], None, b"")).unwrap();
        let answer = connection.answer().unwrap();
        if answer.status != 200 {
            break answer;
        }
        held.push(connection);
        assert!(held.len() < 10, "no limit");
    };
    assert_eq!(full.status, 503);
    assert_eq!(full.header("content-type"), Some("application/problem+json"));
    assert!(full.header("retry-after").is_some());
    assert_eq!(slug(&full.json()), "overloaded");
}

#[test]
fn a_stream_of_headers_without_end_is_cut_off() {
    let server = Server::dev();
    let mut connection = server.client().connect().unwrap();
    connection.write(b"GET /events HTTP/1.1\r\nhost: x\r\n").unwrap();
    let line = [b"x-".to_vec(), vec![b'a'; 1_000], b": b\r\n".to_vec()].concat();
    let mut sent = 0;
    while connection.write(&line).is_ok() {
        sent += line.len();
        assert!(sent < 16 * 1024 * 1024, "the server reads headers for ever");
    }
    // The server is there for others.
    std::io::stderr().flush().unwrap();
    server.client().get("/health/live").expect(200);
}
