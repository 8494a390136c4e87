//! What a slot tells of a transaction, read from the bytes of `pgoutput`, version 1, with messages, values in binary form.
//!
//! Layouts: PostgreSQL's manual, "Logical Replication Message Formats". A transaction comes whole and in the order of
//! commits: `Begin`, its rows and messages, `Commit`. Numbers are big-endian. Places in the write-ahead log are plain numbers.

use bytes::{Buf as _, Bytes};
use tidings_core::time::Timestamp;

use crate::outbox::postgres::values::since_2000;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A transaction follows whose commit record begins at `commit`; `Commit` tells where that ends.
    Begin { commit: u64, time: Timestamp },
    /// All of it was told. `end`: what may be confirmed once it is kept.
    Commit { end: u64 },
    /// Columns of a table, told before its first row and after each change of it.
    Table { id: u32, schema: String, name: String, columns: Vec<String> },
    /// A new row, its values in the order of the table's columns.
    Row { table: u32, values: Vec<Option<Bytes>> },
    /// From `pg_logical_emit_message`. One outside of a transaction stays although its transaction was rolled back.
    Message { transactional: bool, at: u64, prefix: String, content: Bytes },
    /// What an outbox does not need: types, origins, updates, deletions, truncations.
    Other,
}

/// Reads one message; the error says what is wrong with the bytes.
pub(super) fn read(mut bytes: Bytes) -> Result<Told, String> {
    let kind = u8_of(&mut bytes)?;
    let told = match kind {
        b'B' => {
            let commit = u64_of(&mut bytes)?;
            let time = since_2000(u64_of(&mut bytes)?.cast_signed());
            // The transaction's id.
            skip(&mut bytes, 4)?;
            Told::Begin { commit, time }
        }
        b'C' => {
            // Flags, and where its record begins.
            skip(&mut bytes, 1 + 8)?;
            let end = u64_of(&mut bytes)?;
            skip(&mut bytes, 8)?;
            Told::Commit { end }
        }
        b'R' => table(&mut bytes)?,
        b'I' => row(&mut bytes)?,
        b'M' => {
            let transactional = u8_of(&mut bytes)? & 1 == 1;
            let (at, prefix) = (u64_of(&mut bytes)?, text(&mut bytes)?);
            let length = u32_of(&mut bytes)?;
            Told::Message { transactional, at, prefix, content: take(&mut bytes, length)? }
        }
        b'O' | b'Y' | b'U' | b'D' | b'T' => return Ok(Told::Other),
        _ => return Err(format!("a message of kind {:?} from the slot", char::from(kind))),
    };
    if bytes.has_remaining() {
        return Err(format!("{} bytes too many from the slot", bytes.remaining()));
    }
    Ok(told)
}

fn table(bytes: &mut Bytes) -> Result<Told, String> {
    let (id, schema, name) = (u32_of(bytes)?, text(bytes)?, text(bytes)?);
    // Which columns tell an old row.
    skip(bytes, 1)?;
    let count = u16_of(bytes)?;
    let mut columns = Vec::new();
    for _ in 0..count {
        skip(bytes, 1)?;
        columns.push(text(bytes)?);
        // Its type and that one's modifier.
        skip(bytes, 4 + 4)?;
    }
    Ok(Told::Table { id, schema, name, columns })
}

fn row(bytes: &mut Bytes) -> Result<Told, String> {
    let table = u32_of(bytes)?;
    if u8_of(bytes)? != b'N' {
        return Err("a row without new values from the slot".to_owned());
    }
    let count = u16_of(bytes)?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match u8_of(bytes)? {
            b'n' => None,
            b'b' => {
                let length = u32_of(bytes)?;
                Some(take(bytes, length)?)
            }
            // 'u', an unchanged value, is of updates only; 't', text, of types that have no binary form.
            kind => return Err(format!("a value of kind {:?} from the slot", char::from(kind))),
        });
    }
    Ok(Told::Row { table, values })
}

fn short() -> String {
    "a message from the slot ends too early".to_owned()
}

fn u8_of(bytes: &mut Bytes) -> Result<u8, String> {
    bytes.try_get_u8().map_err(|_| short())
}

fn u16_of(bytes: &mut Bytes) -> Result<u16, String> {
    bytes.try_get_u16().map_err(|_| short())
}

