//! One connection to a source, and what is asked over it.

use std::error::Error as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{AsyncMessage, Client, Statement};

use super::access::Config;
use super::identity::Found;
use super::position::{Page, Position};
use super::snapshot::Snapshot;
use super::statements::{self, BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use super::values::{Json, Text, Time};
use super::wake::Wake;
use super::{ANSWER, CONNECT};
use crate::outbox::{Batch, ReadError, Row};

/// The layout that this version reads.
const LAYOUT: i32 = 1;

pub(super) struct Session {
    /// Several may ask over it at a time.
    pub(super) client: Arc<Client>,
    wake: Option<Wake>,
    tail: Statement,
    page: Statement,
}

type Parameters<'a> = [&'a (dyn ToSql + Sync)];

impl Session {
    pub(super) async fn connect(config: &Config) -> Result<Self, ReadError> {
        let told = Arc::new(Notify::new());
        let notices = Arc::clone(&told);
        let client = connect_to_hear(config, move || notices.notify_one()).await?;
        let known = within(client.query_one(statements::IDENTITY, &[])).await?;
        if known.get::<_, Option<&str>>(0).is_none() {
            return Err(trouble("this is a standby: name the primary, for only that one knows which transactions run"));
        }
        if !known.get::<_, bool>(3) {
            return Err(trouble("there is no outbox here: make one with `tidings outbox install`"));
        }
        let tail = within(client.prepare(statements::TAIL)).await?;
        let page = within(client.prepare(statements::PAGE)).await?;
        let wake = within(Wake::open(&client, told)).await?;
        Ok(Self { client: Arc::new(client), wake, tail, page })
    }

    /// Resolves after `pause`, or earlier if the database says so.
    pub(super) async fn rest(&mut self, pause: Duration) {
        match &mut self.wake {
            Some(wake) => wake.rest(&self.client, pause).await,
            None => sleep(pause).await,
        }
    }

    pub(super) async fn identity(&self) -> Result<Found, ReadError> {
        let known = within(self.client.query_one(statements::IDENTITY, &[])).await?;
        let state = within(self.client.query_one(statements::STATE, &[])).await?;
        let layout: i32 = state.get(0);
        if layout != LAYOUT {
            return Err(trouble(&format!("the outbox has layout {layout}, this Tidings reads layout {LAYOUT}")));
        }
        Ok(Found {
            timeline: known.get::<_, Option<String>>(0).unwrap_or_default(),
            system: known.get(1),
            xmax: known.get::<_, &str>(2).parse::<Snapshot>().map_err(ReadError::Trouble)?.xmax,
            install: state.get(1),
            reader: state.get(2),
            mark: state.get(3),
            era: state.get(4),
        })
    }

    /// Says who reads; `None` if that is somebody else.
    pub(super) async fn mark(&self, reader: &str, take: bool, position: &Position) -> Result<Option<i64>, ReadError> {
        let parameters: &Parameters<'_> = &[&reader, &take, &position.seen.to_string(), &position.identity.era];
        Ok(within(self.client.query_one(statements::MARK, parameters)).await?.get(0))
    }

    /// Clears relayed rows away, if it is time.
    pub(super) async fn turn(&self, seen: &Snapshot, age: Duration, bytes: i64) -> Result<bool, ReadError> {
        let parameters: &Parameters<'_> = &[&seen.to_string(), &age.as_secs_f64(), &bytes];
        Ok(within(self.client.query_one(statements::TURN, parameters)).await?.get(0))
    }

    /// A snapshot, and a place in the write-ahead log behind all commits that it shows.
    pub(super) async fn horizon(&self) -> Result<(Snapshot, u64), ReadError> {
        // The snapshot is taken first: a statement has one before it calls anything.
        let row = within(self.client.query_one(statements::HORIZON, &[])).await?;
        Ok((row.get::<_, &str>(0).parse().map_err(ReadError::Trouble)?, row.get::<_, PgLsn>(1).into()))
    }

