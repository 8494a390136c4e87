//! The transactional outbox: rows that an application commits together with its change become events of the log.
//!
//! A [`Reader`] gives rows and the position behind them; it knows one kind of database. The [`Relay`] makes events of the
//! rows, through the gate that every event passes, and appends them in the commit that also keeps the position: a row
//! becomes an event exactly once, whatever is killed. A row that cannot become an event is put aside whole, and so are
//! the later ones of its aggregate; all others go on.
//!
//! Another kind of database is a variant of [`Reader`]: `open`, `poll`, `clear`, `woken`.

mod alarm;
mod desk;
mod meter;
pub mod mysql;
mod order;
pub mod postgres;
mod quarantine;
mod reader;
mod relay;
mod row;
pub mod sqlite;
pub mod watch;

pub use alarm::Alarm;
pub use desk::Settings;
pub use meter::{Measures, Meter, State};
pub use order::{Answered, Order, Orders};
pub use postgres::replication::slot::Slot;
pub use quarantine::Quarantined;
pub use reader::{Batch, Opened, ReadError, Reader};
pub use relay::{Env, Relay};
pub use row::Row;
