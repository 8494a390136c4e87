//! Being woken by the database, where the outbox was made so.
//!
//! While the reader asks at short intervals it holds a lock in the database, and transactions see by that that they need
//! not wake it. Once it finds nothing it lets go of the lock, asks once more and sleeps. A transaction that emitted while
//! it was awake and commits while it sleeps is found when the longest pause is over: waking is a hint.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::ANSWER;

/// Of the database; as `wake.sql` has it.
const LOCK: i64 = 32_766_977_284_925_299;
/// From this pause on it sleeps.
const ASLEEP: Duration = Duration::from_millis(6);

const MADE_SO: &str =
    "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('tidings.outbox') AND tgname = 'wake')";

pub(super) struct Wake {
    told: Arc<Notify>,
    awake: bool,
}

impl Wake {
    /// Begins to listen, if somebody will speak. `told`: what the connection tells.
    pub(super) async fn open(client: &Client, told: Arc<Notify>) -> Result<Option<Self>, tokio_postgres::Error> {
        if !client.query_one(MADE_SO, &[]).await?.get::<_, bool>(0) {
            return Ok(None);
        }
        client.batch_execute("LISTEN tidings").await?;
        Ok(Some(Self { told, awake: false }))
    }

    /// Resolves after `pause`, or earlier if there is something to read. What goes wrong, the next question tells.
    pub(super) async fn rest(&mut self, client: &Client, pause: Duration) {
        if pause < ASLEEP {
            if !self.awake {
                let taken = timeout(ANSWER, client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK])).await;
                self.awake = matches!(taken, Ok(Ok(row)) if row.get(0));
            }
            sleep(pause).await;
        } else if self.awake {
            // However often it was taken: an answer may have been lost.
            let left = timeout(ANSWER, client.batch_execute("SELECT pg_advisory_unlock_all()")).await;
            self.awake = !matches!(left, Ok(Ok(())));
        } else {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.told.notified() => {}
            }
        }
    }
}
