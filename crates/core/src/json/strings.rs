//! Strings: reading escapes, writing them, and white space outside of strings.

use std::borrow::Cow;

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Where the run of plain string bytes from `at` ends: at a quote, a backslash, a control character or the end.
#[inline]
pub(super) fn plain_end(text: &[u8], mut at: usize) -> usize {
    // Eight bytes at a time; borrows only reach upwards, so the lowest mark is always true.
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let marks =
            (control | (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash)) & TOPS;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | ..=0x1f)) {
        at += 1;
    }
    at
}

/// Reads the escape that `text` starts with: the character and the bytes it takes. The error says what is wrong.
pub(super) fn escape(text: &[u8]) -> Result<(char, usize), &'static str> {
    let plain = match text.get(1) {
        _ if !text.starts_with(b"\\") => return Err("a control character in a string must be escaped"),
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(text),
        _ => return Err("an escape in a string is one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX"),
    };
    Ok((plain, 2))
}

fn unicode_escape(text: &[u8]) -> Result<(char, usize), &'static str> {
    const LONE: &str = "half of a surrogate pair stands alone: \\uD800 to \\uDFFF only come as high and low half";
    let first = unit(text).ok_or("\\u takes four hexadecimal digits")?;
    if let Some(plain) = char::from_u32(first) {
        return Ok((plain, 6));
    }
    let second = text.get(6..).and_then(unit).filter(|second| (0xDC00..=0xDFFF).contains(second));
    match second {
        Some(second) if first < 0xDC00 => {
            let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            char::from_u32(code).map(|joined| (joined, 12)).ok_or(LONE)
        }
        _ => Err(LONE),
    }
}

/// The value of `\uXXXX`.
fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

/// The bytes of a raw string without quotes, escapes undone. What is not an escape stays as it is.
pub(super) fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'\\', raw) else {
        return Cow::Borrowed(raw);
    };
    let mut out = Vec::with_capacity(raw.len());
    let (mut plain, mut rest) = raw.split_at(first);
    loop {
        out.extend_from_slice(plain);
        let Ok((character, length)) = escape(rest) else {
            out.extend_from_slice(rest);
            return Cow::Owned(out);
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[length..];
        (plain, rest) = rest.split_at(memchr::memchr(b'\\', rest).unwrap_or(rest.len()));
    }
}

/// The text of a raw JSON string, quotes included; `None` if `raw` is not exactly one.
pub fn unquote(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut at = plain_end(inner, 0);
    if at == inner.len() {
        return str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    while at < inner.len() {
        at += escape(&inner[at..]).ok()?.1;
        at = plain_end(inner, at);
    }
    String::from_utf8(unescaped(inner).into_owned()).ok().map(Cow::Owned)
}

/// Writes `s` as a JSON string.
pub fn quote(out: &mut Vec<u8>, s: &str) {
    let text = s.as_bytes();
    out.push(b'"');
    let mut from = 0;
    loop {
        let end = plain_end(text, from);
        out.extend_from_slice(&text[from..end]);
        let Some(byte) = text.get(end) else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                let hex = |nibble: u8| char::from_digit(u32::from(nibble), 16).map_or(b'0', |digit| digit as u8);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(control >> 4), hex(control & 15)]);
            }
        }
        from = end + 1;
    }
    out.push(b'"');
}

/// The text on one line, for SSE: without the white space outside of strings.
///
/// Borrowed as it is when it has no CR or LF. Inside a string neither can stand raw, so nothing there changes.
pub fn compact(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\r', b'\n', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'"' => {
                let end = string_end(text, at).unwrap_or(text.len());
                out.extend(text[at..end].iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
                at = end;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

/// The end of the string whose quote is at `at`, its closing quote included; `None` if it never closes.
pub(super) fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}
