//! Load generators, receivers and raw baselines, and the run that compares Tidings with them.
//!
//! Each part is a subcommand and runs as a process of its own, so that what it costs can be told apart;
//! `run` starts them in interleaved pairs and prints the table of `docs/performance.md`.

mod appender;
mod baseline;
mod clock;
mod events;
mod forward;
mod http1;
mod latency;
mod load;
mod poster;
mod receiver;
mod run;
mod streamer;
mod target;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Tidings against servers and clients that do the same bytes and the same syncs with no logic.
#[derive(Parser)]
#[command(name = "tidings-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The raw programs that Tidings is compared with.
    #[command(subcommand)]
    Baseline(Baseline),
    /// Publishes events and prints one line of JSON: rate, latency of the acks, errors.
    Load(load::Args),
    /// Takes webhooks, answers 200 and counts them; `GET /stats` and `GET /sample` tell what came.
    Receiver(receiver::Args),
    /// Holds event streams open while it publishes and prints one line of JSON: deliveries, how late they were.
    Watch(watch::Args),
    /// Runs the rows in interleaved pairs and prints the table.
    Run(run::Args),
}

#[derive(Subcommand)]
enum Baseline {
    /// The raw server: parse, append what has queued, sync once, answer.
    Serve(baseline::Args),
    /// The raw streamer: what has queued, in one write for each socket.
    Stream(streamer::Args),
    /// The raw sender: posts one captured webhook over and over.
    Post(poster::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Baseline(Baseline::Serve(args)) => baseline::serve(args),
        Command::Baseline(Baseline::Post(args)) => poster::run(&args),
        Command::Baseline(Baseline::Stream(args)) => streamer::serve(args),
        Command::Watch(args) => watch::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Receiver(args) => receiver::serve(&args),
        Command::Run(args) => run::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // For people, on one line: what failed and why, without a backtrace.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
