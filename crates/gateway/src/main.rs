//! Tidings: an event gateway. Tell it once that something happened; it reaches everyone who asked.

mod api;
mod app;
mod cli;
mod clock;
mod config;
mod control;
mod serve;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
