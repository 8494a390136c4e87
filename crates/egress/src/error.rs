//! Why no answer came.

use std::error::Error;
use std::io;

/// Why no answer came. The text is for the log; [`DoorError::word`] is what a subscriber reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// The answer was not there in time, with its body.
    #[error("no complete answer in time")]
    Timeout,
    /// The name could not be looked up.
    #[error("the name has no address: {0}")]
    Dns(String),
    /// Nobody took the connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// No secure connection came about.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// The connection ended before the answer did.
    #[error("the connection was closed before the answer was complete: {0}")]
    Reset(String),
    /// What came is not HTTP, or larger than is read.
    #[error("the answer is not HTTP: {0}")]
    Protocol(String),
}

impl DoorError {
    /// The reason in a word: `timeout`, `dns`, `connect`, `tls`, `reset` or `protocol`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Dns(_) => "dns",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Reset(_) => "reset",
            Self::Protocol(_) => "protocol",
        }
    }
}

impl From<hyper::Error> for DoorError {
    fn from(error: hyper::Error) -> Self {
        let text = error.to_string();
        let broken = error.source().is_some_and(<dyn Error>::is::<io::Error>);
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() || broken {
            Self::Reset(text)
        } else {
            Self::Protocol(text)
        }
    }
}