fn u32_of(bytes: &mut Bytes) -> Result<u32, String> {
    bytes.try_get_u32().map_err(|_| short())
}

fn u64_of(bytes: &mut Bytes) -> Result<u64, String> {
    bytes.try_get_u64().map_err(|_| short())
}

fn skip(bytes: &mut Bytes, count: usize) -> Result<(), String> {
    if bytes.remaining() < count {
        return Err(short());
    }
    bytes.advance(count);
    Ok(())
}

fn take(bytes: &mut Bytes, length: u32) -> Result<Bytes, String> {
    let length = usize::try_from(length).map_err(|_| short())?;
    if bytes.remaining() < length { Err(short()) } else { Ok(bytes.split_to(length)) }
}

/// Text that ends with a zero.
fn text(bytes: &mut Bytes) -> Result<String, String> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(short)?;
    let text = bytes.split_to(end);
    bytes.advance(1);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As PostgreSQL 15 told it: a row of the outbox in one transaction, a message in the next.
    pub(crate) const BEGIN: &str = "42000000000194a41800030465841fb62d000002e6";
    pub(crate) const TABLE: &str = "520000401a746964696e6773006f7574626f780064000d007478696400000013cdffffffff0169640000000014ffffffff016861\
        6c660000000015ffffffff006576656e745f69640000000019ffffffff006576656e745f747970650000000019ffffffff007665\
        7273696f6e0000000017ffffffff006f636375727265645f617400000004a0ffffffff00736f757263650000000019ffffffff00\
        6167677265676174655f69640000000019ffffffff006368616e6e656c7300000003f1ffffffff006d6574616461746100000000\
        72ffffffff00646174610000000072ffffffff00637265617465645f617400000004a0ffffffff";
    pub(crate) const ROW: &str = "490000401a4e000d620000000800000000000002e662000000080000000000000001620000000200006200000024333763383238\
        31632d633431652d346436642d613230322d313366326665313634326630620000000d6f726465722e637265617465646e620000\
        0008000304633b3aaef86e6e6200000020000000010000000000000019000000020000000100000001780000000379207a6e6200\
        0000077b226e223a317d620000000800030465841fb4d1";
    pub(crate) const COMMIT: &str = "4300000000000194a418000000000194a44800030465841fb62d";
    pub(crate) const MESSAGE: &str =
        "4d01000000000194a498746964696e677300000000157b2274797065223a226f726465722e70616964227d";

    pub(crate) fn bytes(hex: &str) -> Bytes {
        let digits: Vec<u8> = hex.bytes().collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn a_transaction_is_read_as_the_server_tells_it() {
        let time = Timestamp::parse_rfc3339("2026-11-29T09:16:25.010Z").unwrap();
        assert_eq!(read(bytes(BEGIN)), Ok(Told::Begin { commit: 0x0194_A418, time }));
        assert_eq!(read(bytes(COMMIT)), Ok(Told::Commit { end: 0x0194_A448 }));
        let Ok(Told::Table { id, schema, name, columns }) = read(bytes(TABLE)) else { panic!("no table") };
        assert_eq!((&*schema, &*name, columns.len()), ("tidings", "outbox", 13));
        let Ok(Told::Row { table, values }) = read(bytes(ROW)) else { panic!("no row") };
        assert_eq!(table, id);
        let value = |name: &str| values[columns.iter().position(|column| column == name).unwrap()].clone();
        assert_eq!(value("id"), Some(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 1])));
        assert_eq!(value("version"), None);
        assert_eq!(value("data"), Some(Bytes::from_static(b"{\"n\":1}")));
    }

    #[test]
    fn a_message_is_read_with_its_prefix() {
        let content = Bytes::from_static(b"{\"type\":\"order.paid\"}");
        let told = Told::Message { transactional: true, at: 0x0194_A498, prefix: "tidings".to_owned(), content };
        assert_eq!(read(bytes(MESSAGE)), Ok(told));
    }

    #[test]
    fn a_message_cut_short_or_with_more_behind_it_is_refused() {
        for hex in [BEGIN, TABLE, ROW, COMMIT, MESSAGE] {
            let whole = bytes(hex);
            for end in 0..whole.len() {
                assert!(read(whole.slice(..end)).is_err(), "{hex} up to {end}");
            }
            assert!(read([&whole[..], b"0"].concat().into()).is_err(), "{hex} and more");
        }
    }
}
