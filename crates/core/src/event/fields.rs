//! One field after the other becomes a value or a violation; native events and CloudEvents share the rules.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    AggregateId, CHANNELS_MAX, Channel, EventLimits, EventType, METADATA_MAX, METADATA_NAME_BYTES_MAX,
    METADATA_VALUE_BYTES_MAX, SOURCE_BYTES_MAX, is_printable,
};
use crate::id::EventId;
use crate::json;
use crate::problem::{Rule, Violation, Violations};
use crate::time::Timestamp;

/// Reads fields and remembers all that is wrong with them.
#[derive(Default)]
pub(crate) struct Fields {
    violations: Violations,
}

impl Fields {
    pub(crate) fn refuse(&mut self, pointer: impl Into<String>, rule: Rule, message: impl Into<String>) {
        self.violations.add(pointer, rule, message);
    }

    /// The value if nothing was wrong.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(self.violations.into_vec()),
        }
    }

    /// The text of a raw JSON string.
    pub(crate) fn text<'a>(&mut self, pointer: &str, raw: &'a [u8]) -> Option<Cow<'a, str>> {
        let text = json::unquote(raw);
        if text.is_none() {
            self.refuse(pointer, Rule::WrongType, format!("{} is a string", name_of(pointer)));
        }
        text
    }

    pub(crate) fn id(&mut self, pointer: &str, text: &str) -> Option<EventId> {
        self.violations.keep(pointer, text, EventId::BYTES_MAX, EventId::parse(text))
    }

    pub(crate) fn event_type(&mut self, pointer: &str, text: &str) -> Option<EventType> {
        let event_type = self.violations.keep(pointer, text, EventType::BYTES_MAX, EventType::parse(text))?;
        if event_type.is_operational() {
            self.refuse(
                pointer,
                Rule::Reserved,
                "`tidings.*` types are published by Tidings itself: choose another name",
            );
            return None;
        }
        Some(event_type)
    }

    pub(crate) fn version(&mut self, pointer: &str, raw: &[u8]) -> Option<u32> {
        let version = self.whole_number(pointer, raw).map(|number| u32::try_from(number).unwrap_or(0))?;
        if version == 0 {
            self.refuse(pointer, Rule::Invalid, format!("{} is 1 or more and fits 32 bits", name_of(pointer)));
            return None;
        }
        Some(version)
    }

    pub(crate) fn whole_number(&mut self, pointer: &str, raw: &[u8]) -> Option<u64> {
        let number = str::from_utf8(raw).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = number else {
            self.refuse(
                pointer,
                Rule::WrongType,
                format!("{} is a whole number, written without sign, fraction and exponent", name_of(pointer)),
            );
            return None;
        };
        let number = number.parse().ok();
        if number.is_none() {
            self.refuse(pointer, Rule::Invalid, format!("{} is too large", name_of(pointer)));
        }
        number
    }

    pub(crate) fn timestamp(&mut self, pointer: &str, text: &str) -> Option<Timestamp> {
        let timestamp = Timestamp::parse_rfc3339(text);
        if timestamp.is_none() {
            self.refuse(
                pointer,
                Rule::Invalid,
                format!("{} is an RFC 3339 time with an offset, as in 2026-11-22T10:15:30.123Z", name_of(pointer)),
            );
        }
        timestamp
    }

    pub(crate) fn source(&mut self, pointer: &str, text: &str) -> Option<Box<str>> {
        self.violations.keep(pointer, text, SOURCE_BYTES_MAX, parse_source(text))
    }

    pub(crate) fn aggregate(&mut self, pointer: &str, text: &str) -> Option<AggregateId> {
        self.violations.keep(pointer, text, AggregateId::BYTES_MAX, AggregateId::parse(text))
    }

    /// The channels of a raw JSON array, each once.
    pub(crate) fn channels(&mut self, pointer: &str, raw: &[u8], limits: &EventLimits) -> Vec<Channel> {
        let mut channels = Vec::new();
        let mut index = 0;
        let read = json::array(raw, &limits.json, |element| {
            if index < CHANNELS_MAX {
                channels.extend(self.channel(pointer, index, element).filter(|channel| !channels.contains(channel)));
            }
            index += 1;
        });
        if read.is_err() {
            self.refuse(pointer, Rule::WrongType, format!("{} is an array of strings", name_of(pointer)));
        } else if index > CHANNELS_MAX {
            self.refuse(
                pointer,
                Rule::TooLong,
                format!("an event has at most {CHANNELS_MAX} channels, this one names {index}"),
            );
        }
        channels
    }

    fn channel(&mut self, pointer: &str, index: usize, raw: &[u8]) -> Option<Channel> {
        let text = json::unquote(raw);
        if let Some(Ok(channel)) = text.as_deref().map(Channel::parse) {
            return Some(channel);
        }
        let pointer = format!("{pointer}/{index}");
        let text = self.text(&pointer, raw)?;
        self.violations.keep(&pointer, &text, Channel::BYTES_MAX, Channel::parse(&text))
    }

    /// The pairs of a raw JSON object of strings.
    pub(crate) fn metadata(&mut self, pointer: &str, raw: &[u8], limits: &EventLimits) -> Vec<(Box<str>, Box<str>)> {
        let mut pairs = Vec::new();
        let mut count = 0;
        let read = json::object(raw, &limits.json, |name, value| {
            count += 1;
            if let Some(name) = json::unquote(name)
                && count <= METADATA_MAX
            {
                let place = || {
                    let mut pointer = pointer.to_owned();
                    json::push_step(&mut pointer, &name);
                    pointer
                };
                pairs.extend(self.metadata_pair(place, &name, json::unquote(value).as_deref()));
            }
        });
        if read.is_err() {
            self.refuse(
                pointer,
                Rule::WrongType,
                format!("{} is an object whose values are strings", name_of(pointer)),
            );
        }
        self.metadata_count(pointer, count);
        pairs
    }

    pub(crate) fn metadata_count(&mut self, pointer: &str, count: usize) {
        if count > METADATA_MAX {
            let message = format!(
                "an event has at most {METADATA_MAX} metadata pairs, this one has {count}: put the rest into data"
            );
            self.refuse(pointer, Rule::TooLong, message);
        }
    }

    /// A pair; a value of `None` is none that metadata takes.
    pub(crate) fn metadata_pair(
        &mut self,
        pointer: impl FnOnce() -> String,
        name: &str,
        value: Option<&str>,
    ) -> Option<(Box<str>, Box<str>)> {
        let (rule, message) = match value {
            _ if name.is_empty() || name.len() > METADATA_NAME_BYTES_MAX || !is_printable(name) => (
                Rule::Invalid,
                format!("a metadata name has 1 to {METADATA_NAME_BYTES_MAX} bytes and no control characters"),
            ),
            None => (Rule::WrongType, "a metadata value is a string: put other values into data".into()),
            Some(value) if value.len() > METADATA_VALUE_BYTES_MAX => (
                Rule::TooLong,
                format!("a metadata value has at most {METADATA_VALUE_BYTES_MAX} bytes: put longer ones into data"),
            ),
            Some(value) if !is_printable(value) => {
                (Rule::Invalid, "a metadata value has no control characters: put such text into data".into())
            }
            Some(value) => return Some((name.into(), value.into())),
        };
        self.refuse(pointer(), rule, message);
        None
    }

    /// The data, a slice of the text it came in.
    pub(crate) fn data(&mut self, pointer: &str, data: Bytes, limits: &EventLimits) -> Option<Bytes> {
        if data.len() > limits.data_bytes_max {
            let (length, most) = (data.len(), limits.data_bytes_max);
            self.refuse(
                pointer,
                Rule::TooLarge,
                format!("data has {length} bytes, at most {most} are taken: send a reference to what is larger"),
            );
            return None;
        }
        Some(data)
    }
}

