//! `tidings-sim`: runs seeds, prints the first that fails and the command that repeats it.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use clap::Parser;
use tidings_sim::generate;
use tidings_sim::plant::Plant;
use tidings_sim::run::{Run, run};
use tidings_sim::world::World;

/// Simulates Tidings from a seed and judges it.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this one only.
    #[arg(long)]
    seed: Option<u64>,
    /// Plant a fault, which must be found; `list` names them.
    #[arg(long)]
    plant: Option<String>,
    /// Do not stop at the first seed that fails; name them all.
    #[arg(long)]
    all: bool,
    /// Print what happens.
    #[arg(long)]
    verbose: bool,
    /// Make all of them harsh, in place of one in eight: many lanes, long aggregates, crashes close together.
    #[arg(long)]
    harsh: bool,
}

impl Args {
    fn world(&self, seed: u64) -> World {
        if self.harsh { generate::harsh(seed) } else { generate::world(seed) }
    }

    /// What repeats a seed beside its number.
    fn kind(&self) -> String {
        let planted = self.plant.as_ref().map(|name| format!(" --plant {name}")).unwrap_or_default();
        if self.harsh { format!(" --harsh{planted}") } else { planted }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.plant.as_deref() == Some("list") {
        for (name, _) in Plant::ALL {
            println!("{name}");
        }
        return Ok(());
    }
    let plant = args
        .plant
        .as_deref()
        .map(|name| Plant::named(name).ok_or_else(|| anyhow::anyhow!("no fault `{name}`: see --plant list")));
    let plant = plant.transpose()?;
    if let Some(seed) = args.seed {
        let run = run(&args.world(seed), plant, args.verbose);
        return report(&args, seed, &run);
    }
    seeds(&args, plant)
}

fn seeds(args: &Args, plant: Option<Plant>) -> Result<()> {
    let next = AtomicU64::new(args.from);
    let failed = AtomicU64::new(u64::MAX);
    let (attempts, lives, broken) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from + args.seeds || seed > failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let run = run(&args.world(seed), plant, false);
                    attempts.fetch_add(run.seen.len() as u64, Ordering::Relaxed);
                    lives.fetch_add(run.lives.len() as u64, Ordering::Relaxed);
                    if let (true, Some(first)) = (args.all, run.violations.first()) {
                        println!("{seed}: {first}");
                        broken.fetch_add(1, Ordering::Relaxed);
                    } else if !run.violations.is_empty() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        return report(args, failed, &run(&args.world(failed), plant, false));
    }
    let (attempts, lives) = (attempts.into_inner(), lives.into_inner());
    let broken = broken.into_inner();
    if broken > 0 {
        bail!("{broken} of {} seeds broken; for each: cargo xtask sim --seed N{} --verbose", args.seeds, args.kind());
    }
    println!("sim: {} seeds, {lives} processes, {attempts} attempts, nothing broken", args.seeds);
    if plant.is_some() {
        bail!("the fault was not found");
    }
    Ok(())
}

fn report(args: &Args, seed: u64, run: &Run) -> Result<()> {
    if run.violations.is_empty() {
        println!("sim: seed {seed}, {} processes, {} attempts, nothing broken", run.lives.len(), run.seen.len());
        return Ok(());
    }
    for violation in &run.violations {
        println!("{violation}");
    }
    println!("repeat it: cargo xtask sim --seed {seed}{} --verbose", args.kind());
    bail!("seed {seed}: {} rules broken", run.violations.len());
}
