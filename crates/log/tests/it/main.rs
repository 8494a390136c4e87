//! Tests of the log: the laws on the embedded engine, and what only a file can suffer.

#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod deliveries;
#[cfg(test)]
mod folder;
#[cfg(test)]
mod index;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod readers;
#[cfg(test)]
mod traces;
