//! Tests of the log: the laws on the embedded engine, and what only a file can suffer.

mod crash;
mod damage;
mod folder;
mod laws;
mod opening;
mod traces;
