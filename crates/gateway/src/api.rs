//! The HTTP API: one table of routes, each with its scope and its parameters; one way in for all of them.

pub(crate) mod audit;
pub(crate) mod body;
pub(crate) mod call;
mod consumers;
pub(crate) mod cors;
pub(crate) mod dead_letters;
pub(crate) mod document;
pub(crate) mod errors;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod kinds;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod publish;
mod quarantine;
pub(crate) mod routes;
pub(crate) mod stream;
pub(crate) mod tickets;
pub(crate) mod unread;
pub(crate) mod webhooks;
mod websocket;
