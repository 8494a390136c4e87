//! Whom a webhook notifies: by HTTP, by mail, and the operator's contact.

use super::*;
use crate::support::smtp::MailServer;

fn failing(up: &Arc<AtomicBool>) -> Receiver {
    let up = Arc::clone(up);
    Receiver::answering(move |_, _| if up.load(Ordering::Relaxed) { 200 } else { 503 })
}

fn types(posts: &[Post]) -> Vec<String> {
    posts.iter().map(|post| post.header("tidings-event-type").to_owned()).collect()
}

#[test]
fn what_becomes_of_a_webhook_is_told_to_those_it_names() {
    let server = Server::dev();
    let client = server.client();
    let up = Arc::new(AtomicBool::new(false));
    let (receiver, told, other) = (failing(&up), Receiver::start(), Receiver::start());
    let retry = json!({"schedule": vec!["300ms"; 30]});
    let settings = json!({ "url": receiver.url(), "retry": retry, "deactivateAfter": 3, "notify": [told.url()] });
    let (id, secret) = create(&client, &settings);
    // Another webhook fails too, and that is nobody's business here.
    let quiet = json!({ "url": receiver.url(), "retry": retry, "deactivateAfter": 3, "notify": [other.url()] });
    create(&client, &quiet);
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    let posts = told.wait_for("deactivated", |posts| types(posts).contains(&"tidings.webhook.deactivated".to_owned()));
    assert_eq!(types(&posts), ["tidings.webhook.failing", "tidings.webhook.deactivated"]);
    for post in &posts {
        assert!(post.is_signed_with(&secret), "{post:?}");
        let event = post.json();
        assert_eq!((&event["aggregateId"], &event["data"]["webhook"]), (&json!(id), &json!(id)));
    }
    assert_eq!(posts[0].json()["data"]["round"], 2);
    other.wait(2);
    // Whom it names can be changed; the new one hears of what comes.
    let third = Receiver::start();
    let patch = json!({ "notify": [third.url()] }).to_string();
    client.send("PATCH", &format!("/webhooks/{id}"), &[], patch.as_bytes()).expect(200);
    client.post(&format!("/webhooks/{id}/activate"), "").expect(200);
    third.wait_for("failing", |posts| types(posts).contains(&"tidings.webhook.failing".to_owned()));
    up.store(true, Ordering::Relaxed);
    client.post(&format!("/webhooks/{id}/activate"), "").status;
    third.wait_for("recovered", |posts| types(posts).contains(&"tidings.webhook.recovered".to_owned()));
    assert_eq!(told.posts().len(), 2);
    // With the webhook the notices end.
    client.delete(&format!("/webhooks/{id}")).expect(200);
    let health = client.get("/health/events").expect(200).json();
    let subscriptions = health["subscriptions"].as_object().unwrap().values().map(|count| count.as_u64().unwrap());
    assert_eq!(subscriptions.sum::<u64>(), 2, "the other webhook and its target: {health}");
}

#[test]
fn mail_tells_in_words() {
    let mail = MailServer::start();
    let port = mail.address.port();
    let smtp = format!(
        "[smtp]\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"none\"\nfrom = \"Tidings <t@example.com>\"\n"
    );
    let server = Server::with(true, &smtp);
    let client = server.client();
    let receiver = Receiver::answering(|_, _| 410);
    let settings = json!({ "url": receiver.url(), "notify": ["mailto:ops@example.com"] });
    let (id, _) = create(&client, &settings);
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    let mails = mail.wait_for("a mail", |mails| !mails.is_empty());
    assert_eq!(mails[0].to, "ops@example.com");
    for part in ["From: Tidings <t@example.com>", "tidings.webhook.deactivated", &id, "410"] {
        assert!(mails[0].text.contains(part), "{part}: {}", mails[0].text);
    }
    for notify in ["mailto:", "mailto:nobody", "mailto:a@b.c\r\nbcc: d@e.f"] {
        let settings = json!({ "url": receiver.url(), "notify": [notify] });
        let refused = client.post("/webhooks", settings.to_string()).expect(422);
        assert!(refused.text().contains("/notify/0"), "{refused}");
    }
}

#[test]
fn the_operators_contact_hears_of_webhooks_that_name_nobody() {
    let (contact, own) = (Receiver::start(), Receiver::start());
    let mut server = Server::with(true, "");
    let client = server.client();
    let receiver = Receiver::answering(|_, _| 410);
    // One that was there before the contact was.
    let (first, _) = create(&client, &json!({ "url": receiver.url(), "eventTypes": ["a.b"] }));
    server.kill();
    server.set(&format!("[delivery]\ncontact = \"{}\"\n", contact.url()));
    server.start();
    let (second, _) = create(&client, &json!({ "url": receiver.url(), "eventTypes": ["a.b"] }));
    create(&client, &json!({ "url": receiver.url(), "eventTypes": ["c.d"], "notify": [own.url()] }));
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    client.publish(r#"{"eventType":"c.d","data":1}"#);
    let posts = contact.wait(2);
    let mut about: Vec<_> = posts.iter().map(|post| post.json()["aggregateId"].as_str().unwrap().to_owned()).collect();
    about.sort();
    assert_eq!(about, [first, second]);
    own.wait(1);
    assert_eq!(contact.posts().len(), 2);
    let bad = Server::prepared(true, "[delivery]\ncontact = \"mailto:ops@example.com\"\n");
    let file = bad.data().with_file_name("tidings.toml");
    let output = bad.run(&["serve", "--dev", "--listen", "127.0.0.1:0", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("delivery.contact"), "{output:?}");
}
