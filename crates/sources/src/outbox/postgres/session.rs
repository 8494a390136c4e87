//! One connection to a source, and what is asked over it.

use std::error::Error as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidings_core::time::Timestamp;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Statement};

use super::access::Config;
use super::identity::Found;
use super::position::{Page, Position};
use super::snapshot::Snapshot;
use super::statements::{self, BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use super::wake::Wake;
use super::{ANSWER, CONNECT};
use crate::outbox::{Batch, ReadError, Row};

/// The layout that this version reads.
const LAYOUT: i32 = 1;

pub(super) struct Session {
    client: Client,
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
        Ok(Self { client, wake, tail, page })
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

async fn within<T>(question: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, ReadError> {
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

fn trouble(text: &str) -> ReadError {
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
        })
    };
    read().map_err(|error| told(&error))
}

/// Text of any encoding that a database may hold: no row may stop the others.
struct Text(String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TEXT
    }
}

/// A `timestamptz`: microseconds since 2000, or an infinity, which becomes the end of time.
struct Time(Timestamp);

/// 2000-01-01, in milliseconds since 1970.
const EPOCH_MS: i64 = 946_684_800_000;

impl<'a> FromSql<'a> for Time {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(Timestamp::from_millis(micros.div_euclid(1_000).saturating_add(EPOCH_MS))))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }
}

/// The text of a `json` value.
struct Json(Bytes);

impl<'a> FromSql<'a> for Json {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Bytes::copy_from_slice(raw)))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::JSON
    }
}
