//! The scanner: one pass over the text, no tree, no allocation unless an object is large or names are escaped.

use std::borrow::Cow;
use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::{Fault, JsonError, Limits, pointer, strings};

/// Where and why the scan ended early; small, because every step returns it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(super) fault: Fault,
    pub(super) at: usize,
    why: &'static str,
}

type Step = Result<(), Stop>;

/// Scans one whole text with `body` and turns a stop into an error that says where.
pub(super) fn whole<'a>(
    text: &'a [u8],
    limits: &Limits,
    body: impl FnOnce(&mut Scanner<'a>) -> Step,
) -> Result<(), JsonError> {
    if let Err(error) = str::from_utf8(text) {
        let stop = Stop { fault: Fault::InvalidUtf8, at: error.valid_up_to(), why: "the text is not UTF-8" };
        return Err(explain(text, stop));
    }
    let mut scanner = Scanner::new(text, limits);
    scanner.blanks();
    let mut outcome = body(&mut scanner);
    if outcome.is_ok() {
        scanner.blanks();
        if scanner.at < text.len() {
            outcome = scanner.fail_here("more text follows the end of the JSON value");
        }
    }
    outcome.map_err(|stop| explain(text, stop))
}

#[cold]
fn explain(text: &[u8], stop: Stop) -> JsonError {
    let Stop { fault, at, why } = stop;
    let why = match fault {
        Fault::Malformed if text.starts_with(b"\xEF\xBB\xBF") && at == 0 => {
            "the text starts with a byte order mark: send it without one"
        }
        _ => why,
    };
    JsonError { fault, at, pointer: pointer::at(text, stop), message: format!("{why} (at byte {at})") }
}

