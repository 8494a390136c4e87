//! The outbox of a MySQL or MariaDB database: read from its beginning, and emptied of what was relayed.
//!
//! InnoDB gives a row its number when it is inserted and shows it when its transaction commits, so reading behind the last
//! number skips rows. Here each look reads what the table shows, by number, but for the few rows that are in the log
//! already; those are listed in the position, and deleted soon after the commit that made events of them. So a row is
//! found whenever it is committed, and a transaction that runs for hours holds back its own rows only. If one transaction
//! waited for another's lock, whoever sees its rows sees the other's too, with smaller numbers: so the order of each
//! aggregate holds.
//!
//! Looking takes no lock. Deleting takes those of the deleted rows, by their numbers, at READ COMMITTED: never of the gaps
//! that applications insert into.

mod clear;
pub mod install;
mod position;
mod session;
pub mod watch;

use std::time::Duration;

pub use mysql_async::Opts;
use mysql_async::{OptsBuilder, UrlError};
use tokio::time::sleep;

use super::reader::{Batch, Opened, ReadError};
use clear::Clearing;
use position::{Mark, Position};
use session::{Head, Session};

/// Time to connect, and for each answer.
const ANSWER: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// Rows in one batch, at most.
const BATCH_ROWS_MAX: usize = 2_000;
/// Bytes of data in one batch, but for its last row.
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Rows that are in the log and still in the table, at most: then reading waits until some are deleted.
const MARKS_MAX: usize = 8 * BATCH_ROWS_MAX;
/// What was relayed is deleted once there is so much of it,
const CLEAR_ROWS: usize = 512;
/// or after so many looks,
const CLEAR_LOOKS: u32 = 64;
/// or after so many in a row that found nothing.
const CLEAR_QUIET_LOOKS: u32 = 6;
/// Statements run at READ COMMITTED: a locking one then takes no gaps. Nobody waits long for a lock of somebody else.
const SETUP: [&str; 2] =
    ["SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "SET SESSION innodb_lock_wait_timeout = 5"];

/// Reads one outbox.
pub struct Reader {
    opts: Opts,
    /// What this installation of Tidings is called in the source.
    name: Box<str>,
    session: Option<Session>,
    clearing: Clearing,
    looks: u32,
    quiet_looks: u32,
}

impl Reader {
    /// A reader that has not connected yet. `url`: as `mysql://user@host:3306/database`; the error says what is wrong.
    pub fn new(url: &str, password: Option<&str>, name: &str) -> Result<Self, String> {
        let opts = opts(url, password)?;
        let clearing = Clearing::new(opts.clone(), name.into());
        Ok(Self { opts, name: name.into(), session: None, clearing, looks: 0, quiet_looks: 0 })
    }

    pub(super) async fn open(&mut self, position: Option<&str>, take: bool) -> Result<Opened, ReadError> {
        self.session = None;
        self.clearing.abort();
        let position = position.map(Position::parse).transpose()?.unwrap_or_default();
        let mut session = Session::connect(&self.opts).await?;
        match session.reader().await? {
            Some(reader) if *reader == *self.name => {}
            Some(reader) if !take => return Err(ReadError::taken(Some(&reader))),
            _ => session.claim(&self.name).await?,
        }
        self.session = Some(session);
        // What a table that was restored or made anew shows is not among the marks, so it is read.
        Ok(Opened { position: position.text(), reset: None })
    }

    pub(super) async fn poll(&mut self, position: &str) -> Result<Batch, ReadError> {
        let mut position = Position::parse(position)?;
        position.without(&self.clearing.finished().await?);
        if position.len() > MARKS_MAX {
            self.clearing.start(position.done.clone());
            position.without(&self.clearing.wait().await?);
        }
        let session = self.session.as_mut().ok_or_else(|| ReadError::Trouble("not connected".to_owned()))?;
        let known = position.marks();
        let asked = known.len() + BATCH_ROWS_MAX;
        let heads = session.heads(&self.name, asked).await?;
        let full = heads.len() == asked;
        let fresh: Vec<_> = heads.into_iter().filter(|head| !known.contains(&head.mark)).collect();
        let taken = fits(&fresh);
        let more = full || taken < fresh.len();
        let rows = session.rows(&fresh[..taken]).await?;
        self.looks += 1;
        self.quiet_looks = if rows.is_empty() { self.quiet_looks + 1 } else { 0 };
        let due =
            self.looks >= CLEAR_LOOKS || self.quiet_looks >= CLEAR_QUIET_LOOKS || position.done.len() >= CLEAR_ROWS;
        // What the position before this one had passed is committed.
        if due && self.clearing.start(position.done.clone()) {
            self.looks = 0;
        }
        let position = position.behind(rows.iter().map(Mark::of).collect());
        Ok(Batch { rows, position: position.text(), more })
    }

    /// Deletes what is not deleted yet; that goes on beside the reading.
    pub(super) async fn clear(&mut self, position: &str) -> Result<Box<str>, ReadError> {
        let mut position = Position::parse(position)?;
        position.without(&self.clearing.finished().await?);
        let position = position.behind(Vec::new());
        self.clearing.start(position.done.clone());
        Ok(position.text())
    }

    pub(super) async fn woken(&mut self, pause: Duration) {
        sleep(pause).await;
    }
}

/// How many of them fit one batch.
fn fits(heads: &[Head]) -> usize {
    let mut bytes = 0;
    let full = heads.iter().take(BATCH_ROWS_MAX).position(|head| {
        bytes += head.bytes;
        bytes >= BATCH_BYTES_MAX
    });
    full.map_or(heads.len().min(BATCH_ROWS_MAX), |last| last + 1)
}

/// A connection's settings from a URL; the error says what is wrong.
pub fn opts(url: &str, password: Option<&str>) -> Result<Opts, String> {
    // The driver knows one scheme.
    let url = url.strip_prefix("mariadb://").map_or_else(|| url.to_owned(), |rest| format!("mysql://{rest}"));
    let opts = Opts::from_url(&url).map_err(|error| match error {
        UrlError::UnknownParameter { param } if param.starts_with("ssl") => clear_text(),
        UrlError::FeatureRequired { .. } => clear_text(),
        other => format!("a URL as in mysql://user@host/database: {other}"),
    })?;
    if opts.ssl_opts().is_some() {
        return Err(clear_text());
    }
    if opts.db_name().is_none_or(str::is_empty) {
        return Err("a URL as in mysql://user@host/database: it names no database".to_owned());
    }
    let password = password.or(opts.pass()).map(str::to_owned);
    // With a socket it would connect twice: what the URL says is meant.
    let prefer_socket = opts.socket().is_some();
    Ok(OptsBuilder::from_opts(opts)
        .pass(password)
        .setup(SETUP.to_vec())
        .prefer_socket(prefer_socket)
        .tcp_keepalive(Some(ANSWER))
        .stmt_cache_size(0)
        .into())
}

fn clear_text() -> String {
    "this version speaks to MySQL and MariaDB in clear text only; reach them over loopback, a socket or a tunnel"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_database_and_is_in_clear_text() {
        let made = opts("mariadb://tidings@db:3307/shop", Some("s3cret")).unwrap();
        assert_eq!((made.ip_or_hostname(), made.tcp_port(), made.db_name()), ("db", 3307, Some("shop")));
        assert_eq!((made.user(), made.pass()), (Some("tidings"), Some("s3cret")));
        for url in ["mysql://db", "mysql://db/", "postgres://db/shop", "mysql://db/shop?require_ssl=true", "x"] {
            let refused = opts(url, None).unwrap_err();
            assert!(!refused.is_empty(), "{url}");
        }
        assert!(opts("mysql://db/shop?require_ssl=true", None).unwrap_err().contains("clear text"));
    }

    #[test]
    fn a_batch_ends_behind_the_row_that_fills_it() {
        let heads = |bytes: &[u64]| -> Vec<Head> {
            bytes
                .iter()
                .enumerate()
                .map(|(id, bytes)| Head { mark: Mark::new(id as u64, b""), bytes: *bytes })
                .collect()
        };
        assert_eq!(fits(&[]), 0);
        assert_eq!(fits(&heads(&[1, 1, 1])), 3);
        assert_eq!(fits(&heads(&[BATCH_BYTES_MAX * 2, 1])), 1);
        assert_eq!(fits(&heads(&[1, BATCH_BYTES_MAX, 1])), 2);
        assert_eq!(fits(&heads(&[0; BATCH_ROWS_MAX + 1])), BATCH_ROWS_MAX);
    }
}
