//! An outbox that wakes its reader.

use std::time::Duration;

use tidings_sources::outbox::postgres::{self, install};
use tidings_sources::outbox::{Batch, Reader};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::rig::{ARRIVAL, connect, database};

const FOR_EVER: Duration = Duration::from_hours(1);
const EMIT: &str = "SELECT tidings.emit('order.created', '1')";

/// A connection, and what it is notified of.
async fn listener(url: &str) -> (tokio_postgres::Client, mpsc::UnboundedReceiver<String>) {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(told) = message {
                let _ = send.send(told.payload().to_owned());
            }
        }
    });
    client.batch_execute("LISTEN tidings").await.unwrap();
    (client, receive)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_wakes_a_reader_that_sleeps_and_says_nothing_to_one_that_is_awake() {
    let url = database().await;
    let wanted = install::Wanted { wake: true, ..install::Wanted::default() };
    let config = postgres::config(&url, None, None).unwrap();
    assert!(!install::install(&config, &wanted).await.unwrap(), "it was there, and wakes from now on");
    let (app, (_listener, mut heard)) = (connect(&url).await, listener(&url).await);
    let mut reader = Reader::Postgres(Box::new(postgres::Reader::new(config, "tidings-1")));
    let mut position = reader.open(None, true).await.unwrap().position;
    let mut batches: Vec<Batch> = Vec::new();
    for _ in 0..3 {
        let woken = async { tokio::join!(reader.woken(FOR_EVER), app.execute(EMIT, &[])).1.unwrap() };
        timeout(ARRIVAL, woken).await.expect("the commit wakes it");
        let batch = reader.poll(&position).await.unwrap();
        position = batch.position.clone();
        batches.push(batch);
        assert_eq!(heard.recv().await.unwrap(), "");
        // Rows came, so it stays awake.
        reader.woken(Duration::ZERO).await;
        app.execute(EMIT, &[]).await.unwrap();
        app.batch_execute("NOTIFY tidings, 'nothing before this'").await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), "nothing before this");
        // It goes to sleep, and looks once more before.
        timeout(ARRIVAL, reader.woken(FOR_EVER)).await.expect("one look after the lock is free");
        let batch = reader.poll(&position).await.unwrap();
        position = batch.position.clone();
        batches.push(batch);
        // What was said while it was awake is no news.
        reader.woken(Duration::from_millis(10)).await;
    }
    assert_eq!(batches.iter().map(|batch| batch.rows.len()).collect::<Vec<_>>(), [1; 6]);
}
