//! The outbox in a file of SQLite, read by number.
//!
//! SQLite has one writer at a time and gives a number while that one writes, so rows become visible in the order of their
//! numbers, and reading behind the last one skips nothing. The last row that was relayed is never cleared away: if it is
//! not there any more, or is another one, then this is another history (a backup, another file), and it is read from its
//! beginning.

mod clear;
pub mod install;
mod session;
pub mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::reader::{Batch, Opened, ReadError};
use session::Session;

/// How long a statement waits for the lock of somebody else.
const LOCK: Duration = Duration::from_secs(5);

/// How far an outbox has been read, as it is kept in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Position {
    /// The number of the last row that was relayed; 0: none was.
    after: i64,
    /// The id of its event.
    event_id: String,
}

/// Reads one outbox.
pub struct Reader {
    path: PathBuf,
    /// What this installation of Tidings is called in the source.
    name: Box<str>,
    /// Never locked for long, for nobody shares it: a connection may be moved to another thread, but not be looked at by
    /// two.
    session: Mutex<Option<Session>>,
    /// At most one task, which ends with the reader.
    clearing: JoinSet<()>,
    /// Whether rows came since the last clearing began.
    rows_since_clear: bool,
}

impl Reader {
    /// A reader that has not opened the file yet. `url`: as `sqlite:///path/app.db`; the error says what is wrong.
    pub fn new(url: &str, name: &str) -> Result<Self, String> {
        let (session, clearing) = (Mutex::new(None), JoinSet::new());
        // What a reader before this one has left is cleared away too.
        Ok(Self { path: path(url)?, name: name.into(), session, clearing, rows_since_clear: true })
    }

    pub(super) async fn open(&mut self, position: Option<&str>, take: bool) -> Result<Opened, ReadError> {
        *self.session.get_mut() = None;
        self.clearing.abort_all();
        let known = position.map(Position::parse).transpose()?.unwrap_or_default();
        let (path, name) = (self.path.clone(), self.name.clone());
        let (session, opened) = away((), move |()| {
            let session = Session::open(&path, &name, take)?;
            let reset = (!session.holds(&known)?).then(|| {
                "its last relayed row is gone: the file was restored or replaced, or rows were deleted".to_owned()
            });
            let position = if reset.is_some() { Position::default() } else { known };
            Ok((session, Opened { position: position.text(), reset }))
        })
        .await?
        .1?;
        *self.session.get_mut() = Some(session);
        Ok(opened)
    }

    pub(super) async fn poll(&mut self, position: &str) -> Result<Batch, ReadError> {
        let position = Position::parse(position)?;
        let session = self.session.get_mut().take();
        let session = session.ok_or_else(|| ReadError::Trouble("not connected".to_owned()))?;
        let (session, batch) = away(session, move |session| session.poll(&position)).await?;
        *self.session.get_mut() = Some(session);
        let batch = batch?;
        self.rows_since_clear |= !batch.rows.is_empty();
        Ok(batch)
    }

    /// Begins to clear away; that goes on beside the reading.
    pub(super) fn clear(&mut self, position: &str) -> Result<Box<str>, ReadError> {
        while self.clearing.try_join_next().is_some() {}
        if self.rows_since_clear && self.clearing.is_empty() {
            self.clearing.spawn(clear::clear(self.path.clone(), self.name.clone(), Position::parse(position)?));
            self.rows_since_clear = false;
        }
        Ok(position.into())
    }

    pub(super) async fn woken(&mut self, pause: Duration) {
        sleep(pause).await;
    }
}

impl Position {
    fn parse(text: &str) -> Result<Self, ReadError> {
        serde_json::from_str(text).map_err(|error| ReadError::Trouble(format!("the kept position: {error}")))
    }

    fn text(&self) -> Box<str> {
        // Texts and numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

/// The file that a URL names; the error says what is wrong.
pub fn path(url: &str) -> Result<PathBuf, String> {
    let path = url.strip_prefix("sqlite://").map(Path::new);
    let path = path.filter(|path| path.is_absolute() && !url.contains(['?', '#', '%']));
    path.map(Path::to_owned)
        .ok_or_else(|| "a URL as in sqlite:///var/lib/shop/app.db: three slashes, and the path as it is".to_owned())
}

/// Works on `state` where waiting for a disk or a lock holds nobody up. If the caller is dropped meanwhile, so is the state.
async fn away<S: Send + 'static, T: Send + 'static>(
    mut state: S,
    work: impl FnOnce(&mut S) -> T + Send + 'static,
) -> Result<(S, T), ReadError> {
    let done = spawn_blocking(move || {
        let result = work(&mut state);
        (state, result)
    });
    done.await.map_err(|error| ReadError::Trouble(error.to_string()))
}

/// What a person reads of a fault.
#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn told(error: rusqlite::Error) -> ReadError {
    ReadError::Trouble(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file() {
        assert_eq!(path("sqlite:///var/lib/shop/app.db"), Ok(PathBuf::from("/var/lib/shop/app.db")));
        for url in
            ["sqlite://app.db", "sqlite:app.db", "sqlite:///a.db?mode=ro", "sqlite:///a%20b", "/a.db", "sqlite://"]
        {
            assert!(path(url).is_err(), "{url}");
        }
    }
}
