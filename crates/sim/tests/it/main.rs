//! Scenarios with names, faults that must be found, and seeds that repeat themselves.

#[cfg(test)]
mod plants;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod scenarios;