/// A position in a text. Steps leave it behind what they read.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth_left: usize,
    keys_left: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of a text that is UTF-8.
    pub(crate) fn new(text: &'a [u8], limits: &Limits) -> Self {
        Self { text, at: 0, depth_left: limits.depth_max.min(Limits::DEPTH_CEILING), keys_left: limits.keys_max }
    }

    /// The byte at the position.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Skips white space.
    #[inline]
    pub(crate) fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Ends the scan here: the text is malformed.
    #[cold]
    pub(crate) fn fail_here(&self, why: &'static str) -> Step {
        Err(self.malformed(self.at, why))
    }

    #[cold]
    fn malformed(&self, at: usize, why: &'static str) -> Stop {
        let why = if at >= self.text.len() { "the text ends in the middle of a JSON value" } else { why };
        Stop { fault: Fault::Malformed, at, why }
    }

    /// Reads one value; its raw text.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], Stop> {
        let from = self.at;
        match self.peek() {
            Some(b'"') => return self.string(),
            Some(b'{') => self.object(&mut ignore_member)?,
            Some(b'[') => self.array(&mut ignore_element)?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.literal(b"true")?,
            Some(b'f') => self.literal(b"false")?,
            Some(b'n') => self.literal(b"null")?,
            _ => self.fail_here("expected a JSON value")?,
        }
        Ok(&self.text[from..self.at])
    }

    /// Reads an object, the position at its brace.
    pub(crate) fn object<F: FnMut(&'a [u8], &'a [u8])>(&mut self, member: &mut F) -> Step {
        self.open()?;
        if self.take(b'}') {
            return self.close();
        }
        let mut names = Names::new();
        loop {
            let at = self.at;
            let name = self.name()?;
            self.count_key(at)?;
            if !names.insert(&name[1..name.len() - 1]) {
                return Err(Stop {
                    fault: Fault::DuplicateKey,
                    at,
                    why: "the object names this member twice: name it once",
                });
            }
            let value = self.value()?;
            member(name, value);
            self.blanks();
            if self.take(b'}') {
                return self.close();
            }
            if !self.take(b',') {
                return self.fail_here("expected `,` or `}` after a member");
            }
            self.blanks();
        }
    }

    /// Reads a member name and its colon, the position at the name; the raw name with both quotes.
    #[inline]
    pub(crate) fn name(&mut self) -> Result<&'a [u8], Stop> {
        if self.peek() != Some(b'"') {
            return Err(self.malformed(self.at, "expected a member name in quotes"));
        }
        let name = self.string()?;
        self.blanks();
        if !self.take(b':') {
            return Err(self.malformed(self.at, "expected `:` after a member name"));
        }
        self.blanks();
        Ok(name)
    }

    /// Reads an array, the position at its bracket.
    pub(crate) fn array<F: FnMut(&'a [u8])>(&mut self, element: &mut F) -> Step {
        self.open()?;
        if self.take(b']') {
            return self.close();
        }
        loop {
            element(self.value()?);
            self.blanks();
            if self.take(b']') {
                return self.close();
            }
            if !self.take(b',') {
                return self.fail_here("expected `,` or `]` after an element");
            }
            self.blanks();
        }
    }

    fn open(&mut self) -> Step {
        let Some(left) = self.depth_left.checked_sub(1) else {
            return Err(Stop {
                fault: Fault::TooDeep,
                at: self.at,
                why: "arrays and objects are nested too deep: send a flatter value",
            });
        };
        self.depth_left = left;
        self.at += 1;
        self.blanks();
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the last step of an array or object, returned as such")]
    fn close(&mut self) -> Step {
        self.depth_left += 1;
        Ok(())
    }

    fn count_key(&mut self, at: usize) -> Step {
        let Some(left) = self.keys_left.checked_sub(1) else {
            return Err(Stop { fault: Fault::TooManyKeys, at, why: "the text has too many member names: split it" });
        };
        self.keys_left = left;
        Ok(())
    }

    /// Reads a string, the position at its quote; the raw text with both quotes.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Stop> {
        let from = self.at;
        self.at += 1;
        loop {
            self.at = strings::plain_end(self.text, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.text[from..self.at]);
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.malformed(self.at, "a control character in a string must be escaped")),
                None => return Err(self.malformed(self.at, "")),
            }
        }
    }

    fn escape(&mut self) -> Step {
        match strings::escape(&self.text[self.at..]) {
            Ok((_, length)) => {
                self.at += length;
                Ok(())
            }
            Err(why) => Err(Stop { fault: Fault::Malformed, at: self.at, why }),
        }
    }

    fn number(&mut self) -> Step {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits("expected a digit")?;
        }
        if self.take(b'.') {
            self.digits("expected a digit after the decimal point")?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits("expected a digit in the exponent")?;
        }
        Ok(())
    }

    fn digits(&mut self, why: &'static str) -> Step {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == from { self.fail_here(why) } else { Ok(()) }
    }

    fn literal(&mut self, word: &[u8]) -> Step {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            self.fail_here("expected a JSON value (true, false and null are lower case)")
        }
    }
}

fn ignore_member(_: &[u8], _: &[u8]) {}
fn ignore_element(_: &[u8]) {}

/// Names seen in one object: a short list that is searched, a set when it grows or a name is escaped.
struct Names<'a> {
    few: [&'a [u8]; FEW],
    count: usize,
    many: Option<HashSet<Cow<'a, [u8]>, RandomState>>,
}

const FEW: usize = 16;

impl<'a> Names<'a> {
    fn new() -> Self {
        Self { few: [b""; FEW], count: 0, many: None }
    }

    /// Notes a name (raw, without quotes); false if it was there.
    #[inline]
    fn insert(&mut self, name: &'a [u8]) -> bool {
        if self.many.is_none() && self.count < FEW && !name.contains(&b'\\') {
            let seen = &self.few[..self.count];
            if seen.contains(&name) {
                return false;
            }
            self.few[self.count] = name;
            self.count += 1;
            return true;
        }
        self.insert_in_set(name)
    }

    #[cold]
    fn insert_in_set(&mut self, name: &'a [u8]) -> bool {
        let few = &self.few[..self.count];
        let many = self.many.get_or_insert_with(|| few.iter().map(|name| Cow::Borrowed(*name)).collect());
        many.insert(strings::unescaped(name))
    }
}
