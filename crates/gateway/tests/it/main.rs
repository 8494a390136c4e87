//! The server from the outside: the real binary, real sockets, a temporary folder each.
#![expect(clippy::unwrap_used, reason = "what cannot be unwrapped here is a failed test")]

mod audit;
mod cli;
mod consumers;
mod health;
mod keys;
mod operations;
mod outbox;
mod publish;
mod read;
mod refusals;
mod replication;
mod stop;
mod stream;
mod support;
mod tickets;
mod webhook;
mod websocket;
