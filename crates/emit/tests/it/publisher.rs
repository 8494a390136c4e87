//! Publishing: batches, order, refusals, outages, bounds.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_emit::{Event, PublishError, Publisher, PublisherLimits};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::fake::{Answer, Fake, Request, taken};

fn event(number: usize) -> Event {
    Event::new("order.created", &json!(number)).id(format!("e{number}"))
}

fn ids(request: &Request) -> Vec<&str> {
    request.body.as_array().unwrap().iter().map(|event| event["eventId"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_event_is_published_with_the_key_and_its_receipt_comes_back() {
    let fake = Fake::start(|_, request| taken(request, 7)).await;
    let publisher = Publisher::start(fake.gateway().key("tdg_dev_1_secret").unwrap());
    let receipt = publisher.publish(event(1).aggregate("order_1")).await.unwrap();
    assert_eq!((receipt.event_id.as_str(), receipt.offset), ("e1", 7));
    let request = fake.next().await;
    assert_eq!((request.path.as_str(), request.key.as_deref()), ("/events", Some("Bearer tdg_dev_1_secret")));
    assert_eq!(request.body[0]["aggregateId"], "order_1");
}

#[tokio::test]
async fn what_queues_while_a_request_is_under_way_goes_with_the_next_in_order() {
    let fake = Fake::start(|number, request| if number == 1 { Answer::Later(503, 0) } else { taken(request, 1) }).await;
    let publisher = Publisher::start(fake.gateway());
    let first = publisher.enqueue(event(0)).await.unwrap();
    assert_eq!(ids(&fake.next().await), ["e0"]);
    let mut pending = vec![first];
    for number in 1..50 {
        pending.push(publisher.enqueue(event(number)).await.unwrap());
    }
    publisher.flush().await;
    for (number, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.await.unwrap().event_id.as_str(), format!("e{number}"));
    }
    // The first alone again, then all the others together.
    assert_eq!(ids(&fake.next().await), ["e0"]);
    let others: Vec<String> = (1..50).map(|number| format!("e{number}")).collect();
    assert_eq!(ids(&fake.next().await), others);
}

#[tokio::test]
async fn only_the_event_at_fault_is_refused() {
    let fake = Fake::start(|_, request| match ids(request).iter().position(|id| *id == "e3") {
        Some(index) => {
            let detail = "this eventId belongs to an event with other content";
            Answer::Status(409, json!({"type": "/errors/event-id-conflict", "detail": detail, "index": index}))
        }
        None => taken(request, 1),
    })
    .await;
    let publisher = Publisher::start(fake.gateway());
    let mut pending = Vec::new();
    for number in 0..6 {
        pending.push(publisher.enqueue(event(number)).await.unwrap());
    }
    for (number, pending) in pending.into_iter().enumerate() {
        match pending.await {
            Ok(_) => assert_ne!(number, 3),
            Err(PublishError::Refused(refusal)) => {
                assert_eq!((number, &*refusal.kind), (3, "/errors/event-id-conflict"));
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_sent_in_halves() {
    let too_large = json!({"type": "/errors/payload-too-large", "detail": "too large"});
    let fake = Fake::start(move |number, request| match number {
        1 => Answer::Later(503, 0),
        _ if ids(request).len() > 3 => Answer::Status(413, too_large.clone()),
        _ => taken(request, 1),
    })
    .await;
    let publisher = Publisher::start(fake.gateway());
    let first = publisher.enqueue(event(0)).await.unwrap();
    fake.next().await;
    for number in 1..=8 {
        publisher.enqueue(event(number)).await.unwrap();
    }
    publisher.flush().await;
    first.await.unwrap();
    let mut sent = Vec::new();
    for _ in 0..6 {
        let request = fake.next().await;
        sent.push(ids(&request).len());
    }
    // The first again; eight are too many, four too, two are taken.
    assert_eq!(sent, [1, 8, 4, 2, 2, 4]);
}

#[tokio::test]
async fn an_outage_is_survived_with_the_same_id_and_the_same_bytes() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let publisher = Publisher::start(tidings_emit::Gateway::new(&format!("http://{address}")).unwrap());
    let pending = publisher.enqueue(Event::new("order.created", &1)).await.unwrap();
    // Nobody listens yet. Then somebody does who fails at first.
    let fake = Fake::on(TcpListener::bind(address).await.unwrap(), |number, request| match number {
        1 => Answer::Status(500, json!({})),
        2 => Answer::Status(200, json!("not a gateway")),
        _ => taken(request, 1),
    });
    let receipt = pending.await.unwrap();
    let bodies = [fake.next().await.body, fake.next().await.body, fake.next().await.body];
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert_eq!(bodies[0][0]["eventId"], receipt.event_id.as_str());
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for_for_ever() {
    let fake = Fake::start(|number, request| if number == 1 { Answer::Never } else { taken(request, 1) }).await;
    let limits = PublisherLimits { timeout: Duration::from_millis(200), ..PublisherLimits::default() };
    Publisher::with(fake.gateway(), limits).publish(event(1)).await.unwrap();
    assert_eq!(fake.next().await.body, fake.next().await.body);
}

#[tokio::test]
async fn what_is_given_up_says_so() {
    let fake = Fake::start(|_, _| Answer::Later(503, 60)).await;
    let limits = PublisherLimits { give_up_after: Duration::from_secs(1), ..PublisherLimits::default() };
    let publisher = Publisher::with(fake.gateway(), limits);
    let given_up = publisher.publish(event(1)).await.unwrap_err();
    assert_eq!(given_up, PublishError::Unavailable("status 503".into()));
}

#[tokio::test]
async fn a_key_without_the_scope_refuses_at_once() {
    let fake = Fake::start(|_, _| Answer::Status(403, json!({"type": "/errors/forbidden", "detail": "no"}))).await;
    let publisher = Publisher::start(fake.gateway());
    assert!(matches!(publisher.publish(event(1)).await, Err(PublishError::Refused(refusal)) if refusal.status == 403));
}

#[tokio::test]
async fn who_publishes_more_than_the_queue_holds_waits() {
    let fake = Fake::start(|_, _| Answer::Never).await;
    let limits = PublisherLimits { queue_bytes: 4_096, ..PublisherLimits::default() };
    let publisher = Publisher::with(fake.gateway(), limits);
    let large = || Event::new("order.created", &"x".repeat(1_500));
    let mut taken = 0;
    while timeout(Duration::from_millis(300), publisher.enqueue(large())).await.is_ok() {
        taken += 1;
    }
    assert_eq!(taken, 2);
}

#[tokio::test]
async fn a_recording_publisher_remembers_what_it_was_given() {
    let (publisher, record) = Publisher::recording();
    let receipt = publisher.publish(event(1).aggregate("order_1")).await.unwrap();
    assert_eq!((receipt.offset, receipt.sequence_number), (1, Some(1)));
    assert_eq!(publisher.publish(event(2).aggregate("order_1")).await.unwrap().sequence_number, Some(2));
    assert!(matches!(publisher.publish(Event::new("wrong", &1)).await, Err(PublishError::Invalid(_))));
    let emissions = record.emissions();
    assert_eq!(emissions.types(), ["order.created", "order.created"]);
    assert_eq!(emissions.0[1].data, Value::from(2));
}
