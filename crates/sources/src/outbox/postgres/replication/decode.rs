//! What a slot tells, made rows of.

use std::fmt::Write as _;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tidings_core::time::Timestamp;
use tokio_postgres::types::{FromSql, Type};

use super::pgoutput::Told;
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use crate::outbox::Row;
use crate::outbox::postgres::position::Place;
use crate::outbox::postgres::values::{Json, Text, Time};

/// What messages of the outbox are called in `pg_logical_emit_message`.
const PREFIX: &str = "tidings";
/// Numbers of messages are their places in the write-ahead log, from here on: rows have smaller ones.
const MESSAGES: u64 = 1 << 52;
/// The columns that are read, in the order of the code below.
const COLUMNS: [&str; 12] = [
    "txid",
    "id",
    "event_id",
    "event_type",
    "version",
    "occurred_at",
    "source",
    "aggregate_id",
    "channels",
    "metadata",
    "data",
    "created_at",
];

/// A row or a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) row: Row,
    /// The transaction, of a row: a message is in no table.
    pub(super) transaction: Option<u64>,
    /// Behind it.
    pub(super) place: Place,
}

impl Item {
    /// Bytes that it takes, roughly.
    pub(super) fn weight(&self) -> usize {
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        256 + of(&self.row.data) + of(&self.row.metadata)
    }
}

/// Puts together what is told. Small transactions come whole.
pub(super) struct Decoder {
    /// The cluster: messages are called after it.
    system: String,
    /// What lies before is in the log.
    done: Place,
    /// The outbox's id, and where its columns are.
    outbox: Option<(u32, [usize; 12])>,
    open: Option<Open>,
}

/// A transaction of which more is to come.
struct Open {
    time: Timestamp,
    /// Behind what was told of it.
    place: Place,
    items: Vec<Item>,
    bytes: usize,
}

/// Items that may be taken, and the place behind them.
pub(super) type Released = (Vec<Item>, Place);

impl Decoder {
    pub(super) fn new(system: String, done: Place) -> Self {
        Self { system, done, outbox: None, open: None }
    }

    /// Whether what was told so far is whole transactions.
    pub(super) fn is_between(&self) -> bool {
        self.open.is_none()
    }

    /// Takes what was told next. The error says what is wrong with it.
    pub(super) fn take(&mut self, told: Told) -> Result<Option<Released>, String> {
        match told {
            Told::Begin { commit, time } => {
                self.open = Some(Open { time, place: Place { commit, within: 0 }, items: Vec::new(), bytes: 0 });
                Ok(None)
            }
            Told::Commit { end } => {
                let mut open = self.open.take().ok_or("a commit without a transaction from the slot")?;
                let place = Place { commit: end, within: 0 };
                if let Some(last) = open.items.last_mut() {
                    last.place = place;
                }
                Ok(Some((open.items, place)))
            }
            Told::Table { id, schema, name, columns } => {
                if (&*schema, &*name) == ("tidings", "outbox") {
                    self.outbox = Some((id, places(&columns)?));
                }
                Ok(None)
            }
            Told::Row { table, values } => match &self.outbox {
                Some((outbox, places)) if *outbox == table => {
                    let (transaction, row) = row(places, &values)?;
                    Ok(self.push(Some(transaction), |_| row))
                }
                _ => Ok(None),
            },
            Told::Message { transactional: true, at, prefix, content } if prefix == PREFIX => {
                let id = self.id(at, &content);
                Ok(self.push(None, |time| Row::of_whole(MESSAGES + at, id, time, &content)))
            }
            Told::Message { .. } | Told::Other => Ok(None),
        }
    }

    fn push(&mut self, transaction: Option<u64>, row: impl FnOnce(Timestamp) -> Row) -> Option<Released> {
        let open = self.open.as_mut()?;
        open.place.within += 1;
        if open.place > self.done {
            let item = Item { row: row(open.time), transaction, place: open.place };
            open.bytes += item.weight();
            open.items.push(item);
        }
        let full = open.items.len() >= BATCH_ROWS_MAX || open.bytes >= BATCH_BYTES_MAX;
        full.then(|| {
            open.bytes = 0;
            (std::mem::take(&mut open.items), open.place)
        })
    }

    /// The id of a message that names none: the same whenever it is told.
    fn id(&self, at: u64, content: &[u8]) -> String {
        let digest =
            Sha256::new().chain_update(&self.system).chain_update(at.to_be_bytes()).chain_update(content).finalize();
        digest[..16].iter().fold(String::new(), |mut id, byte| {
            // Writing to a String cannot fail.
            let _ = write!(id, "{byte:02x}");
            id
        })
    }
}

fn places(columns: &[String]) -> Result<[usize; 12], String> {
    let mut places = [0; 12];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        *place = columns
            .iter()
            .position(|column| column == name)
            .ok_or_else(|| format!("the outbox has no column {name}: make it anew"))?;
    }
    Ok(places)
}

