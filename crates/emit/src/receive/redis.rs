//! What was processed already, remembered in Redis for all processes that share it.

use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{RedisError, Value, cmd};
use tidings_core::id::EventId;

use super::{KEPT, Once, OnceError};
use crate::clock;

/// How long a claim that nobody ends keeps others out: longer than a delivery's timeout.
const CLAIM: Duration = Duration::from_mins(1);
/// What is kept when the work is done; claims are other texts.
const DONE: &str = "done";
/// Ends a claim if it is still ours: the key goes (0 seconds), or says `done` for as long as it is told.
const END: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
                   if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end \
                   redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2]) return 1";

/// Remembers in Redis. `C` is a connection that can be shared, such as redis' `MultiplexedConnection` or
/// `ConnectionManager`.
///
/// A process that dies in the middle keeps others out for a minute; what it had done by then may be done again. Work that
/// takes longer than a minute may be done twice: for that take an inbox in the database of the work.
#[derive(Clone, Debug)]
pub struct RedisInbox<C> {
    connection: C,
    subscriber: String,
    kept: Duration,
}

impl<C: ConnectionLike + Clone> RedisInbox<C> {
    /// The inbox of a subscriber; others on the same Redis have other names.
    pub fn new(connection: C, subscriber: impl Into<String>) -> Self {
        Self { connection, subscriber: subscriber.into(), kept: KEPT }
    }

    /// Another time for which an id is remembered; 48 hours if nobody says.
    #[must_use]
    pub fn kept(mut self, kept: Duration) -> Self {
        self.kept = kept;
        self
    }

    /// Does the work of an event, if that is new. If the work fails, the event may come again at once; if it is dropped
    /// half way, after a minute.
    pub async fn once<T, E, W, F>(&self, id: &EventId, work: W) -> Result<Once<T>, OnceError<E>>
    where
        W: FnOnce() -> F,
        F: Future<Output = Result<T, E>>,
    {
        let key = format!("tidings:inbox:{}:{id}", self.subscriber);
        let token = clock::event_id();
        let inbox = |error: RedisError| OnceError::Inbox(Box::new(error));
        let mut connection = self.connection.clone();
        let mut claim = cmd("SET");
        claim.arg(&key).arg(token.as_str()).arg("NX").arg("EX").arg(CLAIM.as_secs());
        if claim.query_async::<Value>(&mut connection).await.map_err(inbox)? == Value::Nil {
            let kept: Option<String> = cmd("GET").arg(&key).query_async(&mut connection).await.map_err(inbox)?;
            return Ok(if kept.as_deref() == Some(DONE) { Once::Repeat } else { Once::Busy });
        }
        let outcome = work().await;
        let kept_s = if outcome.is_ok() { self.kept.as_secs().max(1) } else { 0 };
        let mut end = cmd("EVAL");
        end.arg(END).arg(1).arg(&key).arg(token.as_str()).arg(kept_s);
        let ended = end.query_async::<Value>(&mut connection).await;
        let done = outcome.map_err(OnceError::Work)?;
        ended.map_err(inbox)?;
        Ok(Once::Done(done))
    }
}
