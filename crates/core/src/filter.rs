//! Which events a subscriber gets: AND between the conditions, OR within one, nothing given means any.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::event::{AggregateId, Channel, EventType, Subject};

/// A pattern of event types.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum TypePattern {
    /// One type by its whole name.
    Exact(EventType),
    /// All types at any depth below a prefix; holds `order.` for `order.*`.
    Below(Box<str>),
    /// `*`: all types but the operational `tidings.*`, which must be named.
    All,
}

impl TypePattern {
    /// Reads `order.created`, `order.*` or `*`; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        let Some(prefix) = text.strip_suffix(".*") else {
            return EventType::parse(text).map(Self::Exact).map_err(|_| {
                "a type pattern is a type (`order.created`), all types below a prefix (`order.*`) or `*`".into()
            });
        };
        if prefix.len() <= EventType::BYTES_MAX && prefix.split('.').all(EventType::is_part) {
            Ok(Self::Below(text[..=prefix.len()].into()))
        } else {
            Err("before `.*` stand lower snake case parts joined by dots, as in `order.*` or `order.item.*`".into())
        }
    }

    /// Whether the type is one of the pattern's.
    pub fn matches(&self, event_type: &EventType) -> bool {
        self.matches_name(event_type.as_str())
    }

    fn matches_name(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == name,
            Self::Below(prefix) => name.starts_with(&**prefix),
            Self::All => !name.starts_with(EventType::OPERATIONAL_PREFIX),
        }
    }

    /// Whether the pattern asks for `tidings.*` types, which takes scope `ops:read`.
    pub fn names_operational(&self) -> bool {
        match self {
            Self::Exact(exact) => exact.is_operational(),
            Self::Below(prefix) => prefix.starts_with(EventType::OPERATIONAL_PREFIX),
            Self::All => false,
        }
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => exact.fmt(f),
            Self::Below(prefix) => write!(f, "{prefix}*"),
            Self::All => f.write_str("*"),
        }
    }
}

impl Serialize for TypePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TryFrom<String> for TypePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// The events a subscriber asked for and may see. The default takes all but `tidings.*`.
#[derive(Default, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// One of these types; empty: all but `tidings.*`.
    pub types: Vec<TypePattern>,
    /// At least one of these channels; empty: any.
    pub channels: Vec<Channel>,
    /// This aggregate; none: any.
    pub aggregate: Option<AggregateId>,
    /// At least one of these too, whatever was asked for: the walls of a confined key. `Some` of nothing sees nothing.
    pub confined: Option<Vec<Channel>>,
}

impl Filter {
    /// Every event, operational ones too.
    pub fn everything() -> Self {
        let operational = TypePattern::Below(EventType::OPERATIONAL_PREFIX.into());
        Self { types: vec![TypePattern::All, operational], ..Self::default() }
    }

    /// Whether an event's type passes.
    pub fn matches_type(&self, name: &str) -> bool {
        match &self.types[..] {
            [] => TypePattern::All.matches_name(name),
            patterns => patterns.iter().any(|pattern| pattern.matches_name(name)),
        }
    }

    /// Whether nothing but the type decides.
    pub fn is_of_types(&self) -> bool {
        self.channels.is_empty() && self.aggregate.is_none() && self.confined.is_none()
    }

