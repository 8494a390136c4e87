//! What the receivers of all languages agree on: `sdk/vectors.json`.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tidings_emit::{Order, Timestamp, Verifier};

#[derive(Deserialize)]
struct Vectors {
    secret: String,
    signed: i64,
    signatures: Vec<Signature>,
    orders: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signature {
    name: String,
    verifies: bool,
    offset_seconds: i64,
    headers: HashMap<String, String>,
    body: String,
}

#[derive(Deserialize)]
struct Case {
    newest: Option<u64>,
    sequence: u64,
    order: Value,
}

fn vectors() -> Vectors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/vectors.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_signatures_that_all_receivers_agree_on() {
    let Vectors { secret, signed, signatures, .. } = vectors();
    let verifier = Verifier::new([secret.as_str()]).unwrap();
    assert!(signatures.len() > 20);
    for Signature { name, verifies, offset_seconds, headers, body } in signatures {
        let now = Timestamp::from_millis((signed + offset_seconds) * 1000);
        let delivery = verifier.verify_at(|name| headers.get(name).map(String::as_str), body.as_bytes(), now);
        assert_eq!(delivery.is_ok(), verifies, "{name}");
    }
}

#[test]
fn the_orders_that_all_receivers_agree_on() {
    for Case { newest, sequence, order } in vectors().orders {
        let told = match Order::of(newest, sequence) {
            Order::Next => json!({"kind": "next"}),
            Order::First => json!({"kind": "first"}),
            Order::Gap { missing } => json!({"kind": "gap", "missing": [missing.start(), missing.end()]}),
            Order::Late { newest } => json!({"kind": "late", "newest": newest}),
        };
        assert_eq!(told, order);
    }
}
