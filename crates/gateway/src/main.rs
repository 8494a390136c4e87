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

/// Events are made on one thread and freed on another, where glibc's allocator is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
