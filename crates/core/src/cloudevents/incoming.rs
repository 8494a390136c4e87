//! An event of CloudEvents as a draft.

use std::borrow::Cow;

use bytes::Bytes;

use super::{ATTRIBUTES, SPELLINGS, foreign};
use crate::event::{AggregateId, Draft, EventLimits, EventType, Fields, members};
use crate::id::EventId;
use crate::json;
use crate::problem::{Rule, Violation};

/// Reads an event in structured mode; pointers start at the event.
pub fn from_structured(text: &Bytes, limits: &EventLimits) -> Result<Draft, Vec<Violation>> {
    let mut reading = Reading::new("/", limits);
    let mut data = None;
    members(text, limits, |raw_name, value| match json::unquote(raw_name).as_deref() {
        Some("data") => data = Some(text.slice_ref(value)),
        Some(name) if value != b"null" => reading.member(name, value),
        _ => {}
    })?;
    reading.draft("/data", data)
}

/// Reads an event in HTTP binary mode: lower-case header names, the body is the data; an empty body is null.
///
/// Pointers name headers (`/ce-id`); those into the body start at the body.
pub fn from_binary(headers: &[(&str, &str)], body: &Bytes, limits: &EventLimits) -> Result<Draft, Vec<Violation>> {
    let mut reading = Reading::new("/ce-", limits);
    for (name, value) in headers {
        if *name == "content-type" {
            reading.content_type("/content-type", value);
        } else if let Some(name) = name.strip_prefix("ce-") {
            reading.header(name, value);
        }
    }
    let trimmed = body.trim_ascii();
    let data = if trimmed.is_empty() {
        None
    } else {
        // Size first: what is too large need not be read.
        let data = reading.fields.data("", body.slice_ref(trimmed), limits);
        if let Some(Err(error)) = data.as_ref().map(|data| json::check(data, &limits.json)) {
            reading.fields.refuse(
                error.pointer,
                error.fault.into(),
                format!("the body is the data of the event, JSON: {}", error.message),
            );
        }
        data
    };
    reading.draft("", data)
}

/// The attributes read so far.
struct Reading<'a> {
    fields: Fields,
    limits: &'a EventLimits,
    /// What stands before an attribute's name in a pointer.
    prefix: &'static str,
    attributes: Vec<(&'static str, String)>,
    extensions: Vec<(String, String)>,
}

impl<'a> Reading<'a> {
    fn new(prefix: &'static str, limits: &'a EventLimits) -> Self {
        Self { fields: Fields::default(), limits, prefix, attributes: Vec::new(), extensions: Vec::new() }
    }

    fn pointer(&self, name: &str) -> String {
        let mut step = String::new();
        json::push_step(&mut step, name);
        format!("{}{}", self.prefix, &step[1..])
    }

    /// A member of a structured event that is neither null nor the data.
    fn member(&mut self, name: &str, raw: &[u8]) {
        if name == "data_base64" {
            let message = "data_base64 is not taken: Tidings keeps JSON, send it in data (bytes as a string there, if it must be)";
            return self.fields.refuse("/data_base64", Rule::Invalid, message);
        }
        let is_text =
            ATTRIBUTES.contains(&name) && name != "eventversion" && name != "aggregateseq" && name != "erased";
        let value = match raw.first() {
            Some(b'"') => json::unquote(raw),
            Some(b't' | b'f') if !is_text => str::from_utf8(raw).ok().map(Cow::Borrowed),
            // The format knows no fractions.
            Some(b'-' | b'0'..=b'9') if !is_text && !raw.iter().any(|byte| b".eE".contains(byte)) => {
                str::from_utf8(raw).ok().map(Cow::Borrowed)
            }
            _ => None,
        };
        if let Some(value) = value {
            return self.attribute(name, value.into_owned());
        }
        let kind = if is_text { "a string" } else { "a string, a whole number or a boolean" };
        let pointer = self.pointer(name);
        self.fields.refuse(pointer, Rule::WrongType, format!("this CloudEvents attribute is {kind}"));
    }

    /// A `ce-` header, its name without that prefix.
    fn header(&mut self, name: &str, value: &str) {
        let pointer = self.pointer(name);
        let seen = self.attributes.iter().any(|(seen, _)| *seen == name)
            || self.extensions.iter().any(|(seen, _)| seen == name);
        if seen {
            return self.fields.refuse(pointer, Rule::DuplicateKey, "this header comes twice: send it once");
        }
        match header_text(value) {
            Some(value) => self.attribute(name, value),
            None => self.fields.refuse(
                pointer,
                Rule::InvalidUtf8,
                "this header is not UTF-8 once its percent-encoding is undone",
            ),
        }
    }

    fn attribute(&mut self, name: &str, value: String) {
        if let Some(known) = ATTRIBUTES.iter().find(|known| **known == name && name != "dataschema" && name != "erased")
        {
            return self.attributes.push((known, value));
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            let pointer = self.pointer(name);
            let message =
                "CloudEvents attribute names are lower-case letters and digits: rename it or put it into data";
            return self.fields.refuse(pointer, Rule::UnknownField, message);
        }
        self.extensions.push((name.to_owned(), value));
    }

