//! The events of the load: about 500 bytes each, 20 types, 200,000 aggregates.
//!
//! Each type is rendered once; an event is a copy of its template with the varying digits written over, which costs
//! about as much as the copy, so that making events never becomes the thing measured.

use std::sync::Arc;

use crate::clock;

/// Distinct aggregates the events are about.
const AGGREGATES: u64 = 200_000;

const TYPES: [&str; 20] = [
    "order.created",
    "order.paid",
    "order.packed",
    "order.shipped",
    "order.delivered",
    "order.cancelled",
    "order.refunded",
    "order.item.added",
    "order.item.removed",
    "payment.authorized",
    "payment.captured",
    "payment.failed",
    "shipment.created",
    "shipment.delayed",
    "invoice.issued",
    "invoice.overdue",
    "customer.updated",
    "customer.address.changed",
    "stock.reserved",
    "stock.released",
];

/// A name in `data` whose number says, in nanoseconds since 1970, when the event was sent.
pub(crate) const SENT_AT: &str = r#""sentAtNs":"#;

/// An endless supply of events; two with different seeds share next to nothing.
#[derive(Clone)]
pub(crate) struct Events {
    templates: Arc<[Template]>,
    random: u64,
}

/// An event of one type with runs of placeholder letters to write over.
struct Template {
    bytes: Vec<u8>,
    id: Option<Slot>,
    aggregate: Slot,
    user: Slot,
    correlation: Slot,
    order: Slot,
    amount: Slot,
    tracking: Slot,
    sent_at: Slot,
}

/// Where in a template a value stands, and how many bytes it has.
#[derive(Clone, Copy)]
struct Slot {
    start: usize,
    width: usize,
}

impl Events {
    /// `with_ids` gives every event a `UUIDv7` of the producer's.
    pub(crate) fn new(seed: u64, with_ids: bool) -> Self {
        let templates = TYPES.iter().map(|event_type| Template::new(event_type, with_ids)).collect();
        let mut events = Self { templates, random: 1 };
        events.reseed(seed);
        events
    }

    /// Starts another series over the same templates.
    pub(crate) fn reseed(&mut self, seed: u64) {
        // SplitMix64's step, so that neighbouring seeds are far apart; xorshift must not start at 0.
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.random = (mixed ^ (mixed >> 27)) | 1;
    }

    /// Appends one event to `out`, without a line break.
    pub(crate) fn write_next(&mut self, out: &mut Vec<u8>) {
        let (first, second) = (self.next_random(), self.next_random());
        let kinds = self.templates.len() as u64;
        let kind = usize::try_from(first % kinds).unwrap_or_default();
        let aggregate = (first >> 8) % AGGREGATES;
        let template = &self.templates[kind];
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        let event = &mut out[start..];
        let sent_at = clock::wall_ns();
        template.aggregate.decimal(event, aggregate);
        template.order.decimal(event, aggregate);
        template.user.decimal(event, (first >> 32) % 50_000);
        template.amount.decimal(event, 10_000 + (second >> 40) % 90_000);
        template.correlation.hex(event, second);
        template.tracking.hex(event, second ^ first);
        template.sent_at.decimal(event, sent_at);
        if let Some(id) = template.id {
            id.uuid_v7(event, sent_at / 1_000_000, first, second);
        }
    }

