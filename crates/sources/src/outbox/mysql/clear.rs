//! Deletes rows that are in the log, beside the reading, over a connection of its own.

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, TxOpts};
use tokio::task::JoinSet;

use super::position::Mark;
use super::session::{connect, listed, trouble, within};
use crate::outbox::ReadError;

/// Rows that are deleted in one transaction, at most.
const SLICE_ROWS_MAX: usize = 500;
/// Somebody holds a lock on a row: the next time will do.
const LOCKED: [u16; 2] = [1205, 1213];

/// At most one task, which ends with the reader.
pub(super) struct Clearing {
    opts: Opts,
    /// Who reads.
    name: Box<str>,
    /// Left by the task before.
    connection: Option<Conn>,
    task: JoinSet<Result<Cleared, ReadError>>,
}

/// What a task has done.
struct Cleared {
    connection: Conn,
    deleted: Vec<Mark>,
}

impl Clearing {
    pub(super) fn new(opts: Opts, name: Box<str>) -> Self {
        Self { opts, name, connection: None, task: JoinSet::new() }
    }

    pub(super) fn abort(&mut self) {
        self.task = JoinSet::new();
        self.connection = None;
    }

    /// Begins to delete, unless there is nothing or it is being done; whether it was begun.
    pub(super) fn start(&mut self, marks: Vec<Mark>) -> bool {
        let begins = self.task.is_empty() && !marks.is_empty();
        if begins {
            self.task.spawn(clear(self.opts.clone(), self.connection.take(), self.name.clone(), marks));
        }
        begins
    }

    /// The rows that were deleted since this was last asked.
    pub(super) async fn finished(&mut self) -> Result<Vec<Mark>, ReadError> {
        match self.task.try_join_next() {
            Some(ended) => self.ended(ended),
            None => Ok(Vec::new()),
        }
    }

    /// The rows that are deleted when the task has ended, or why there are none.
    pub(super) async fn wait(&mut self) -> Result<Vec<Mark>, ReadError> {
        let ended = self.task.join_next().await.ok_or_else(|| trouble("nothing is being deleted"))?;
        let deleted = self.ended(ended)?;
        if deleted.is_empty() { Err(trouble("somebody locks rows that are to be deleted")) } else { Ok(deleted) }
    }

    fn ended(
        &mut self,
        ended: Result<Result<Cleared, ReadError>, tokio::task::JoinError>,
    ) -> Result<Vec<Mark>, ReadError> {
        let Cleared { connection, deleted } = ended.map_err(|error| ReadError::Trouble(error.to_string()))??;
        self.connection = Some(connection);
        Ok(deleted)
    }
}

async fn clear(opts: Opts, kept: Option<Conn>, name: Box<str>, marks: Vec<Mark>) -> Result<Cleared, ReadError> {
    // The server may have closed what was kept.
    let kept = match kept {
        Some(mut kept) => within(kept.ping()).await.is_ok().then_some(kept),
        None => None,
    };
    let mut connection = match kept {
        Some(connection) => connection,
        None => connect(&opts).await?,
    };
    let mut deleted = Vec::with_capacity(marks.len());
    for slice in marks.chunks(SLICE_ROWS_MAX) {
        let mut write = within(connection.start_transaction(TxOpts::default())).await?;
        match within_lock(delete(&mut write, &name, slice)).await? {
            Some(true) => within(write.commit()).await?,
            // Another reads now: the rows are its own. Reading will tell.
            Some(false) => return Err(ReadError::taken(None)),
            None => {
                within(write.rollback()).await?;
                break;
            }
        }
        deleted.extend_from_slice(slice);
    }
    Ok(Cleared { connection, deleted })
}

/// Deletes rows, unless another one reads. The lock on the reader's row holds who wants to take over until the commit.
async fn delete(write: &mut mysql_async::Transaction<'_>, name: &str, marks: &[Mark]) -> mysql_async::Result<bool> {
    let reader: Option<String> =
        write.query_first("SELECT name FROM tidings_outbox_reader WHERE one = 1 FOR UPDATE").await?;
    if reader.as_deref() != Some(name) {
        return Ok(false);
    }
    // By number, whatever the optimizer thinks of small tables: a scan would wait for rows that are not committed. The
    // second list spares rows that got the number of another.
    let ids = listed(marks.iter().map(|mark| mark.id.to_string()));
    let texts = listed(marks.iter().map(|mark| format!("'{}'", mark.text())));
    let sql = format!(
        "DELETE o FROM tidings_outbox AS o FORCE INDEX (PRIMARY)
         WHERE o.id IN ({ids}) AND CONCAT(o.id, ':', LEFT(SHA2(o.event_id, 256), 8)) IN ({texts})"
    );
    write.query_drop(sql).await?;
    Ok(true)
}

/// None if somebody holds a lock for too long.
async fn within_lock<T>(question: impl Future<Output = mysql_async::Result<T>>) -> Result<Option<T>, ReadError> {
    let answered = async {
        match question.await {
            Err(mysql_async::Error::Server(fault)) if LOCKED.contains(&fault.code) => Ok(None),
            other => other.map(Some),
        }
    };
    within(answered).await
}
