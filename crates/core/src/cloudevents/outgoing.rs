//! A stored event in the form of CloudEvents.

use std::borrow::Cow;

use super::{ATTRIBUTES, SPELLINGS};
use crate::event::Header;
use crate::json::quote;

/// The event in structured mode (`application/cloudevents+json`).
pub fn to_structured(header: &Header, data: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + data.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    each_attribute(header, |name, value| {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        quote(&mut out, value);
    });
    out.extend_from_slice(b",\"datacontenttype\":\"application/json\"");
    match data {
        Some(data) => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(data);
        }
        None => out.extend_from_slice(b",\"erased\":true"),
    }
    out.push(b'}');
    out
}

/// The `ce-` headers of the event in binary mode, percent-encoded; the body is the data, `content-type` is the caller's.
///
/// For erased data the caller adds `ce-erased: true` and sends no body.
pub fn to_binary_headers(header: &Header) -> Vec<(String, String)> {
    let mut headers = vec![("ce-specversion".to_owned(), "1.0".to_owned())];
    each_attribute(header, |name, value| headers.push((format!("ce-{name}"), percent_encoded(value).into_owned())));
    headers
}

/// Attributes that both modes write as text, in one order.
fn each_attribute(header: &Header, mut attribute: impl FnMut(&str, &str)) {
    attribute("id", header.subject.id.as_str());
    attribute("source", &header.source);
    attribute("type", header.subject.event_type.as_str());
    attribute("time", &header.timestamp.to_string());
    if let Some(aggregate) = &header.subject.aggregate {
        attribute("subject", aggregate.as_str());
        attribute("partitionkey", aggregate.as_str());
    }
    // Text, not a number: the format's integers end at 32 bits with a sign, and binary mode knows only text.
    attribute("eventversion", &header.version.to_string());
    if let Some(sequence) = header.sequence {
        attribute("aggregateseq", &format!("{sequence:020}"));
    }
    let mut written = Vec::new();
    for (name, value) in &header.metadata {
        if let Some(name) = extension_name(name).filter(|name| !written.contains(name)) {
            attribute(name, value);
            written.push(name);
        }
    }
}

/// The extension that a metadata pair becomes, if its name allows one.
fn extension_name(name: &str) -> Option<&str> {
    let name = SPELLINGS.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs);
    let legal = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    // `dataschema` is an attribute that only metadata can fill.
    (legal && (name == "dataschema" || !ATTRIBUTES.contains(&name))).then_some(name)
}

/// As the HTTP binding asks (§3.1.3.2): everything but visible ASCII, and `"` and `%`, as UTF-8 bytes in hex.
fn percent_encoded(value: &str) -> Cow<'_, str> {
    let plain = |byte: u8| matches!(byte, 0x21..=0x7e) && byte != b'"' && byte != b'%';
    if value.bytes().all(plain) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() * 2);
    for byte in value.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            let hex = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
            out.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    Cow::Owned(out)
}
