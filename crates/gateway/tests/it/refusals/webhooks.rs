//! Webhooks, dead letters and replays that are not right.

use super::*;

#[test]
fn a_webhook_that_breaks_a_rule_is_refused_by_the_name_of_the_field() {
    let webhook = |body: &str, kind, names| Case::new("POST", "/webhooks", kind, names).body(JSON, body);
    let with =
        |member: &str, kind, names| webhook(&format!("{{\"url\":\"http://127.0.0.1:9/hooks\",{member}}}"), kind, names);
    let url = |url: &str| webhook(&json!({ "url": url }).to_string(), BODY, "/url");
    let long = format!("\"description\":{}", text_of(100_000));
    let types = format!("\"eventTypes\":{}", json!(vec!["a.b"; 101]));
    let many: Vec<_> = (0..6).map(|number| format!("https://example.com/{number}")).collect();
    let many = format!("\"notify\":{}", json!(many));
    let steps = format!("\"retry\":{{\"schedule\":{}}}", json!(vec!["1s"; 65]));
    check(&[
        webhook("", MALFORMED, ""),
        webhook("[]", BODY, "object"),
        webhook(r#"["http://127.0.0.1:9/hooks"]"#, BODY, "object"),
        webhook("{}", BODY, "url"),
        webhook(r#"{"url":5}"#, BODY, "/url"),
        webhook(r#"{"url":null}"#, BODY, "/url"),
        url(""),
        url("/hooks"),
        url("ftp://example.com/"),
        url("http://user:pass@127.0.0.1/"),
        url("http://127.0.0.1/#part"),
        url("http://"),
        url("http://127.0.0.1:99999/"),
        url(&format!("http://127.0.0.1/{}", "a".repeat(2_048))),
        with("\"colour\":1", BODY, "colour"),
        with("\"url\":\"http://127.0.0.1/\"", DUPLICATE, "url"),
        with("\"eventTypes\":\"order.*\"", BODY, "/eventTypes"),
        with("\"eventTypes\":[\"order\"]", BODY, "/eventTypes/0"),
        with("\"eventTypes\":[\"a.b\",5]", BODY, "/eventTypes/1"),
        with(&types, BODY, "/eventTypes"),
        with("\"channels\":[\"\"]", BODY, "/channels/0"),
        with("\"aggregateId\":\"a\\u0000\"", BODY, "/aggregateId"),
        with("\"description\":5", BODY, "/description"),
        with(&long, BODY, "/description"),
        with("\"format\":\"xml\"", BODY, "/format"),
        with("\"ordering\":\"random\"", BODY, "/ordering"),
        with("\"retry\":5", BODY, "/retry"),
        with("\"retry\":{\"schedule\":[]}", BODY, "/retry/schedule"),
        with("\"retry\":{\"schedule\":[\"50ms\"]}", BODY, "/retry/schedule"),
        with("\"retry\":{\"schedule\":[\"soon\"]}", BODY, "/retry/schedule"),
        with("\"retry\":{\"jitter\":1}", BODY, "/retry/jitter"),
        with("\"retry\":{\"onExhausted\":\"stop\"}", BODY, "/retry/onExhausted"),
        with("\"filter\":\"event.data.total > 5\"", BODY, "/filter"),
        with("\"filter\":\"x\"", BODY, "schemas"),
        with("\"versions\":{\"order.created\":2}", BODY, "/versions/order.created"),
        with("\"versions\":{\"order\":1}", BODY, "/versions/order"),
        with("\"versions\":{\"order.created\":\"1\"}", BODY, "/versions"),
        with("\"headers\":[\"x-a\"]", BODY, "/headers"),
        with("\"headers\":{\"x-a\":5}", BODY, "/headers"),
        with("\"headers\":{\"host\":\"example.com\"}", BODY, "/headers"),
        with("\"headers\":{\"x-a\":\"a\\r\\nb: c\"}", BODY, "/headers"),
        with("\"headers\":{\"x-a\":\"1\",\"X-A\":\"2\"}", BODY, "/headers"),
        with("\"signatures\":[]", BODY, "/signatures"),
        with("\"signatures\":[\"v1\",\"v1\"]", BODY, "/signatures"),
        with("\"signatures\":[\"v2\"]", BODY, "/signatures/0"),
        with("\"deactivateAfter\":0", BODY, "/deactivateAfter"),
        with("\"deactivateAfter\":-1", BODY, "/deactivateAfter"),
        with("\"deactivateAfter\":\"5\"", BODY, "/deactivateAfter"),
        with("\"rateLimit\":50", BODY, "/rateLimit"),
        with("\"rateLimit\":\"50/d\"", BODY, "/rateLimit"),
        with("\"notify\":\"https://example.com/\"", BODY, "/notify"),
        with("\"notify\":[\"https://example.com/\",\"ftp://example.com/\"]", BODY, "/notify/1"),
        with("\"notify\":[\"mailto:ops@example.com\"]", BODY, "/notify/0"),
        with("\"notify\":[\"mailto:ops@example.com\"]", BODY, "smtp.host"),
        with("\"notify\":[\"https://example.com/\",\"https://example.com/\"]", BODY, "/notify"),
        with(&many, BODY, "/notify"),
        with("\"id\":\"wh_1\"", BODY, "/id"),
        with("\"status\":\"paused\"", BODY, "/status"),
        with(&steps, BODY, "/retry/schedule"),
        with("\"timeout\":15", BODY, "/timeout"),
        with("\"timeout\":\"0s\"", BODY, "/timeout"),
        with("\"timeout\":\"21s\"", BODY, "/timeout"),
        with("\"maxConcurrency\":0", BODY, "/maxConcurrency"),
        with("\"maxConcurrency\":257", BODY, "/maxConcurrency"),
        with("\"maxConcurrency\":-1", BODY, "/maxConcurrency"),
        with("\"startFrom\":\"tomorrow\"", BODY, "/startFrom"),
        with("\"startFrom\":-1", BODY, "/startFrom"),
        with("\"startFrom\":true", BODY, "/startFrom"),
        with("\"secret\":5", BODY, "/secret"),
        with("\"secret\":\"hunter2\"", BODY, "/secret"),
        with("\"secret\":\"whsec_AAAA\"", BODY, "/secret"),
    ]);
}

#[test]
fn a_change_or_a_command_that_breaks_a_rule_is_refused_by_the_name_of_the_field() {
    let server = Server::dev();
    let client = server.client();
    let made = client.post("/webhooks", r#"{"url":"http://127.0.0.1:9/hooks"}"#).expect(201).json();
    let at = |more: &str| format!("/webhooks/{}{more}", made["id"].as_str().unwrap());
    let patch = |body: &str, names| Case::new("PATCH", at(""), BODY, names).body(JSON, body);
    let post = |command: &str, body: &str, names| Case::new("POST", at(command), BODY, names).body(JSON, body);
    let dead = |command: &str, body: &str, names| {
        Case::new("POST", format!("/dead-letters/{command}"), BODY, names).body(JSON, body)
    };
    let ids = json!({ "filter": { "ids": vec!["dl_0"; 1_001] } }).to_string();
    let events = json!({ "eventIds": vec!["e1"; 1_001] }).to_string();
    check_on(
        &client,
        &[
            patch("[]", "object"),
            patch(r#"{"url":null}"#, "url"),
            patch(r#"{"url":"ftp://example.com/"}"#, "/url"),
            patch(r#"{"secret":"whsec_AAAA"}"#, "rotate-secret"),
            patch(r#"{"startFrom":"latest"}"#, "activate"),
            patch(r#"{"status":"paused"}"#, "pause"),
            patch(r#"{"id":"wh_1"}"#, "/id"),
            patch(r#"{"colour":1}"#, "colour"),
            patch(r#"{"retry":{"schedule":["1ms"]}}"#, "/retry/schedule"),
            patch(r#"{"retry":{"jitter":1}}"#, "/retry/jitter"),
            patch(r#"{"headers":"x"}"#, "/headers"),
            patch(r#"{"headers":{"x-a":5}}"#, "/headers"),
            patch(r#"{"headers":{"webhook-id":"x"}}"#, "/headers"),
            patch(r#"{"timeout":"21s"}"#, "/timeout"),
            patch(r#"{"deactivateAfter":0}"#, "/deactivateAfter"),
            Case::new("PATCH", at(""), MEDIA, "merge-patch").body("text/plain", "{}"),
            Case::new("PATCH", at(""), MALFORMED, "").body(JSON, ""),
            Case::new("PATCH", at(""), DUPLICATE, "url").body(JSON, r#"{"url":"a","url":"b"}"#),
            post("/pause", r#"{"for":"1h"}"#, "for"),
            post("/pause", "[]", "object"),
            Case::new("POST", at("/pause"), MEDIA, "application/json").body("text/plain", "{}"),
            post("/resume", r#"{"x":1}"#, "x"),
            post("/test", r#"{"eventType":"a.b"}"#, "eventType"),
            post("/activate", r#"{"from":"yesterday"}"#, "/from"),
            post("/activate", r#"{"from":true}"#, "/from"),
            post("/activate", r#"{"to":5}"#, "to"),
            Case::new("POST", at("/activate"), CONFLICT, "active").body(JSON, "{}"),
            post("/rotate-secret", r#"{"overlap":5}"#, "/overlap"),
            post("/rotate-secret", r#"{"overlap":"31d"}"#, "/overlap"),
            post("/rotate-secret", r#"{"secret":"hunter2"}"#, "/secret"),
            post("/rotate-secret", r#"{"key":"x"}"#, "key"),
            post("/replay", "{}", "/from"),
            post("/replay", r#"{"from":"soon"}"#, "/from"),
            post("/replay", r#"{"from":0,"to":"soon"}"#, "/to"),
            post("/replay", r#"{"eventIds":["there"],"from":0}"#, "/from"),
            post("/replay", r#"{"eventIds":["there"],"to":5}"#, "/to"),
            post("/replay", r#"{"eventIds":["nowhere"]}"#, "/eventIds/0"),
            post("/replay", r#"{"eventIds":["a.b"]}"#, "/eventIds/0"),
            post("/replay", &events, "/eventIds"),
            post("/replay", r#"{"from":0,"only":"some"}"#, "/only"),
            post("/replay", r#"{"from":0,"rate":"fast"}"#, "/rate"),
            post("/replay", r#"{"from":0,"eventTypes":["order"]}"#, "/eventTypes/0"),
            post("/replay", r#"{"from":0,"speed":1}"#, "speed"),
            Case::new("DELETE", at("/replays/rp_0"), MISSING, "replay"),
            Case::new("GET", at("/deliveries?status=lost"), PARAMETER, "status"),
            Case::new("GET", at("/deliveries?after=x"), PARAMETER, "after"),
            Case::new("GET", at("/deliveries?status=dead&after=5"), PARAMETER, "after"),
            Case::new("GET", at("/deliveries?limit=251"), PARAMETER, "limit"),
            Case::new("GET", at("/attempts?after=x"), PARAMETER, "after"),
            Case::new("GET", at("/attempts?status=dead"), PARAMETER, "status"),
            Case::new("GET", at("/replays?limit=0"), PARAMETER, "limit"),
            Case::new("GET", at("/replays?after=0"), PARAMETER, "after"),
            Case::new("PUT", at(""), METHOD, "PATCH"),
            Case::new("GET", at("/pause"), METHOD, "POST"),
            dead("replay", "{}", "filter"),
            dead("replay", r#"{"filter":5}"#, "/filter"),
            dead("replay", r#"{"filter":{"colour":1}}"#, "colour"),
            dead("replay", r#"{"filter":{"type":"order"}}"#, "/filter/type"),
            dead("replay", r#"{"filter":{"since":"soon"}}"#, "/filter/since"),
            dead("replay", r#"{"filter":{"ids":["dl_0"]}}"#, "/filter/ids/0"),
            dead("replay", &ids, "/filter/ids"),
            dead("discard", r#"{"filter":{}}"#, "reason"),
            dead("discard", r#"{"filter":{},"reason":""}"#, "/reason"),
            dead("discard", r#"{"filter":{},"reason":5}"#, "/reason"),
        ],
    );
    let shown = client.get(&at("")).expect(200).json();
    assert_eq!((&shown["url"], &shown["status"]), (&made["url"], &made["status"]));
}
