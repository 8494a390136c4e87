//! A worker of a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidings_emit::{Consumer, Message, Nack};
use tokio::sync::{Notify, Semaphore};

use crate::fake::{Answer, Fake, Request};

fn message(number: usize) -> Value {
    json!({"ackToken": format!("t{number}"), "deliveryCount": 1, "ackBy": "2026-11-22T10:15:30.123Z", "offset": number,
           "replay": null, "event": {"eventId": format!("e{number}"), "eventType": "order.created", "version": 1,
           "timestamp": "2026-11-22T10:15:30.123Z", "source": "/orders", "data": {"number": number}}})
}

/// Gives `messages` with the first fetch; later fetches wait.
fn once(messages: Vec<Value>) -> impl Fn(usize, &Request) -> Answer {
    let fetches = AtomicUsize::new(0);
    move |_, request| match request.path.rsplit('/').next() {
        Some("fetch") if fetches.fetch_add(1, Ordering::SeqCst) == 0 => {
            Answer::Status(200, json!({"messages": messages}))
        }
        Some("fetch") => Answer::Never,
        _ => Answer::Status(200, json!({"stale": []})),
    }
}

/// The next request that is no fetch.
async fn word(fake: &Fake) -> (String, Value) {
    loop {
        let request = fake.next().await;
        let what = request.path.strip_prefix("/consumers/billing/").unwrap().to_owned();
        if what != "fetch" {
            return (what, request.body);
        }
    }
}

#[tokio::test]
async fn what_is_done_is_acknowledged_and_what_is_not_is_given_back_with_the_reason() {
    let fake = Fake::start(once(vec![message(1), message(2)])).await;
    let consumer = Consumer::new(fake.gateway(), "billing").unwrap();
    let work = async |message: Message| {
        let event = message.envelope::<Value>().unwrap();
        match event.data["number"].as_u64() {
            Some(1) => Err(Nack::new("not\nyet").delay(Duration::from_secs(90))),
            _ => Ok(()),
        }
    };
    let stop = Notify::new();
    let told = async {
        let words = [word(&fake).await, word(&fake).await];
        stop.notify_one();
        words
    };
    let (ended, mut words) = tokio::join!(consumer.run(work, stop.notified()), told);
    ended.unwrap();
    words.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(words[0], ("ack".into(), json!({"tokens": ["t2"]})));
    assert_eq!(words[1], ("nack".into(), json!({"token": "t1", "delay": "90s", "reason": "not yet"})));
}

#[tokio::test]
async fn a_stop_lets_begun_work_end_and_acknowledges_it() {
    let fake = Fake::start(once((1..=3).map(message).collect())).await;
    let consumer = Consumer::new(fake.gateway(), "billing").unwrap().concurrency(3);
    let (begun, go) = (Semaphore::new(0), Semaphore::new(0));
    let work = async |_: Message| {
        begun.add_permits(1);
        go.acquire().await.unwrap().forget();
        Ok(())
    };
    let stop = async {
        begun.acquire_many(3).await.unwrap().forget();
        go.add_permits(3);
    };
    consumer.run(work, stop).await.unwrap();
    let mut acked: Vec<String> = Vec::new();
    while acked.len() < 3 {
        let (what, body) = word(&fake).await;
        assert_eq!(what, "ack");
        acked.extend(serde_json::from_value::<Vec<String>>(body["tokens"].clone()).unwrap());
    }
    acked.sort();
    assert_eq!(acked, ["t1", "t2", "t3"]);
}

#[tokio::test]
async fn work_that_takes_long_asks_for_more_time() {
    let fake = Fake::start(once(vec![message(1)])).await;
    let consumer = Consumer::new(fake.gateway(), "billing").unwrap().extend_every(Duration::from_millis(100));
    let extended = Arc::new(Notify::new());
    let work = async |_: Message| {
        extended.notified().await;
        Ok(())
    };
    let stop = Notify::new();
    let told = async {
        assert_eq!(word(&fake).await, ("extend".into(), json!({"tokens": ["t1"]})));
        extended.notify_one();
        while word(&fake).await.0 != "ack" {}
        stop.notify_one();
    };
    let (ended, ()) = tokio::join!(consumer.run(work, stop.notified()), told);
    ended.unwrap();
}

#[tokio::test]
async fn an_outage_of_the_gateway_is_waited_for_and_a_refusal_ends_the_worker() {
    let fake = Fake::start(|number, _| match number {
        1 => Answer::Status(502, json!({})),
        2 => Answer::Later(429, 0),
        _ => Answer::Status(404, json!({"detail": "there is no such consumer"})),
    })
    .await;
    let consumer = Consumer::new(fake.gateway(), "billing").unwrap();
    let refused = consumer.run(async |_| Ok(()), std::future::pending()).await.unwrap_err();
    assert_eq!((refused.status, refused.detail.as_str()), (404, "there is no such consumer"));
    assert!(Consumer::new(fake.gateway(), "a/b").is_err());
}
