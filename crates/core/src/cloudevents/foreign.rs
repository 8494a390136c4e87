//! Ids and types of other systems, made to fit.

use uuid::Uuid;

use crate::event::EventType;
use crate::id::EventId;

/// Stands before a type that has only one part.
const LONE_PART_PREFIX: &str = "cloudevents";

/// An id for an event whose own does not fit: the same for the same source and id, so that repeats are noticed.
pub(super) fn id(source: &str, id: &str) -> EventId {
    // Two steps keep (source, id) pairs apart that are the same when joined.
    let of_source = Uuid::new_v5(&Uuid::NAMESPACE_URL, source.as_bytes());
    EventId::from_uuid(&Uuid::new_v5(&of_source, id.as_bytes()))
}

/// A type in our spelling: `com.example/OrderShipped` becomes `com.example.order_shipped`.
///
/// Not always an event type yet: it may be too long, or have nothing to make a part of.
pub(super) fn event_type(foreign: &str) -> String {
    if EventType::parse(foreign).is_ok() {
        return foreign.to_owned();
    }
    let parts: Vec<String> =
        foreign.split(['.', '/', ':', '\\', '#']).map(snake).filter(|part| !part.is_empty()).collect();
    match &*parts {
        [lone] => format!("{LONE_PART_PREFIX}.{lone}"),
        _ => parts.join("."),
    }
}

fn snake(part: &str) -> String {
    let letters: Vec<char> = part.chars().collect();
    let mut out = String::with_capacity(part.len() + 4);
    for (index, letter) in letters.iter().enumerate() {
        if !letter.is_ascii_alphanumeric() {
            out.push('_');
            continue;
        }
        let before = index.checked_sub(1).map(|index| letters[index]);
        let after = letters.get(index + 1);
        // A new word: the B of `aB` and `1B`, and the last capital of `ABc`.
        let starts_word = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit()
                    || (before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase))
            });
        if starts_word {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    let words: Vec<&str> = out.split('_').filter(|word| !word.is_empty()).collect();
    let joined = words.join("_");
    // A part starts with a letter: n for number.
    if joined.starts_with(|first: char| first.is_ascii_digit()) { format!("n{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_types_become_snake_case_parts() {
        let cases = [
            ("order.created", "order.created"),
            ("com.example.OrderShipped", "com.example.order_shipped"),
            ("com.github.pull-request.opened", "com.github.pull_request.opened"),
            ("Microsoft.Storage.BlobCreated", "microsoft.storage.blob_created"),
            ("google.cloud.storage.object.v1.finalized", "google.cloud.storage.object.v1.finalized"),
            ("com.example/HTTPServer:Started2Times", "com.example.http_server.started2_times"),
            ("OrderCreated", "cloudevents.order_created"),
            ("order", "cloudevents.order"),
            ("a..b", "a.b"),
            ("com.2fa.On", "com.n2fa.on"),
            ("_private.__x__y__", "private.x_y"),
            ("größe.Ändern", "gr_e.ndern"),
            ("...", ""),
            ("", ""),
        ];
        for (foreign, ours) in cases {
            assert_eq!(event_type(foreign), ours, "{foreign}");
            assert_eq!(EventType::parse(ours).is_ok(), !ours.is_empty(), "{foreign}");
        }
    }

    #[test]
    fn a_made_id_depends_on_source_and_id_and_nothing_else() {
        assert_eq!(id("/a", "1.2"), id("/a", "1.2"));
        assert_ne!(id("/a", "1.2"), id("/b", "1.2"));
        assert_ne!(id("/a", "b1.2"), id("/ab", "1.2"));
        assert_eq!(id("/a", "1.2").as_str().as_bytes()[14], b'5');
    }
}
