//! The inbox in Redis, against a Redis of the test's own.

use redis::aio::MultiplexedConnection;
use tidings_emit::{EventId, Once, OnceError, RedisInbox};
use tidings_rigs::Redis;

async fn connect(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

fn id(text: &str) -> EventId {
    EventId::parse(text).unwrap()
}

#[tokio::test]
async fn work_is_done_once_whichever_process_is_asked() {
    let redis = Redis::start();
    let inbox = RedisInbox::new(connect(&redis).await, "billing");
    let other = RedisInbox::new(connect(&redis).await, "billing");
    let done = inbox.once(&id("a"), async || Ok::<_, ()>(7)).await.unwrap();
    assert_eq!(done, Once::Done(7));
    assert_eq!(other.once(&id("a"), async || Ok::<_, ()>(8)).await.unwrap(), Once::Repeat);
    let shipping = RedisInbox::new(connect(&redis).await, "shipping");
    assert_eq!(shipping.once(&id("a"), async || Ok::<_, ()>(9)).await.unwrap(), Once::Done(9));

    let failed = inbox.once(&id("b"), async || Err::<(), _>("no")).await;
    assert!(matches!(failed, Err(OnceError::Work("no"))));
    let again = async {
        // While one works the other is told to come again.
        let meanwhile = other.once(&id("b"), async || Ok::<_, ()>(0)).await.unwrap();
        assert_eq!(meanwhile, Once::Busy);
        Ok::<_, ()>(1)
    };
    assert_eq!(inbox.once(&id("b"), || again).await.unwrap(), Once::Done(1));

    let mut connection = connect(&redis).await;
    let left: i64 = redis::cmd("TTL").arg("tidings:inbox:billing:b").query_async(&mut connection).await.unwrap();
    assert!((172_700..=172_800).contains(&left), "{left}");
}

#[tokio::test]
async fn a_claim_that_lapsed_is_not_confirmed_over_that_of_another() {
    let redis = Redis::start();
    let inbox = RedisInbox::new(connect(&redis).await, "billing");
    let mut connection = connect(&redis).await;
    let key = "tidings:inbox:billing:a";
    inbox
        .once(&id("a"), async || {
            // As if a minute had passed, and another process had claimed it.
            redis::cmd("SET").arg(key).arg("another").query_async::<()>(&mut connection).await
        })
        .await
        .unwrap();
    let kept: String = redis::cmd("GET").arg(key).query_async(&mut connection).await.unwrap();
    assert_eq!(kept, "another");
}
