//! Emitting and receiving in transactions of sqlx, on PostgreSQL, MariaDB and SQLite: `tests/it` holds each to the same
//! laws. Copy from `tests/it/laws.rs`.
