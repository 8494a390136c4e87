//! What runs: the dispatcher that carries events to subscriptions, and the streams that clients follow themselves.

pub mod consumers;
pub mod dispatcher;
pub mod interest;
pub mod streams;
