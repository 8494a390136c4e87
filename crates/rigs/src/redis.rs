//! A Redis of a test's own.

use crate::keeper::{Kept, place};

/// A running server that saves nothing.
#[derive(Debug)]
pub struct Redis(Kept);

impl Redis {
    /// Starts one. Needs Debian's package `redis-server`.
    pub fn start() -> Self {
        let (folder, port) = place("redis");
        let arguments = ["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"].map(str::to_owned);
        let mut arguments = arguments.to_vec();
        arguments.push(folder.path().display().to_string());
        Self(Kept::start(folder, port, "redis-server", &arguments))
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.0.port)
    }
}
