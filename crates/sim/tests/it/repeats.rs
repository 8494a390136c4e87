//! A seed is worth something only if it repeats its run.

use tidings_sim::generate;
use tidings_sim::run::{Run, run};

/// What subscribers saw, and what the log has.
fn told(run: &Run) -> Vec<String> {
    let mut told: Vec<_> = run.seen.iter().map(|seen| format!("{seen:?}")).collect();
    told.extend(run.fetched.iter().map(|fetched| format!("{fetched:?}")));
    // Two lanes in the same millisecond have no order between them.
    told.sort();
    told.extend(run.kept.iter().map(|kept| format!("{:?}", kept.letters.len())));
    told.extend(run.lives.iter().map(|life| format!("{:?} {:?}", life.ended, life.end)));
    told
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..60 {
        let world = generate::world(seed);
        let (first, second) = (told(&run(&world, None, false)), told(&run(&world, None, false)));
        let differs = first.iter().zip(&second).find(|(first, second)| first != second);
        assert!(first.len() == second.len() && differs.is_none(), "seed {seed}: {differs:?}");
    }
}
