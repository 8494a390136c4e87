//! Chores of the workspace, each a subcommand in a module of its own: `cargo xtask <chore>`.

mod bench;
mod faults;
mod sim;
mod tidy;

use clap::Parser;

/// Chores of the Tidings workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    Bench(bench::Args),
    /// Breaks a running server in the ways machines break, and checks what is left.
    #[command(subcommand)]
    Faults(faults::Fault),
    Sim(sim::Args),
    /// Checks the style that a machine can check.
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Chore::parse() {
        Chore::Bench(args) => bench::run(&args),
        Chore::Faults(fault) => faults::run(fault),
        Chore::Sim(args) => sim::run(&args),
        Chore::Tidy => tidy::run(),
    }
}