/// The member a pointer ends with, to speak of it.
fn name_of(pointer: &str) -> &str {
    pointer
        .rsplit('/')
        .next()
        .filter(|name| !name.starts_with(|first: char| first.is_ascii_digit()))
        .unwrap_or("each element")
}

/// Checks a source: a URI-reference (RFC 3986) of at most 512 bytes. The error says what is accepted.
pub fn parse_source(text: &str) -> Result<Box<str>, String> {
    let wrong = || {
        format!("a source is a URI-reference of 1 to {SOURCE_BYTES_MAX} characters without blanks, as in `/orders-api`")
    };
    let bytes = text.as_bytes();
    if text.is_empty() || text.len() > SOURCE_BYTES_MAX {
        return Err(wrong());
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(byte);
    let escape_fits = |rest: &[u8]| rest.first_chunk::<2>().is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let escapes_fit = bytes.split(|byte| *byte == b'%').skip(1).all(escape_fits);
    // Before a colon in the first segment stands a scheme (RFC 3986 §4.2).
    let head = text.split(['/', '?', '#']).next().unwrap_or_default();
    let scheme_fits = head.split_once(':').is_none_or(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    let one_fragment = text.splitn(3, '#').count() <= 2;
    // Brackets only hold an IP literal, which needs an authority (§3.2.2).
    let brackets_fit = text.contains("//[") || !text.contains(['[', ']']);
    if bytes.iter().all(allowed) && escapes_fit && scheme_fits && one_fragment && brackets_fit {
        Ok(text.into())
    } else {
        Err(wrong())
    }
}
