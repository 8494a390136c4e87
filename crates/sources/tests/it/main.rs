//! Sources against real databases: what is committed there is in the log, once and in order.
#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped here is a failed test")]

mod mysql;
mod mysql_race;
mod outbox;
mod race;
mod replication;
mod restored;
mod rig;
mod sqlite;
mod tls;
mod wake;
mod watch;
mod wire;
