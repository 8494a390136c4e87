//! How the server is watched: logs, metrics, traces. None of them holds a secret or the content of an event.

pub(crate) mod exposition;
pub(crate) mod otlp;
pub(crate) mod process;
pub(crate) mod requests;
pub(crate) mod trace;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Sets up logging: for people or as JSON, on standard error; `RUST_LOG` narrows or widens it.
pub(crate) fn start(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Colours are for people, not for files.
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    // A second call, as in tests, changes nothing.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}