    /// Xorshift64*: good enough to spread events, and cheap.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Template {
    fn new(event_type: &str, with_ids: bool) -> Self {
        let id = "I".repeat(36);
        let id = if with_ids { format!(r#""eventId":"{id}","#) } else { String::new() };
        let text = format!(
            concat!(
                r#"{{{}"eventType":"{}","timestamp":"2026-11-22T10:15:30.123Z","source":"/orders-api","#,
                r#""aggregateId":"order_AAAAAA","channels":["user:u_UUUUU"],"#,
                r#""metadata":{{"actor":"u_17","correlationId":"CCCCCCCCCCCCCCCC"}},"#,
                r#""data":{{"order":"OOOOOO","status":"in progress","amount":MMMMM,"currency":"EUR","#,
                r#""items":[{{"sku":"kettle-1l-steel","quantity":1}},{{"sku":"tea-green-100g","quantity":3}}],"#,
                r#""trackingNumber":"RRRRRRRRRRRRRRRR","{}NNNNNNNNNNNNNNNNNNN,"note":"leave it with the neighbour"}}}}"#
            ),
            id,
            event_type,
            &SENT_AT[1..]
        );
        let slot = |letter: char, width: usize| {
            let run = letter.to_string().repeat(width);
            text.find(&run).map(|start| Slot { start, width })
        };
        let fixed = |letter, width| slot(letter, width).unwrap_or(Slot { start: 0, width: 0 });
        Self {
            id: slot('I', 36),
            aggregate: fixed('A', 6),
            user: fixed('U', 5),
            correlation: fixed('C', 16),
            order: fixed('O', 6),
            amount: fixed('M', 5),
            tracking: fixed('R', 16),
            sent_at: fixed('N', 19),
            bytes: text.into_bytes(),
        }
    }
}

impl Slot {
    fn of(self, event: &mut [u8]) -> &mut [u8] {
        &mut event[self.start..self.start + self.width]
    }

    /// The lowest digits of `value`, with leading zeros where they fit into a string and none are needed elsewhere.
    fn decimal(self, event: &mut [u8], mut value: u64) {
        for byte in self.of(event).iter_mut().rev() {
            *byte = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }

    fn hex(self, event: &mut [u8], value: u64) {
        write_hex(self.of(event), value);
    }

    fn uuid_v7(self, event: &mut [u8], ms: u64, first: u64, second: u64) {
        let text = self.of(event);
        text.fill(b'-');
        write_hex(&mut text[0..8], ms >> 16);
        write_hex(&mut text[9..13], ms);
        write_hex(&mut text[14..18], 0x7000 | (first & 0xfff));
        write_hex(&mut text[19..23], 0x8000 | ((first >> 12) & 0x3fff));
        write_hex(&mut text[24..36], second);
    }
}

/// Fills `out` with the lowest digits of `value`.
fn write_hex(out: &mut [u8], mut value: u64) {
    for byte in out.iter_mut().rev() {
        *byte = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn some(count: usize, with_ids: bool) -> Vec<serde_json::Value> {
        let mut events = Events::new(7, with_ids);
        let mut out = Vec::new();
        (0..count)
            .map(|_| {
                out.clear();
                events.write_next(&mut out);
                assert!((450..=600).contains(&out.len()), "{} bytes", out.len());
                serde_json::from_slice(&out).expect("an event is JSON")
            })
            .collect()
    }

    #[test]
    fn events_are_json_with_every_placeholder_written_over() {
        for event in some(200, true) {
            let text = event.to_string();
            for run in ["AAAA", "UUUU", "CCCC", "OOOO", "MMMM", "RRRR", "NNNN", "IIII"] {
                assert!(!text.contains(run), "{text}");
            }
            assert!(event["data"]["sentAtNs"].is_u64());
        }
    }

    #[test]
    fn events_vary_in_type_and_aggregate() {
        let distinct = |name: &str| {
            let values = some(20_000, false).into_iter();
            values.map(|event| event[name].to_string()).collect::<HashSet<_>>().len()
        };
        assert_eq!(distinct("eventType"), TYPES.len());
        assert!(distinct("aggregateId") > 18_000);
    }

    #[test]
    fn ids_are_distinct_uuids_of_version_7_and_absent_by_default() {
        let ids: HashSet<String> =
            some(20_000, true).iter().map(|event| event["eventId"].as_str().expect("an id").to_owned()).collect();
        assert_eq!(ids.len(), 20_000);
        assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'7'));
        assert!(some(10, false).iter().all(|event| event.get("eventId").is_none()));
    }
}
