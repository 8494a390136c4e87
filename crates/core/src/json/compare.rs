//! Equality of two texts as JSON.

use std::borrow::Cow;

use super::{Limits, Scanner, strings};

/// Whether two texts say the same: member order and white space do not count, strings are compared unescaped, numbers
/// as text (`1` is not `1.0`: readers disagree about them).
///
/// A text that is not JSON equals only the very same bytes.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a == b || matches!((Value::read(a), Value::read(b)), (Some(a), Some(b)) if a == b)
}

#[derive(PartialEq)]
enum Value<'a> {
    /// A number, `true`, `false` or `null`, as written.
    Plain(&'a [u8]),
    Text(Cow<'a, [u8]>),
    Array(Vec<Value<'a>>),
    /// Sorted by name.
    Object(Vec<(Cow<'a, [u8]>, Value<'a>)>),
}

impl<'a> Value<'a> {
    fn read(text: &'a [u8]) -> Option<Self> {
        // Sized like the text: what once passed the gate under other limits must still compare.
        let limits = Limits { depth_max: Limits::DEPTH_CEILING, keys_max: text.len() };
        super::check(text, &limits).ok()?;
        let mut scanner = Scanner::new(text, &limits);
        scanner.blanks();
        Self::next(&mut scanner)
    }

    /// Reads the next value of a text that passed the gate, so separators need no second look.
    fn next(scanner: &mut Scanner<'a>) -> Option<Self> {
        match scanner.peek()? {
            b'"' => Some(Self::Text(unescaped(scanner.string().ok()?))),
            b'[' => {
                let mut elements = Vec::new();
                scanner.take(b'[');
                scanner.blanks();
                while !scanner.take(b']') {
                    elements.push(Self::next(scanner)?);
                    separator(scanner);
                }
                Some(Self::Array(elements))
            }
            b'{' => {
                let mut members = Vec::new();
                scanner.take(b'{');
                scanner.blanks();
                while !scanner.take(b'}') {
                    let name = unescaped(scanner.name().ok()?);
                    members.push((name, Self::next(scanner)?));
                    separator(scanner);
                }
                members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                Some(Self::Object(members))
            }
            _ => Some(Self::Plain(scanner.value().ok()?)),
        }
    }
}

fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    strings::unescaped(&raw[1..raw.len() - 1])
}

fn separator(scanner: &mut Scanner<'_>) {
    scanner.blanks();
    scanner.take(b',');
    scanner.blanks();
}
