//! The command line: arguments become calls, answers become text or JSON, failures become exit codes.

mod audit;
mod client;
mod consumers;
mod dead_letters;
mod keys;
mod outbox;
mod publish;
mod replay;
mod settings;
mod table;
mod tail;
mod webhooks;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Settings, Values};
use crate::{serve, telemetry};

/// The command did what it was asked.
const OK: u8 = 0;
/// It was understood and failed, or found what it looked for: a damaged log, a refusal.
const FAILED: u8 = 1;

/// Event gateway: tell it once, it reaches everyone who asked.
#[derive(Parser)]
#[command(name = "tidings", version, after_help = "Exit codes: 0 done, 1 failed or refused, 2 wrong arguments.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    #[command(after_help = "Example: tidings serve --dev")]
    Serve(ServeArguments),
    /// Publish one event, or NDJSON from standard input.
    Publish(publish::PublishArguments),
    /// Print events as they come.
    Tail(tail::TailArguments),
    /// Make, list and revoke API keys.
    Keys(keys::KeysArguments),
    /// Make, change, test and remove webhooks.
    Webhooks(webhooks::WebhooksArguments),
    /// Make, pause, move and remove consumers: queues that workers fetch from.
    Consumers(consumers::ConsumersArguments),
    /// See dead letters, send them again, or give them up.
    Dlq(dead_letters::DeadLettersArguments),
    /// Send events of the past to a webhook again.
    Replay(replay::ReplayArguments),
    /// Prove that the log was not changed.
    Audit(audit::AuditArguments),
    /// Make an outbox in an application's database, or take it away.
    Outbox(outbox::OutboxArguments),
    /// Print the effective settings and where each came from.
    Config(settings::ConfigArguments),
}

/// The settings that can be given as flags.
#[derive(Args, Debug, Clone, Default)]
struct Flags {
    /// Address and port of the HTTP API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Folder with everything that is kept [default: ./tidings-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Settings file [default: tidings.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "TIDINGS_CONFIG")]
    config: Option<PathBuf>,
    /// Development: no keys, plain http webhooks; on loopback addresses only
    #[arg(long)]
    dev: bool,
    /// Form of the log on standard error: pretty or json [default: pretty]
    #[arg(long, value_name = "FORM")]
    log_format: Option<String>,
}

#[derive(Args)]
struct ServeArguments {
    #[command(flatten)]
    flags: Flags,
}

impl Flags {
    fn values(&self) -> Result<Values> {
        let mut given = Vec::new();
        if let Some(listen) = self.listen {
            given.push(("listen", listen.to_string()));
        }
        if let Some(data) = &self.data {
            given.push(("data", data.display().to_string()));
        }
        if self.dev {
            given.push(("dev", "true".to_owned()));
        }
        if let Some(form) = &self.log_format {
            given.push(("log_format", form.clone()));
        }
        config::collect(self.config.as_deref(), environment()?.into_iter(), &given)
    }

    fn settings(&self) -> Result<Settings> {
        Settings::parse(&self.values()?)
    }
}

/// The variables of the environment that can be settings. What others are called, and hold, is not ours to judge.
fn environment() -> Result<Vec<(String, String)>> {
    let mut ours = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(config::ENV_PREFIX)) else { continue };
        let value = value.into_string().map_err(|_| anyhow!("{name} is not UTF-8"))?;
        ours.push((name.to_owned(), value));
    }
    Ok(ours)
}

/// Parses the arguments and runs the command.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tidings: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: Command) -> Result<u8> {
    match command {
        Command::Serve(arguments) => {
            let settings = arguments.flags.settings()?;
            telemetry::start(settings.log_json);
            serve::run(settings).map(|()| OK)
        }
        Command::Publish(arguments) => publish::run(&arguments),
        Command::Tail(arguments) => tail::run(&arguments),
        Command::Keys(arguments) => keys::run(arguments),
        Command::Webhooks(arguments) => webhooks::run(&arguments),
        Command::Consumers(arguments) => consumers::run(&arguments),
        Command::Dlq(arguments) => dead_letters::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Outbox(arguments) => outbox::run(&arguments),
        Command::Config(arguments) => settings::run(&arguments),
    }
}
