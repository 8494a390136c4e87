//! Tables whose changes are told by triggers, for applications that cannot be changed.
//!
//! An inserted row tells `order.created` with the row as data, a deleted one `order.deleted` with the row as it was, an
//! updated one `order.updated` with `{"before": …, "after": …}`. An update that changes nothing of what is shown tells
//! nothing; one that changes the key tells `order.deleted` of the old and `order.created` of the new. The trigger writes to
//! the outbox in the transaction of the change, while that holds the row's lock: so the order of each row holds.

use tidings_core::event::EventType;

use super::ReadError;

/// A table to watch.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Its name, as its database takes it.
    pub table: String,
    /// What its rows are, as `order`: the first part of event types, and of aggregates as `order_42`.
    pub resource: String,
    /// The columns after which its aggregates are called; none: the primary key.
    pub key: Vec<String>,
    /// Columns that are not told.
    pub except: Vec<String>,
}

/// A table that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its name.
    pub table: String,
    /// What its rows are.
    pub resource: String,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// Its place in the primary key, from 1; 0: it is not part of it.
    pub(super) in_key: i64,
}

impl Watch {
    /// The error says what is wrong.
    pub fn new(table: String, resource: String, key: Vec<String>, except: Vec<String>) -> Result<Self, String> {
        let event_type = format!("{resource}.created");
        EventType::parse(&event_type).map_err(|error| format!("--resource {resource}: {error}"))?;
        if event_type.starts_with(EventType::OPERATIONAL_PREFIX) {
            return Err(format!("--resource {resource}: tidings.* is reserved"));
        }
        if table.to_ascii_lowercase().starts_with("tidings_outbox") {
            return Err(itself(&table));
        }
        Ok(Self { table, resource, key, except })
    }

    /// The columns of the key, in order. All that are named have to be there.
    pub(super) fn key_of(&self, columns: &[Column]) -> Result<Vec<String>, ReadError> {
        if columns.is_empty() {
            return Err(ReadError::Trouble(format!("there is no table {} here", self.table)));
        }
        for (option, named) in [("--key", &self.key), ("--except", &self.except)] {
            if let Some(name) = named.iter().find(|name| columns.iter().all(|column| column.name != **name)) {
                let there: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
                let text = format!("{option} {name}: {} has no such column; it has {}", self.table, there.join(", "));
                return Err(ReadError::Trouble(text));
            }
        }
        let mut primary: Vec<_> = columns.iter().filter(|column| column.in_key > 0).collect();
        primary.sort_by_key(|column| column.in_key);
        let key = if self.key.is_empty() {
            primary.into_iter().map(|column| column.name.clone()).collect()
        } else {
            self.key.clone()
        };
        if key.is_empty() {
            let text =
                format!("{} has no primary key: name the columns that tell its rows apart with --key", self.table);
            return Err(ReadError::Trouble(text));
        }
        Ok(key)
    }

    /// Whether a column is told.
    pub(super) fn tells(&self, name: &str) -> bool {
        self.except.iter().all(|hidden| hidden != name)
    }
}

/// What is told of a table that is the outbox's own: its triggers would run for ever.
pub(super) fn itself(table: &str) -> String {
    format!("{table}: the outbox itself is not watched")
}

/// A text as SQL takes it where a backslash means itself.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The resource that a trigger tells of, from the statement that made it.
pub(super) fn resource_in(sql: &str) -> String {
    let event_type = sql.split_once("VALUES ('").and_then(|(_, rest)| rest.split_once(".created'"));
    event_type.map(|(resource, _)| resource.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(key: &[&str], except: &[&str]) -> Watch {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Watch::new("orders".to_owned(), "order".to_owned(), all(key), all(except)).unwrap()
    }

    fn columns(names: &[(&str, i64)]) -> Vec<Column> {
        names.iter().map(|(name, in_key)| Column { name: (*name).to_owned(), in_key: *in_key }).collect()
    }

    #[test]
    fn a_resource_begins_an_event_type() {
        for (table, resource) in
            [("o", "Order"), ("o", ""), ("o", "tidings"), ("o", "tidings.x"), ("o", "a;b"), ("Tidings_outbox", "a")]
        {
            assert!(Watch::new(table.into(), resource.into(), Vec::new(), Vec::new()).is_err(), "{table} {resource}");
        }
        assert!(Watch::new("o".into(), "shop.order_item".into(), Vec::new(), Vec::new()).is_ok());
    }

    #[test]
    fn the_key_is_the_primary_one_unless_another_is_named() {
        let table = columns(&[("at", 0), ("line", 2), ("id", 1)]);
        assert_eq!(watch(&[], &["at"]).key_of(&table).unwrap(), ["id", "line"]);
        assert_eq!(watch(&["at"], &[]).key_of(&table).unwrap(), ["at"]);
        let told = |watch: Watch, columns: &[Column]| watch.key_of(columns).unwrap_err().to_string();
        assert!(told(watch(&["no"], &[]), &table).contains("--key no: orders has no such column; it has at, line, id"));
        assert!(told(watch(&[], &["no"]), &table).contains("--except no"));
        assert!(told(watch(&[], &[]), &columns(&[("at", 0)])).contains("no primary key"));
        assert!(told(watch(&[], &[]), &[]).contains("no table orders"));
    }
}
