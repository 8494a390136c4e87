//! A map that can go back to what it was before a commit.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// A map, and what the commit under way replaced in it.
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, V>,
    replaced: Vec<(K, Option<V>)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), replaced: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    pub(super) fn range(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(range)
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        let before = self.rows.insert(key.clone(), value);
        self.replaced.push((key, before));
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(before) = self.rows.remove(key) {
            self.replaced.push((key.clone(), Some(before)));
        }
    }

    /// Removes what `gone` says of.
    pub(super) fn sweep(&mut self, gone: impl Fn(&K, &V) -> bool) {
        let keys: Vec<K> =
            self.rows.iter().filter(|(key, value)| gone(key, value)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.remove(&key);
        }
    }

    /// The commit holds.
    pub(super) fn keep(&mut self) {
        self.replaced.clear();
    }

    /// The commit is refused.
    pub(super) fn undo(&mut self) {
        while let Some((key, before)) = self.replaced.pop() {
            match before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }
}
