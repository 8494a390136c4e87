//! The laws of `tidings_emit::sqlx`, on each database that it knows.

#[cfg(test)]
mod engines;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod log;
