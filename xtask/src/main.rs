//! Chores of the workspace, each a subcommand in a module of its own: `cargo xtask <chore>`.

mod bench;

use clap::Parser;

/// Chores of the Tidings workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    Bench(bench::Args),
}

fn main() -> anyhow::Result<()> {
    match Chore::parse() {
        Chore::Bench(args) => bench::run(&args),
    }
}
