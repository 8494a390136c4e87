//! `tidings config`.

use anyhow::Result;
use clap::Args;

use super::{Flags, OK};
use crate::config::{SETTINGS, Settings};

#[derive(Args)]
pub(crate) struct ConfigArguments {
    #[command(flatten)]
    flags: Flags,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &ConfigArguments) -> Result<u8> {
    let values = arguments.flags.values()?;
    Settings::parse(&values)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&values)?);
        return Ok(OK);
    }
    for setting in SETTINGS {
        let Some(value) = values.get(setting.key) else { continue };
        println!("{:<22} = {:<20} # {} ({})", setting.key, format!("{:?}", value.value), setting.help, value.from);
    }
    Ok(OK)
}
