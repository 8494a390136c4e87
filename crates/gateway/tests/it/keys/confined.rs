//! Keys within walls: they see and publish their channels only.

use super::*;

#[test]
fn a_confined_key_sees_and_publishes_its_channels_only() {
    let server = Server::dev();
    let scopes = "events:write,events:read,events:erase,streams:read,webhooks:read,webhooks:write,webhooks:secret,keys:read,keys:write";
    let whole = server.make_key(&["--tenant", "acme", "--scopes", scopes]);
    let confined = server.make_key(&["--tenant", "acme", "--scopes", scopes, "--channels", "customer:1,customer:2"]);
    let (whole, confined) = (server.client().key(&whole.text), server.client().key(&confined.text));
    let webhook = whole.post("/webhooks", r#"{"url":"http://127.0.0.1:9/hooks?token=foreign"}"#).expect(201).json();
    let event = |id: &str, channels: Value| {
        json!({ "eventId": id, "eventType": "a.b", "aggregateId": "x", "channels": channels, "data": id }).to_string()
    };
    let mut stream = Stream::open(&confined, "/events/stream");
    let mut asked = Stream::open(&confined, "/events/stream?channels=customer:3,customer:1");
    for (id, channels) in [
        ("e1", json!(["customer:1"])),
        ("e3", json!(["customer:3"])),
        ("e0", json!([])),
        ("e12", json!(["customer:9", "customer:1"])),
    ] {
        whole.publish(&event(id, channels));
    }
    // Reading.
    for (path, seen) in [
        ("/events", vec!["e1", "e12"]),
        ("/events?order=desc&limit=1", vec!["e12"]),
        ("/events?channels=customer:3", vec![]),
        ("/events?channels=customer:9", vec!["e12"]),
        ("/aggregates/x/events", vec!["e1", "e12"]),
    ] {
        let page = confined.get(path).expect(200).json();
        let ids: Vec<_> =
            page["data"].as_array().unwrap().iter().map(|event| event["eventId"].as_str().unwrap()).collect();
        assert_eq!(ids, seen, "{path}");
    }
    for stream in [&mut stream, &mut asked] {
        assert_eq!(stream.event().json()["eventId"], "e1");
        assert_eq!(stream.event().json()["eventId"], "e12");
    }
    for id in ["e3", "e0"] {
        for (method, path) in [
            ("GET", format!("/events/{id}")),
            ("GET", format!("/events/{id}/deliveries")),
            ("DELETE", format!("/events/{id}/data")),
        ] {
            let refused = call(&confined, method, &path);
            assert_eq!(
                (refused.status, refused.text()),
                (404, call(&confined, method, &path.replace(id, "zz")).text())
            );
        }
    }
    // Who else gets an event of its own is not its business.
    let deliveries = confined.get("/events/e1/deliveries").expect(200);
    assert_eq!(deliveries.json()["data"], json!([]), "{deliveries}");
    assert_eq!(whole.get("/events/e1/deliveries").expect(200).json()["data"].as_array().unwrap().len(), 1);
    // Publishing.
    confined.publish(&event("n1", json!(["customer:2"])));
    let refused = [
        event("n2", json!([])),
        event("n2", json!(["customer:3"])),
        event("n2", json!(["customer:1", "customer:3"])),
        format!("[{},{}]", event("n2", json!(["customer:1"])), event("n3", json!(["customer:3"]))),
    ];
    for body in refused {
        let refused = confined.post("/events", &body);
        assert_eq!((refused.status, slug(&problem(&refused))), (403, "forbidden"), "{body}");
    }
    whole.get("/events/n2").expect(404);
    // Webhooks and keys: none that reach further.
    assert_eq!(confined.get("/webhooks").expect(200).json(), json!({ "data": [], "nextCursor": null }));
    assert_eq!(confined.get("/webhooks?limit=1").expect(200).json()["nextCursor"], Value::Null);
    let id = webhook["id"].as_str().unwrap();
    for (method, path) in [
        ("GET", ""),
        ("GET", "/secret"),
        ("GET", "/deliveries"),
        ("GET", "/attempts"),
        ("GET", "/replays"),
        ("PATCH", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/activate"),
        ("POST", "/test"),
        ("POST", "/replay"),
        ("POST", "/rotate-secret"),
        ("DELETE", "/replays/rp_0"),
        ("DELETE", ""),
    ] {
        assert_eq!(call(&confined, method, &format!("/webhooks/{id}{path}")).status, 404);
    }
    let own =
        confined.post("/webhooks", r#"{"url":"http://127.0.0.1:9/own","startFrom":"earliest"}"#).expect(201).json();
    let own = own["id"].as_str().unwrap();
    let for_it = |event: &str| whole.get(&format!("/events/{event}/deliveries")).expect(200).text().contains(own);
    assert!(for_it("e1") && for_it("e12") && !for_it("e3") && !for_it("e0"));
    let keys = confined.get("/keys").expect(200).json();
    assert_eq!(keys["data"].as_array().unwrap().len(), 1, "{keys}");
    let wide = whole.get("/keys").expect(200).json();
    let wide = wide["data"].as_array().unwrap().iter().find(|key| key["channels"].is_null()).unwrap();
    assert_eq!(confined.delete(&format!("/keys/{}", wide["id"].as_str().unwrap())).status, 404);
    whole.get("/events").expect(200);
}
