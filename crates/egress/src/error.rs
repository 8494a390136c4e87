//! Why no answer came.

use crate::address::Denied;

/// Why no answer came. The text is for the operator's log; [`DoorError::word`] is what a subscriber reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// The policy does not let it go there.
    #[error("blocked address: {0}")]
    Blocked(&'static str),
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
    Protocol(&'static str),
}

impl DoorError {
    /// The reason in a word or two: `blocked address`, `timeout`, `dns`, `connect`, `tls`, `reset` or `protocol`.
    ///
    /// It tells a subscriber nothing of the network here: whoever refuses, drops or resets a connection is `connect`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Blocked(_) => "blocked address",
            Self::Timeout => "timeout",
            Self::Dns(_) => "dns",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Reset(_) => "reset",
            Self::Protocol(_) => "protocol",
        }
    }
}

impl From<Denied> for DoorError {
    fn from(denied: Denied) -> Self {
        Self::Blocked(denied.0)
    }
}
