//! Values of an outbox's columns, as PostgreSQL sends them in binary form.

use bytes::Bytes;
use tidings_core::time::Timestamp;
use tokio_postgres::types::{FromSql, Type};

/// Text of any encoding that a database may hold: no row may stop the others.
pub(super) struct Text(pub(super) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TEXT
    }
}

/// A `timestamptz`: microseconds since 2000, or an infinity, which becomes the end of time.
pub(super) struct Time(pub(super) Timestamp);

/// 2000-01-01, in milliseconds since 1970.
const EPOCH_MS: i64 = 946_684_800_000;

/// A time as PostgreSQL counts it.
pub(super) fn since_2000(micros: i64) -> Timestamp {
    Timestamp::from_millis(micros.div_euclid(1_000).saturating_add(EPOCH_MS))
}

impl<'a> FromSql<'a> for Time {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(since_2000(i64::from_be_bytes(raw.try_into()?))))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }
}

/// The text of a `json` value.
pub(super) struct Json(pub(super) Bytes);

impl<'a> FromSql<'a> for Json {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Bytes::copy_from_slice(raw)))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::JSON
    }
}