    /// Whether the event passes.
    pub fn matches(&self, subject: &Subject) -> bool {
        let carries = |wanted: &[Channel]| subject.channels.iter().any(|channel| wanted.contains(channel));
        self.matches_type(subject.event_type.as_str())
            && (self.channels.is_empty() || carries(&self.channels))
            && self.aggregate.as_ref().is_none_or(|wanted| subject.aggregate.as_ref() == Some(wanted))
            && self.confined.as_ref().is_none_or(|walls| carries(walls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EventId;

    fn subject(event_type: &str, aggregate: Option<&str>, channels: &[&str]) -> Subject {
        Subject {
            id: EventId::parse("e1").unwrap(),
            event_type: EventType::parse(event_type).unwrap(),
            aggregate: aggregate.map(|id| AggregateId::parse(id).unwrap()),
            channels: self::channels(channels),
        }
    }

    fn channels(names: &[&str]) -> Vec<Channel> {
        names.iter().map(|name| Channel::parse(name).unwrap()).collect()
    }

    #[test]
    fn patterns_match_whole_parts_at_any_depth() {
        let cases = [
            ("order.created", "order.created", true),
            ("order.created", "order.created.late", false),
            ("order.*", "order.created", true),
            ("order.*", "order.item.added", true),
            ("order.*", "orders.created", false),
            ("order.item.*", "order.item.added", true),
            ("order.item.*", "order.created", false),
            ("*", "order.created", true),
            ("*", "tidings.webhook.deactivated", false),
            ("tidings.*", "tidings.webhook.deactivated", true),
            ("tidings.*", "tidingsx.created", false),
            ("tidings.webhook.deactivated", "tidings.webhook.deactivated", true),
        ];
        for (pattern, event_type, matches) in cases {
            let parsed = TypePattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(&EventType::parse(event_type).unwrap()), matches, "{pattern} {event_type}");
            assert_eq!(parsed.to_string(), pattern);
            assert_eq!(parsed.names_operational(), pattern.starts_with("tidings."), "{pattern}");
        }
    }

    #[test]
    fn patterns_with_a_star_elsewhere_are_refused() {
        for pattern in [
            "",
            "order",
            "order*",
            "*.created",
            "order.*.added",
            ".*",
            "order..*",
            "Order.*",
            "**",
            "order.**",
            "order.* ",
        ] {
            assert!(TypePattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_is_a_string_in_json() {
        let pattern = TypePattern::parse("order.*").unwrap();
        assert_eq!(serde_json::to_string(&pattern).unwrap(), r#""order.*""#);
        assert_eq!(serde_json::from_str::<TypePattern>(r#""order.*""#).unwrap(), pattern);
        assert!(serde_json::from_str::<TypePattern>(r#""order""#).is_err());
    }

    #[test]
    fn conditions_are_and_between_and_or_within() {
        let filter = Filter {
            types: vec![TypePattern::parse("order.*").unwrap(), TypePattern::parse("cart.closed").unwrap()],
            channels: channels(&["user:1", "user:2"]),
            aggregate: Some(AggregateId::parse("o1").unwrap()),
            confined: None,
        };
        assert!(filter.matches(&subject("order.created", Some("o1"), &["user:2"])));
        assert!(filter.matches(&subject("cart.closed", Some("o1"), &["x", "user:1"])));
        assert!(!filter.matches(&subject("cart.opened", Some("o1"), &["user:1"])));
        assert!(!filter.matches(&subject("order.created", Some("o2"), &["user:1"])));
        assert!(!filter.matches(&subject("order.created", None, &["user:1"])));
        assert!(!filter.matches(&subject("order.created", Some("o1"), &[])));
    }

    #[test]
    fn an_empty_filter_takes_all_but_operational_events() {
        let filter = Filter::default();
        assert!(filter.matches(&subject("order.created", None, &[])));
        assert!(!filter.matches(&subject("tidings.key.created", None, &[])));
    }

    #[test]
    fn walls_hold_whatever_is_asked_for() {
        let confined = |walls: &[&str]| Filter { confined: Some(channels(walls)), ..Filter::default() };
        assert!(confined(&["customer:42"]).matches(&subject("order.created", None, &["a", "customer:42"])));
        assert!(!confined(&["customer:42"]).matches(&subject("order.created", None, &["customer:4"])));
        assert!(!confined(&["customer:42"]).matches(&subject("order.created", None, &[])));
        assert!(!confined(&[]).matches(&subject("order.created", None, &["a"])));
        let asked = Filter { channels: channels(&["a"]), ..confined(&["customer:42"]) };
        assert!(!asked.matches(&subject("order.created", None, &["a"])));
        assert!(asked.matches(&subject("order.created", None, &["a", "customer:42"])));
    }
}