    fn content_type(&mut self, pointer: &str, value: &str) {
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !(essence == "application/json" || essence == "text/json" || essence.ends_with("+json")) {
            self.fields.refuse(pointer, Rule::Invalid, "the data of an event is JSON: send it as application/json");
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let index = self.attributes.iter().position(|(known, _)| *known == name)?;
        Some(self.attributes.swap_remove(index).1)
    }

    fn required(&mut self, name: &str) -> Option<String> {
        let value = self.take(name).filter(|value| !value.is_empty());
        if value.is_none() {
            let pointer = self.pointer(name);
            self.fields.refuse(pointer, Rule::Missing, format!("CloudEvents 1.0 requires {name}"));
        }
        value
    }

    fn draft(mut self, data_pointer: &str, data: Option<Bytes>) -> Result<Draft, Vec<Violation>> {
        if self.required("specversion").is_some_and(|version| version != "1.0") {
            let pointer = self.pointer("specversion");
            self.fields.refuse(pointer, Rule::Invalid, "only CloudEvents 1.0 is read: send specversion 1.0");
        }
        if let Some(value) = self.take("datacontenttype") {
            let pointer = self.pointer("datacontenttype");
            self.content_type(&pointer, &value);
        }
        let (id, source) = (self.required("id"), self.required("source"));
        let id = id.map(|id| self.id(&id, source.as_deref().unwrap_or_default()));
        let event_type = self.required("type").and_then(|foreign| self.event_type(&foreign));
        let pointer = self.pointer("source");
        let source = source.and_then(|source| self.fields.source(&pointer, &source));
        let aggregate = self.aggregate();
        let pointer = self.pointer("time");
        let timestamp = self.take("time").and_then(|time| self.fields.timestamp(&pointer, &time));
        let pointer = self.pointer("eventversion");
        let version = self.take("eventversion").and_then(|version| self.fields.version(&pointer, version.as_bytes()));
        let metadata = self.metadata();
        let data = match data {
            Some(data) => self.fields.data(data_pointer, data, self.limits),
            None => Some(Bytes::from_static(b"null")),
        };
        let complete = event_type.zip(data).map(|(event_type, data)| Draft {
            id,
            event_type,
            version,
            timestamp,
            source,
            aggregate,
            channels: Vec::new(),
            metadata,
            data,
            expected_sequence: None,
        });
        self.fields.finish(complete)
    }

    fn id(&mut self, id: &str, source: &str) -> EventId {
        EventId::parse(id).unwrap_or_else(|_| {
            self.derived("originalid", id);
            foreign::id(source, id)
        })
    }

    /// Adds an extension of ours, in place of one that came under its name: no name stands twice in what is kept.
    fn derived(&mut self, name: &str, value: &str) {
        self.extensions.retain(|(other, _)| other != name);
        self.extensions.push((name.to_owned(), value.to_owned()));
    }

    fn event_type(&mut self, foreign: &str) -> Option<EventType> {
        let ours = foreign::event_type(foreign);
        if ours != foreign {
            self.derived("originaltype", foreign);
        }
        let pointer = self.pointer("type");
        self.fields.event_type(&pointer, &ours)
    }

    /// The subject says what the event is about; a partition key that says something else stays metadata.
    fn aggregate(&mut self) -> Option<AggregateId> {
        let present = |value: &String| !value.is_empty();
        let (subject, key) = (self.take("subject").filter(present), self.take("partitionkey").filter(present));
        let (name, value) = match (subject, key) {
            (Some(subject), key) => {
                let other = key.filter(|key| *key != subject);
                self.extensions.extend(other.map(|key| ("partitionkey".into(), key)));
                ("subject", subject)
            }
            (None, Some(key)) => ("partitionkey", key),
            (None, None) => return None,
        };
        let pointer = self.pointer(name);
        self.fields.aggregate(&pointer, &value)
    }

    fn metadata(&mut self) -> Vec<(Box<str>, Box<str>)> {
        self.fields.metadata_count("", self.extensions.len());
        let pairs = std::mem::take(&mut self.extensions).into_iter().filter_map(|(name, value)| {
            let pointer = self.pointer(&name);
            let ours = SPELLINGS.iter().find(|(_, theirs)| *theirs == name).map_or(name.as_str(), |(ours, _)| ours);
            self.fields.metadata_pair(|| pointer, ours, Some(&value))
        });
        pairs.collect()
    }
}

/// A header's text (HTTP binding §3.1.3.2): quotes taken off, then one round of percent-decoding.
fn header_text(value: &str) -> Option<String> {
    let value = value.trim_matches([' ', '\t']);
    let unquoted = match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => {
            let mut out = String::with_capacity(inner.len());
            let mut letters = inner.chars();
            while let Some(letter) = letters.next() {
                out.push(if letter == '\\' { letters.next().unwrap_or('\\') } else { letter });
            }
            Cow::Owned(out)
        }
        None => Cow::Borrowed(value),
    };
    let mut out = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.first_chunk::<2>().filter(|_| byte == b'%').and_then(|[high, low]| {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        });
        out.push(hex.unwrap_or(byte));
        rest = if hex.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(out).ok()
}
