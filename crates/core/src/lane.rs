//! The deliveries of one subscription, decided purely.

mod acks;
mod terms;

pub use acks::{ACKS_SPAN, Acks};
pub use terms::{Answer, Changes, Dead, Follow, Notice, OnExhausted, Ordering, Outcome, Row, RowState, Send, Settings};
