//! The gate every JSON text passes: RFC 8259, strict, in one pass, the text itself left untouched.
//!
//! Stricter than the RFC where readers disagree about the meaning of a text: a name given twice in one object is
//! refused, also when the two spell it differently (`"a"` and `"\u0061"`), and so are lone surrogates and a byte order
//! mark. Numbers of any size pass, because they stay text. Depth and names are limited.

mod compare;
mod pointer;
mod scan;
mod strings;

use std::fmt;

pub use compare::equal;
pub(crate) use pointer::push_step;
pub(crate) use scan::Scanner;
pub use strings::{compact, quote, unquote};

/// Bounds of a text. They hold for the whole text: a batch of many events needs its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Deepest nesting of arrays and objects; [`Limits::DEPTH_CEILING`] at the most, whatever is set here.
    pub depth_max: usize,
    /// Most member names in the text, all objects together.
    pub keys_max: usize,
}

impl Limits {
    /// The scanner recurses, so the depth has an end that no setting can lift.
    pub const DEPTH_CEILING: usize = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth_max: 64, keys_max: 10_000 }
    }
}

/// What is wrong with a text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// Not JSON.
    Malformed,
    /// Deeper than [`Limits::depth_max`].
    TooDeep,
    /// More names than [`Limits::keys_max`].
    TooManyKeys,
    /// One object names a member twice.
    DuplicateKey,
    /// Not UTF-8.
    InvalidUtf8,
}

/// The first fault of a text and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JsonError {
    /// What is wrong.
    pub fault: Fault,
    /// The byte it was noticed at.
    pub at: usize,
    /// The value it was noticed in: RFC 6901; very long names are cut.
    pub pointer: String,
    /// A sentence for the sender.
    pub message: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for JsonError {}

/// Checks a text that may hold any one JSON value.
pub fn check(text: &[u8], limits: &Limits) -> Result<(), JsonError> {
    scan::whole(text, limits, |scanner| scanner.value().map(drop))
}

/// Checks the whole text, an object, and hands out its members in order: raw name with its quotes, raw value.
///
/// Members are handed out while the text is read: an error means that those already seen are void.
pub fn object<'a>(
    text: &'a [u8],
    limits: &Limits,
    mut member: impl FnMut(&'a [u8], &'a [u8]),
) -> Result<(), JsonError> {
    scan::whole(text, limits, |scanner| match scanner.peek() {
        Some(b'{') => scanner.object(&mut member),
        _ => scanner.fail_here("expected a JSON object"),
    })
}

/// Checks the whole text, an array, and hands out its elements in order, raw; void after an error, as in [`object`].
pub fn array<'a>(text: &'a [u8], limits: &Limits, mut element: impl FnMut(&'a [u8])) -> Result<(), JsonError> {
    scan::whole(text, limits, |scanner| match scanner.peek() {
        Some(b'[') => scanner.array(&mut element),
        _ => scanner.fail_here("expected a JSON array"),
    })
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
