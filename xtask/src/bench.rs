//! `cargo xtask bench`: builds Tidings and the benchmark as they are released and hands over to `tidings-bench run`.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// Measures Tidings against raw baselines; takes what `tidings-bench run` takes, `--help` included.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    run: Vec<String>,
}

/// Replaces this process by the benchmark's, so that signals and the exit code are its own.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--package", "tidings", "--package", "tidings-bench"])
        .current_dir(root)
        .status()?;
    ensure!(built.success(), "the build failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
    let release = target.join("release");
    let error = Command::new(release.join("tidings-bench"))
        .arg("run")
        .arg("--tidings")
        .arg(release.join("tidings"))
        .arg("--work")
        .arg(&target)
        .args(&args.run)
        .current_dir(root)
        .exec();
    bail!("cannot start tidings-bench: {error}")
}
