//! The inbox in Redis, against a Redis of the test's own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tidings_emit::{EventId, Once, OnceError, RedisInbox};
use tokio::time::sleep;

struct Redis {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]).arg(folder.path());
        let child = command.stdout(Stdio::null()).spawn().expect("redis-server (Debian's package of that name)");
        Self { child, port, _folder: folder }
    }

    /// Connects as soon as it listens.
    async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        for _ in 0..1_000 {
            if let Ok(connection) = client.get_multiplexed_async_connection().await {
                return connection;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("Redis does not listen");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn id(text: &str) -> EventId {
    EventId::parse(text).unwrap()
}

#[tokio::test]
async fn work_is_done_once_whichever_process_is_asked() {
    let redis = Redis::start();
    let inbox = RedisInbox::new(redis.connect().await, "billing");
    let other = RedisInbox::new(redis.connect().await, "billing");
    let done = inbox.once(&id("a"), async || Ok::<_, ()>(7)).await.unwrap();
    assert_eq!(done, Once::Done(7));
    assert_eq!(other.once(&id("a"), async || Ok::<_, ()>(8)).await.unwrap(), Once::Repeat);
    let shipping = RedisInbox::new(redis.connect().await, "shipping");
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

    let mut connection = redis.connect().await;
    let left: i64 = redis::cmd("TTL").arg("tidings:inbox:billing:b").query_async(&mut connection).await.unwrap();
    assert!((172_700..=172_800).contains(&left), "{left}");
}

#[tokio::test]
async fn a_claim_that_lapsed_is_not_confirmed_over_that_of_another() {
    let redis = Redis::start();
    let inbox = RedisInbox::new(redis.connect().await, "billing");
    let mut connection = redis.connect().await;
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
