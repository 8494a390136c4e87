//! `cargo xtask sim`: builds the simulator and hands over to it.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// Simulates deliveries from seeds and judges them: `--seeds N`, `--seed S`, `--plant NAME`; `--help` lists all.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    run: Vec<String>,
}

/// Replaces this process by the simulator's, so that the exit code is its own.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built =
        Command::new(cargo).args(["build", "--quiet", "--package", "tidings-sim"]).current_dir(root).status()?;
    ensure!(built.success(), "the build failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
    let error = Command::new(target.join("debug/tidings-sim")).args(&args.run).current_dir(root).exec();
    bail!("cannot start tidings-sim: {error}")
}
