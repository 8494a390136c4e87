//! An event at which the server ends must not end it for ever.

use super::*;

#[test]
fn an_event_at_which_the_server_is_killed_again_and_again_becomes_a_dead_letter() {
    let mut server = Server::dev();
    let poison = |post: &Post| post.json()["data"] == "poison";
    let receiver = Receiver::answering(move |post, _| {
        if poison(post) {
            // The server does not live to see the answer.
            std::thread::sleep(Duration::from_secs(20));
        }
        200
    });
    let arrived = Receiver::start();
    let retry = json!({"schedule": ["100ms"]});
    let (id, _) = create(&server.client(), &json!({ "url": receiver.url(), "retry": retry }));
    create(&server.client(), &json!({ "url": arrived.url() }));
    server.client().publish(r#"{"eventId":"e1","eventType":"a.b","aggregateId":"x","data":"poison"}"#);
    server.client().publish(r#"{"eventId":"e2","eventType":"a.b","aggregateId":"x","data":"good"}"#);
    let mut kills = 0;
    let letter = until("the dead letter", Duration::from_mins(1), || {
        let letters = server.client().get("/dead-letters").expect(200).json();
        if let Some(letter) = letters["data"].as_array().unwrap().first() {
            return Some(letter.clone());
        }
        let deliveries = server.client().get(&format!("/webhooks/{id}")).expect(200).json();
        if deliveries["pending"].as_u64() > Some(0) && server.client().get("/health/events").json()["inFlight"] == 1 {
            server.kill();
            kills += 1;
            server.start();
        }
        None
    });
    assert_eq!((&letter["eventId"], &letter["attemptCount"]), (&json!("e1"), &json!(2)));
    assert_eq!(letter["reason"], "the process ended while it was sent");
    // Two to notice, and one for each attempt.
    assert_eq!(kills, 4, "{}", server.stderr());
    assert!(server.stderr().contains("attempts are counted before they are made"));
    delivery(&server.client(), "e2", &id, "delivered");
}