/// A row, and its transaction.
fn row(places: &[usize; 12], values: &[Option<Bytes>]) -> Result<(u64, Row), String> {
    let raw = |column: usize| values.get(places[column]).and_then(Option::as_deref);
    let text = |column| value::<Text>(raw(column), &Type::TEXT).map(|text| text.map(|text| text.0));
    let json = |column| value::<Json>(raw(column), &Type::JSON).map(|json| json.map(|json| json.0));
    let time = |column| value::<Time>(raw(column), &Type::TIMESTAMPTZ).map(|time| time.map(|time| time.0));
    let transaction = value::<i64>(raw(0), &Type::INT8)?.unwrap_or_default().cast_unsigned();
    let channels = value::<Vec<Option<Text>>>(raw(8), &Type::TEXT_ARRAY)?;
    let row = Row {
        number: value::<i64>(raw(1), &Type::INT8)?.unwrap_or_default().cast_unsigned(),
        event_id: text(2)?,
        event_type: text(3)?.unwrap_or_default(),
        version: value::<i32>(raw(4), &Type::INT4)?.map(i64::from),
        timestamp: time(5)?.or(time(11)?),
        source: text(6)?,
        aggregate_id: text(7)?,
        // A channel that is null is an empty one, which the gate refuses.
        channels: channels.into_iter().flatten().map(|text| text.map(|text| text.0).unwrap_or_default()).collect(),
        metadata: json(9)?,
        data: json(10)?,
        ..Row::default()
    };
    Ok((transaction, row))
}

fn value<'a, T: FromSql<'a>>(raw: Option<&'a [u8]>, of: &Type) -> Result<Option<T>, String> {
    raw.map(|raw| T::from_sql(of, raw)).transpose().map_err(|error| format!("a value from the slot: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::pgoutput::{self, tests as told};
    use super::*;

    fn all(decoder: &mut Decoder, messages: &[&str]) -> (Vec<Item>, Option<Place>) {
        let (mut items, mut behind) = (Vec::new(), None);
        for message in messages {
            if let Some((released, place)) = decoder.take(pgoutput::read(told::bytes(message)).unwrap()).unwrap() {
                items.extend(released);
                behind = Some(place);
            }
        }
        (items, behind)
    }

    const TRANSACTION: [&str; 5] = [told::BEGIN, told::TABLE, told::ROW, told::MESSAGE, told::COMMIT];

    #[test]
    fn a_transaction_becomes_rows_with_the_place_behind_each() {
        let mut decoder = Decoder::new("7".to_owned(), Place::default());
        let (items, behind) = all(&mut decoder, &TRANSACTION);
        let [row, message] = &items[..] else { panic!("{items:?}") };
        assert_eq!((row.transaction, row.place), (Some(742), Place { commit: 0x0194_A418, within: 1 }));
        assert_eq!((row.row.number, &*row.row.event_type), (1, "order.created"));
        assert_eq!(row.row.channels, ["x", "y z"]);
        assert_eq!(row.row.data.as_deref(), Some(&b"{\"n\":1}"[..]));
        assert_eq!(row.row.timestamp, Timestamp::parse_rfc3339("2026-11-29T06:32:52.107Z"));
        assert_eq!((message.transaction, Some(message.place)), (None, behind));
        assert_eq!(behind, Some(Place { commit: 0x0194_A448, within: 0 }));
        assert!(message.row.whole && message.row.number > row.row.number && decoder.is_between());
    }

    #[test]
    fn what_is_in_the_log_is_not_told_again() {
        for (commit, within, left) in
            [(0x0194_A418, 0, 2), (0x0194_A418, 1, 1), (0x0194_A418, 2, 0), (0x0194_A448, 0, 0)]
        {
            let mut decoder = Decoder::new("7".to_owned(), Place { commit, within });
            let (items, behind) = all(&mut decoder, &TRANSACTION);
            assert_eq!((items.len(), behind.unwrap().commit), (left, 0x0194_A448), "{commit:x} {within}");
        }
    }

    #[test]
    fn a_message_without_an_id_has_the_same_one_each_time_and_no_other_has_it() {
        let id = |system: &str, at, content: &[u8]| Decoder::new(system.to_owned(), Place::default()).id(at, content);
        let first = id("7", 1, b"a");
        assert_eq!((first.len(), &first), (32, &id("7", 1, b"a")));
        assert!([id("8", 1, b"a"), id("7", 2, b"a"), id("7", 1, b"b")].iter().all(|other| *other != first));
    }

    #[test]
    fn a_large_transaction_is_released_in_parts() {
        let mut decoder = Decoder::new("7".to_owned(), Place::default());
        all(&mut decoder, &[told::BEGIN, told::TABLE]);
        let (items, behind) = all(&mut decoder, &vec![told::ROW; BATCH_ROWS_MAX + 1]);
        assert_eq!((items.len(), behind.unwrap().within as usize), (BATCH_ROWS_MAX, BATCH_ROWS_MAX));
        assert!(!decoder.is_between());
        assert_eq!(all(&mut decoder, &[told::COMMIT]).0.len(), 1);
    }
}
