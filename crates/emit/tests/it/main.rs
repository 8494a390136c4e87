//! Tests of tidings-emit against real databases, and against gateways that answer as they are told.

#[cfg(test)]
mod consumer;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod publisher;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod sqlite;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod vectors;
