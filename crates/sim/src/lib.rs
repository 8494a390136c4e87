//! Simulates Tidings from a seed: the real dispatcher over a log in memory and subscribers that are made up, on a clock
//! that jumps, so that days pass in milliseconds. It crashes where chance says; a [judge](oracle) looks at what is left.

pub mod chance;
pub mod clock;
pub mod disk;
pub mod generate;
mod lanes;
mod left;
mod life;
pub mod oracle;
pub mod plant;
mod planted;
pub mod receiver;
pub mod run;
pub mod workers;
pub mod world;