    /// What has become visible since `position`.
    pub(super) async fn tail(&self, mut position: Position) -> Result<Batch, ReadError> {
        let (xmax, running) = (position.seen.xmax.to_string(), position.seen.running_texts());
        let parameters: &Parameters<'_> = &[&xmax, &running, &BATCH_ROWS_MAX, &BATCH_BYTES_MAX];
        let found = within(self.client.query(&self.tail, parameters)).await?;
        let Some((head, rest)) = found.split_first() else { return Err(trouble("no answer to a poll")) };
        let now: Snapshot = head.get::<_, &str>(1).parse().map_err(ReadError::Trouble)?;
        if now.xmax < position.seen.xmax {
            return Err(trouble("its transaction counter went back"));
        }
        let count = i64::from(head.get::<_, i32>(3));
        let rows = rest.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        if count >= BATCH_ROWS_MAX {
            let span = within(self.client.query_one(statements::SPAN, &[&xmax, &running, &now.to_string()])).await?;
            if let (Some(first), Some(last)) = (span.get::<_, Option<i64>>(0), span.get::<_, Option<i64>>(1)) {
                position.page = Some(Page { until: now, after: first - 1, last });
                return Ok(Batch { rows: Vec::new(), position: position.text(), more: true });
            }
        } else if rest.len() < usize::try_from(count).unwrap_or(0) {
            let last = head.get::<_, &str>(2).parse().map_err(|_| trouble("no largest number"))?;
            position.page = Some(Page { until: now, after: last_number(&rows), last });
            return Ok(Batch { rows, position: position.text(), more: true });
        }
        position.seen = now;
        Ok(Batch { rows, position: position.text(), more: false })
    }

    /// The next rows of a difference that did not fit one batch.
    pub(super) async fn page(&self, mut position: Position, mut page: Page) -> Result<Batch, ReadError> {
        let (xmax, running) = (position.seen.xmax.to_string(), position.seen.running_texts());
        let through = page.last.min(page.after + BATCH_ROWS_MAX);
        let until = page.until.to_string();
        let parameters: &Parameters<'_> = &[&page.after, &through, &xmax, &running, &until, &BATCH_BYTES_MAX];
        let found = within(self.client.query(&self.page, parameters)).await?;
        let Some((head, rest)) = found.split_first() else { return Err(trouble("no answer to a poll")) };
        let rows = rest.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let whole = usize::try_from(head.get::<_, i32>(3)).is_ok_and(|count| count == rows.len());
        page.after = if whole { through } else { last_number(&rows) };
        if page.after >= page.last {
            // What came meanwhile is the next difference.
            position.seen = page.until;
        } else {
            position.page = Some(page);
        }
        Ok(Batch { rows, position: position.text(), more: true })
    }
}

/// A connection that ends with its client.
pub(super) async fn connect(config: &Config) -> Result<Client, ReadError> {
    connect_to_hear(config, || {}).await
}

/// The same; each notification is `heard`.
async fn connect_to_hear(config: &Config, heard: impl Fn() + Send + 'static) -> Result<Client, ReadError> {
    let reached = timeout(CONNECT, config.config.connect(config.tls.clone())).await;
    let (client, mut connection) =
        reached.map_err(|_| trouble("no connection in time"))?.map_err(|error| told(&error))?;
    tokio::spawn(async move {
        // What ends the connection is told by the question under way.
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                heard();
            }
        }
    });
    Ok(client)
}

pub(super) async fn within<T>(
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, ReadError> {
    let answered = timeout(ANSWER, question).await.map_err(|_| trouble("no answer in time"))?;
    answered.map_err(|error| told(&error))
}

/// What a person reads of a fault.
pub(super) fn told(error: &tokio_postgres::Error) -> ReadError {
    let text = match (error.as_db_error(), error.source()) {
        (Some(fault), _) => {
            fault.hint().map_or_else(|| fault.message().to_owned(), |hint| format!("{}: {hint}", fault.message()))
        }
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    };
    ReadError::Trouble(text)
}

pub(super) fn trouble(text: &str) -> ReadError {
    ReadError::Trouble(text.to_owned())
}

fn last_number(rows: &[Row]) -> i64 {
    rows.last().map_or(0, |row| row.number.cast_signed())
}

fn row(found: &tokio_postgres::Row) -> Result<Row, ReadError> {
    let text = |column: usize| found.try_get::<_, Option<Text>>(column).map(|text| text.map(|text| text.0));
    let json = |column: usize| found.try_get::<_, Option<Json>>(column).map(|json| json.map(|json| json.0));
    let read = || -> Result<Row, tokio_postgres::Error> {
        let occurred: Option<Time> = found.try_get(4)?;
        let written: Option<Time> = found.try_get(10)?;
        let channels: Option<Vec<Option<Text>>> = found.try_get(7)?;
        Ok(Row {
            number: found.try_get::<_, i64>(0)?.cast_unsigned(),
            event_id: text(1)?,
            event_type: text(2)?.unwrap_or_default(),
            version: found.try_get::<_, Option<i32>>(3)?.map(i64::from),
            timestamp: occurred.or(written).map(|time| time.0),
            no_timestamp: None,
            source: text(5)?,
            aggregate_id: text(6)?,
            // A channel that is null is an empty one, which the gate refuses.
            channels: channels.into_iter().flatten().map(|text| text.map(|text| text.0).unwrap_or_default()).collect(),
            metadata: json(8)?,
            data: json(9)?,
            whole: false,
        })
    };
    read().map_err(|error| told(&error))
}
