//! Where in a text a byte is, as an RFC 6901 pointer. Walks again from the start: only errors pay for it.

use super::scan::Stop;
use super::{Fault, strings};

/// Longest name shown in a pointer, in characters: an answer must not grow with a hostile text.
const NAME_CHARS_MAX: usize = 128;

/// Appends one step, with `~` and `/` escaped.
pub(crate) fn push_step(pointer: &mut String, name: &str) {
    pointer.push('/');
    for (index, character) in name.chars().enumerate() {
        if index == NAME_CHARS_MAX {
            pointer.push('…');
            return;
        }
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

enum Level<'a> {
    Array(usize),
    /// The raw name of the member the walk is in, without quotes; none while a name is awaited.
    Object(Option<&'a [u8]>),
}

/// Points to the value that the stop is in. What stands before the stop is sound JSON.
pub(super) fn at(text: &[u8], stop: Stop) -> String {
    let mut levels = walk(text, stop.at);
    if stop.fault == Fault::DuplicateKey
        && let Some(Level::Object(name)) = levels.last_mut()
    {
        *name = strings::string_end(text, stop.at).map(|end| &text[stop.at + 1..end - 1]);
    }
    let mut pointer = String::new();
    for level in &levels {
        match level {
            Level::Array(index) => push_step(&mut pointer, &index.to_string()),
            Level::Object(Some(name)) => push_step(&mut pointer, &String::from_utf8_lossy(&strings::unescaped(name))),
            Level::Object(None) => {}
        }
    }
    pointer
}

fn walk(text: &[u8], stop: usize) -> Vec<Level<'_>> {
    let mut levels = Vec::new();
    let mut at = 0;
    while at < stop {
        let mut next = at + 1;
        match text[at] {
            b'{' => levels.push(Level::Object(None)),
            b'[' => levels.push(Level::Array(0)),
            b'}' | b']' => drop(levels.pop()),
            b',' => match levels.last_mut() {
                Some(Level::Array(index)) => *index += 1,
                Some(Level::Object(name)) => *name = None,
                None => {}
            },
            b'"' => {
                let Some(end) = strings::string_end(text, at) else { break };
                next = end;
                if let Some(Level::Object(name @ None)) = levels.last_mut()
                    && next <= stop
                {
                    *name = Some(&text[at + 1..next - 1]);
                }
            }
            _ => {}
        }
        at = next;
    }
    levels
}
