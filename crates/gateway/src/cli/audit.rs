//! `tidings audit verify`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use tidings_log::verify;

use super::{FAILED, Flags, OK};

#[derive(Args)]
pub(crate) struct AuditArguments {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Check every event against the hash chain; works beside a running server
    #[command(after_help = "Example: tidings audit verify --data ./tidings-data
Exit codes: 0 whole, 1 something was changed, removed or reordered; the first place is named.")]
    Verify(VerifyArguments),
}

#[derive(Args)]
struct VerifyArguments {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &AuditArguments) -> Result<u8> {
    let AuditCommand::Verify(arguments) = &arguments.command;
    let flags = Flags { data: arguments.data.clone(), ..Flags::default() };
    let settings = flags.settings()?;
    let mut terminal = std::io::stderr();
    let watched = terminal.is_terminal() && !arguments.json;
    let report = verify::verify(&settings.data, &mut |progress| {
        if watched {
            // Progress that cannot be shown is not missed.
            let _ = write!(terminal, "\r{} of {} events", progress.checked, progress.total);
        }
    })?;
    if watched {
        eprintln!();
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for tenant in &report.tenants {
            println!(
                "{}: {} events, {} erased, offsets {} to {}, sealed through {}, {} not sealed yet, head {}",
                tenant.name,
                tenant.events,
                tenant.erased,
                tenant.first,
                tenant.head,
                tenant.sealed_through,
                tenant.unsealed,
                tenant.head_hash
            );
        }
        for finding in &report.findings {
            let tenant = finding.tenant.as_deref().map_or(String::new(), |tenant| format!(" {tenant}"));
            let place = finding.offset.map_or(String::new(), |offset| format!(" offset {offset}"));
            let event = finding.event_id.as_deref().map_or(String::new(), |id| format!(" event {id}"));
            println!("DAMAGED{tenant}{place}{event}: {}", finding.message);
        }
        println!("{}", if report.is_whole() { "whole" } else { "NOT whole" });
    }
    Ok(if report.is_whole() { OK } else { FAILED })
}
