//! Who wants an event: an index from what an event is to those who asked for it.
//!
//! Everyone stands under the narrowest thing that their filter names: an aggregate, else channels, else types. So an
//! event costs what it matches, however many there are.

use std::sync::Arc;

use foldhash::HashMap;
use tidings_core::event::{AggregateId, Channel, EventType, Subject};
use tidings_core::filter::{Filter, TypePattern};

/// An index of filters by number.
#[derive(Debug, Default)]
pub struct Interest {
    filters: HashMap<u32, Arc<Filter>>,
    aggregates: HashMap<AggregateId, Vec<u32>>,
    channels: HashMap<Channel, Vec<u32>>,
    types: HashMap<EventType, Vec<u32>>,
    /// Under the prefix with its dot.
    below: HashMap<Box<str>, Vec<u32>>,
    all: Vec<u32>,
}

/// Where a filter stands.
enum Place<'a> {
    Aggregate(&'a AggregateId),
    Channels(&'a [Channel]),
    Types(&'a [TypePattern]),
}

fn place(filter: &Filter) -> Place<'_> {
    if let Some(aggregate) = &filter.aggregate {
        return Place::Aggregate(aggregate);
    }
    match (&filter.channels[..], &filter.confined) {
        ([], None) => Place::Types(&filter.types),
        ([], Some(walls)) => Place::Channels(walls),
        (channels, _) => Place::Channels(channels),
    }
}

impl Interest {
    /// Whether nobody wants anything.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Adds a filter under a number that is not in use.
    pub fn insert(&mut self, number: u32, filter: impl Into<Arc<Filter>>) {
        let filter = filter.into();
        match place(&filter) {
            Place::Aggregate(aggregate) => note(self.aggregates.entry(aggregate.clone()).or_default(), number),
            Place::Channels(channels) => {
                for channel in channels {
                    note(self.channels.entry(channel.clone()).or_default(), number);
                }
            }
            Place::Types([]) => note(&mut self.all, number),
            Place::Types(patterns) => {
                for pattern in patterns {
                    match pattern {
                        TypePattern::Exact(name) => note(self.types.entry(name.clone()).or_default(), number),
                        TypePattern::Below(prefix) => note(self.below.entry(prefix.clone()).or_default(), number),
                        TypePattern::All => note(&mut self.all, number),
                    }
                }
            }
        }
        self.filters.insert(number, filter);
    }

    /// Takes a filter out.
    pub fn remove(&mut self, number: u32) {
        let Some(filter) = self.filters.remove(&number) else { return };
        match place(&filter) {
            Place::Aggregate(aggregate) => forget(&mut self.aggregates, aggregate, number),
            Place::Channels(channels) => channels.iter().for_each(|c| forget(&mut self.channels, c, number)),
            Place::Types([]) => strike(&mut self.all, number),
            Place::Types(patterns) => {
                for pattern in patterns {
                    match pattern {
                        TypePattern::Exact(name) => forget(&mut self.types, name, number),
                        TypePattern::Below(prefix) => forget(&mut self.below, prefix, number),
                        TypePattern::All => strike(&mut self.all, number),
                    }
                }
            }
        }
    }

    /// Puts the numbers of those who want an event into `found`, each once, in order.
    pub fn find(&self, subject: &Subject, found: &mut Vec<u32>) {
        found.clear();
        if let Some(aggregate) = subject.aggregate.as_ref().filter(|_| !self.aggregates.is_empty()) {
            found.extend(self.aggregates.get(aggregate).into_iter().flatten());
        }
        if !self.channels.is_empty() {
            found.extend(subject.channels.iter().filter_map(|channel| self.channels.get(channel)).flatten());
        }
        found.extend(self.types.get(&subject.event_type).into_iter().flatten());
        if !self.below.is_empty() {
            let name = subject.event_type.as_str();
            let dots = name.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
            found.extend(dots.filter_map(|(dot, _)| self.below.get(&name[..=dot])).flatten());
        }
        found.extend(&self.all);
        found.retain(|number| self.filters.get(number).is_some_and(|filter| filter.matches(subject)));
        found.sort_unstable();
        found.dedup();
    }
}

/// Adds a number to those in order, once.
fn note(numbers: &mut Vec<u32>, number: u32) {
    if let Err(place) = numbers.binary_search(&number) {
        numbers.insert(place, number);
    }
}

fn strike(numbers: &mut Vec<u32>, number: u32) {
    if let Ok(place) = numbers.binary_search(&number) {
        numbers.remove(place);
    }
}

fn forget<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<u32>>, key: &K, number: u32) {
    if let Some(numbers) = map.get_mut(key) {
        strike(numbers, number);
        if numbers.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::id::EventId;

    use super::*;

    fn subject(event_type: &str, aggregate: &str, channels: &[&str]) -> Subject {
        Subject {
            id: EventId::parse("e1").unwrap(),
            event_type: EventType::parse(event_type).unwrap(),
            aggregate: (!aggregate.is_empty()).then(|| AggregateId::parse(aggregate).unwrap()),
            channels: channels.iter().map(|channel| Channel::parse(channel).unwrap()).collect(),
        }
    }

    fn filters() -> Vec<Filter> {
        let types = |patterns: &[&str]| patterns.iter().map(|text| TypePattern::parse(text).unwrap()).collect();
        let channels = |names: &[&str]| names.iter().map(|name| Channel::parse(name).unwrap()).collect::<Vec<_>>();
        let aggregate = |id: &str| Some(AggregateId::parse(id).unwrap());
        vec![
            Filter::default(),
            Filter::everything(),
            Filter { types: types(&["order.*"]), ..Filter::default() },
            Filter { types: types(&["order.created", "order.*", "*"]), ..Filter::default() },
            Filter { types: types(&["order.item.*"]), channels: channels(&["a", "b"]), ..Filter::default() },
            Filter { aggregate: aggregate("o1"), channels: channels(&["a"]), ..Filter::default() },
            Filter { confined: Some(channels(&["b"])), ..Filter::default() },
            Filter { confined: Some(Vec::new()), ..Filter::default() },
            Filter { channels: channels(&["a"]), confined: Some(channels(&["b"])), ..Filter::default() },
        ]
    }

    #[test]
    fn the_index_finds_what_the_filters_match_and_nothing_else() {
        let filters = filters();
        let mut interest = Interest::default();
        (0..).zip(&filters).for_each(|(number, filter)| interest.insert(number, filter.clone()));
        let mut found = Vec::new();
        for removed in [None, Some(3), Some(4), Some(0)] {
            if let Some(number) = removed {
                interest.remove(number);
            }
            for event_type in ["order.created", "order.item.added", "user.created", "tidings.key.created"] {
                for aggregate in ["", "o1", "o2"] {
                    for channels in [&[][..], &["a"], &["b"], &["a", "b"], &["c"]] {
                        let subject = subject(event_type, aggregate, channels);
                        interest.find(&subject, &mut found);
                        let wanted: Vec<u32> = (0..)
                            .zip(&filters)
                            .filter(|(number, filter)| {
                                interest.filters.contains_key(number) && filter.matches(&subject)
                            })
                            .map(|(number, _)| number)
                            .collect();
                        assert_eq!(found, wanted, "{subject:?}");
                    }
                }
            }
        }
        (0..9).for_each(|number| interest.remove(number));
        assert!(interest.is_empty() && interest.types.is_empty() && interest.channels.is_empty());
        assert!(interest.all.is_empty() && interest.below.is_empty() && interest.aggregates.is_empty());
    }
}
