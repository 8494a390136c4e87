//! Signing: secrets that are brought, rotated, shown; and signatures that need no secret to verify.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

use super::*;

/// Whether a delivery is signed (`v1a`) by the pair of a public key, as Standard Webhooks 1.0 says.
fn is_signed_by(post: &Post, public: &str) -> bool {
    let key = STANDARD.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
    let key = VerifyingKey::from_bytes(&key.try_into().unwrap()).unwrap();
    let mut message = format!("{}.{}.", post.header("webhook-id"), post.header("webhook-timestamp")).into_bytes();
    message.extend(&post.body);
    post.header("webhook-signature").split(' ').filter_map(|signature| signature.strip_prefix("v1a,")).any(|encoded| {
        let bytes = STANDARD.decode(encoded).unwrap();
        key.verify(&message, &Signature::from_slice(&bytes).unwrap()).is_ok()
    })
}

fn next(client: &Client, receiver: &Receiver) -> Post {
    let before = receiver.posts().len();
    client.publish(r#"{"eventType":"a.b","data":1}"#);
    receiver.wait(before + 1).pop().unwrap()
}

#[test]
fn a_secret_that_is_brought_along_signs() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let brought = format!("whsec_{}", STANDARD.encode([7; 24]));
    let (id, secret) = create(&client, &json!({ "url": receiver.url(), "secret": brought }));
    assert_eq!(secret, brought);
    assert!(next(&client, &receiver).is_signed_with(&brought));
    let shown = client.get(&format!("/webhooks/{id}/secret")).expect(200).json();
    assert_eq!(shown, json!({ "id": id, "secret": brought, "publicKey": null, "former": [] }));
}

#[test]
fn while_secrets_rotate_both_sign_and_then_the_new_one_alone() {
    let mut server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let (id, first) = create(&client, &json!({ "url": receiver.url(), "signatures": ["v1", "v1a"] }));
    let path = format!("/webhooks/{id}");
    let before = client.get(&format!("{path}/secret")).expect(200).json();
    let rotated = client.post(&format!("{path}/rotate-secret"), r#"{"overlap":"8s"}"#).expect(200).json();
    let second = rotated["secret"].as_str().unwrap();
    let public = rotated["publicKey"].as_str().unwrap();
    assert_ne!(second, first);
    let former = &rotated["former"][0];
    assert_eq!((&former["secret"], &former["publicKey"]), (&json!(first), &before["publicKey"]));
    assert!(former["expiresAt"].is_string());
    let post = next(&client, &receiver);
    assert!(post.is_signed_with(&first) && post.is_signed_with(second), "{post:?}");
    assert!(is_signed_by(&post, public) && is_signed_by(&post, former["publicKey"].as_str().unwrap()));
    // The new one is the first: verifiers that look at one signature only are served with it.
    assert!(post.header("webhook-signature").starts_with("v1,"));
    server.kill();
    server.start();
    let post = until("the new one alone", Duration::from_secs(25), || {
        Some(next(&client, &receiver)).filter(|post| !post.is_signed_with(&first))
    });
    assert!(post.is_signed_with(second) && is_signed_by(&post, public));
    assert!(!is_signed_by(&post, former["publicKey"].as_str().unwrap()));
    let shown = client.get(&format!("{path}/secret")).expect(200).json();
    assert_eq!((&shown["secret"], &shown["former"]), (&json!(second), &json!([])));
    let trail = client.get("/events?types=tidings.webhook.secret_rotated").expect(200);
    assert_eq!(trail.json()["data"][0]["data"]["id"], *id);
    assert!(!trail.text().contains("whsec_"));
    // Without an overlap the former one stops at once.
    let third = client.post(&format!("{path}/rotate-secret"), r#"{"overlap":"0s"}"#).expect(200).json();
    let post = next(&client, &receiver);
    assert!(post.is_signed_with(third["secret"].as_str().unwrap()) && !post.is_signed_with(second));
}

#[test]
fn rotations_in_a_row_keep_every_secret_whose_time_has_not_come() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let (id, first) = create(&client, &json!({ "url": receiver.url() }));
    let rotate = || client.post(&format!("/webhooks/{id}/rotate-secret"), "");
    let mut secrets = vec![first];
    for _ in 0..3 {
        secrets.push(rotate().expect(200).json()["secret"].as_str().unwrap().to_owned());
    }
    let post = next(&client, &receiver);
    assert!(secrets.iter().all(|secret| post.is_signed_with(secret)), "{post:?}");
    let refused = rotate().expect(409);
    assert!(refused.json()["detail"].as_str().unwrap().contains("overlap"), "{refused}");
}

#[test]
fn a_webhook_can_sign_without_a_shared_secret() {
    let server = Server::dev();
    let (client, receiver) = (server.client(), Receiver::start());
    let (id, secret) = create(&client, &json!({ "url": receiver.url() }));
    client.send("PATCH", &format!("/webhooks/{id}"), &[], br#"{"signatures":["v1a"]}"#).expect(200);
    let shown = client.get(&format!("/webhooks/{id}/secret")).expect(200).json();
    let post = next(&client, &receiver);
    assert!(is_signed_by(&post, shown["publicKey"].as_str().unwrap()) && !post.is_signed_with(&secret), "{post:?}");
}
