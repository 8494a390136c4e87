//! CloudEvents 1.0, in and out: structured JSON and the HTTP binary mode.
//!
//! | Tidings | CloudEvents |
//! | --- | --- |
//! | eventId, source, eventType, timestamp | id, source, type, time |
//! | aggregateId | subject and partitionkey (coming in: subject, else partitionkey) |
//! | version | eventversion, a string |
//! | sequenceNumber | aggregateseq, a string of 20 digits so that it sorts; coming in it is dropped, the log counts itself |
//! | metadata | extensions, where the name is lower-case letters and digits; correlationId and causationId in lower case |
//! | channels | nothing: the format has no lists |
//!
//! Coming in, an id or type that is none of ours is made one, and the original kept in metadata as `originalid` or
//! `originaltype`. Erased data is left out and marked by the extension `erased`.

mod foreign;
mod incoming;
mod outgoing;

pub use incoming::{from_binary, from_structured};
pub use outgoing::{to_binary_headers, to_structured};

/// Attributes with a place of their own; metadata of these names is no extension.
const ATTRIBUTES: [&str; 13] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "data",
    "partitionkey",
    "eventversion",
    "aggregateseq",
    "erased",
    "dataschema",
];

/// Metadata names whose extensions are spelt otherwise (CloudEvents correlation extension).
const SPELLINGS: [(&str, &str); 2] = [("correlationId", "correlationid"), ("causationId", "causationid")];

#[cfg(test)]
mod tests;
