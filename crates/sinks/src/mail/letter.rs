//! A letter in plain text as it goes over the wire (RFC 5322, MIME): two encodings, both base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::fmt::rfc2822;
use lettre::Address;
use tidings_core::time::Timestamp;

/// Bytes that become a line of 76 characters.
const LINE_BYTES: usize = 57;
/// Bytes of an encoded word, which has at most 75 characters (RFC 2047 §2).
const WORD_BYTES_MAX: usize = 42;

/// An address, with a name or without.
pub(super) struct Mailbox {
    name: Box<str>,
    pub(super) address: Address,
}

impl Mailbox {
    /// Reads `ops@example.com` or `Tidings <ops@example.com>`; the name is of letters, digits and spaces.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no mail address, as in ops@example.com or Tidings <ops@example.com>");
        let (name, address) = match text.split_once('<') {
            None => ("", text),
            Some((name, rest)) => (name.trim(), rest.strip_suffix('>').ok_or_else(wrong)?),
        };
        let plain = name.chars().all(|char| char.is_alphanumeric() || char == ' ');
        let address = address.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        Ok(Self { name: name.into(), address })
    }

    fn shown(&self) -> String {
        let address = &self.address;
        if self.name.is_empty() { address.to_string() } else { format!("{} <{address}>", encoded(&self.name)) }
    }
}

/// What is to be written.
pub(super) struct Letter<'a> {
    pub(super) from: &'a Mailbox,
    pub(super) to: &'a Mailbox,
    pub(super) at: Timestamp,
    /// Without its angle brackets.
    pub(super) id: &'a str,
    pub(super) subject: &'a str,
    pub(super) text: &'a str,
}

impl Letter<'_> {
    /// The letter, all lines short and in ASCII, so that no server need change it; `None` if its time has no date.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let at = jiff::Timestamp::from_millisecond(self.at.as_millis()).ok()?;
        let date = rfc2822::DateTimePrinter::new().timestamp_to_string(&at).ok()?;
        let (from, to, subject) = (self.from.shown(), self.to.shown(), encoded(self.subject));
        let mut letter = format!(
            "From: {from}\r\nTo: {to}\r\nDate: {date}\r\nMessage-ID: <{}>\r\nSubject: {subject}\r\n\
             MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n",
            self.id
        );
        for line in self.text.replace('\n', "\r\n").as_bytes().chunks(LINE_BYTES) {
            STANDARD.encode_string(line, &mut letter);
            letter.push_str("\r\n");
        }
        Some(letter.into_bytes())
    }
}

/// The value of a header: as it is if it is short and plain, else in encoded words, each of whole characters.
fn encoded(text: &str) -> String {
    let plain = text.len() <= WORD_BYTES_MAX * 2 && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if plain && !text.contains("=?") {
        return text.to_owned();
    }
    let mut words = vec![String::new()];
    for char in text.chars() {
        if words.last().is_some_and(|word| word.len() + char.len_utf8() > WORD_BYTES_MAX) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(char);
        }
    }
    let words: Vec<_> = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    words.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_plain_or_in_words_that_each_hold_whole_characters() {
        assert_eq!(encoded("[Tidings] order.created: o 1"), "[Tidings] order.created: o 1");
        assert_eq!(encoded("a =?b"), "=?utf-8?B?YSA9P2I=?=");
        assert_eq!(encoded("a\r\nBcc: b@c"), "=?utf-8?B?YQ0KQmNjOiBiQGM=?=");
        let long = "é✓".repeat(100);
        let words = encoded(&long);
        let mut read = String::new();
        for word in words.split("\r\n ") {
            assert!(word.len() <= 75, "{word}");
            let bytes = STANDARD.decode(word.strip_prefix("=?utf-8?B?").unwrap().strip_suffix("?=").unwrap()).unwrap();
            read += std::str::from_utf8(&bytes).unwrap();
        }
        assert_eq!(read, long);
    }

    #[test]
    fn a_mailbox_may_have_a_name() {
        assert_eq!(Mailbox::parse("Tidings <a@example.com>").unwrap().shown(), "Tidings <a@example.com>");
        assert_eq!(Mailbox::parse("a@example.com").unwrap().shown(), "a@example.com");
        assert_eq!(Mailbox::parse("Zoë <a@example.com>").unwrap().shown(), "=?utf-8?B?Wm/Dqw==?= <a@example.com>");
        for text in ["a <b <c@d>", "a\r\nb <c@example.com>", "\"a\" <c@example.com>", "<c@example.com", "a@b@c"] {
            assert!(Mailbox::parse(text).is_err(), "{text:?}");
        }
    }
}
