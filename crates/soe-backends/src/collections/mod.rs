//! Persistent collections: cloning is O(1), a change to one copy leaves the others as they were and costs O(log n).

mod index;
mod nodes;
mod numbers;
mod vector;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use index::Index;
pub use numbers::NumberMap;
pub(crate) use vector::Vector;

/// Up to so many entries are searched, more are indexed: small executions stay small in memory.
const SEARCHED: usize = 8;

/// A persistent map from names to values that keeps the order of insertion. Entries are replaced, never removed.
#[derive(Clone)]
pub struct OrderedMap<V> {
    entries: Vector<(Arc<str>, V)>,
    index: Option<Index>,
}

impl<V> Default for OrderedMap<V> {
    fn default() -> Self {
        Self {
            entries: Vector::default(),
            index: None,
        }
    }
}

impl<V> OrderedMap<V> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&V> {
        self.get_at(self.position(name)?).map(|(_, value)| value)
    }

    /// The place of `name` in the order of insertion.
    pub fn position(&self, name: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(name),
            None => self.entries.iter().position(|(key, _)| key.as_ref() == name),
        }
    }

    /// The entry at `position` in the order of insertion.
    pub fn get_at(&self, position: usize) -> Option<(&Arc<str>, &V)> {
        self.entries.get(position).map(|(key, value)| (key, value))
    }

    /// All entries in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }
}

impl<V: Clone> OrderedMap<V> {
    /// The value of `name`, to be changed; inserted with `V`'s default if it is missing.
    pub fn entry(&mut self, name: &Arc<str>) -> &mut V
    where
        V: Default,
    {
        let position = self
            .position(name)
            .unwrap_or_else(|| self.push(name.clone(), V::default()));
        let (_, value) = self
            .entries
            .get_mut(position)
            .expect("the position was just found or made");
        value
    }

    /// Sets the value of `name`, at its old place if it had one, else at the end.
    pub fn insert(&mut self, name: Arc<str>, value: V) {
        match self.position(&name) {
            Some(position) => {
                if let Some(entry) = self.entries.get_mut(position) {
                    *entry = (name, value);
                }
            }
            None => {
                self.push(name, value);
            }
        }
    }

    fn push(&mut self, name: Arc<str>, value: V) -> usize {
        let position = self.entries.len();
        if let Some(index) = &mut self.index {
            index.insert(name.clone(), position);
        } else if position == SEARCHED {
            let index = self.index.insert(Index::default());
            self.entries
                .iter()
                .enumerate()
                .for_each(|(i, (key, _))| index.insert(key.clone(), i));
            index.insert(name.clone(), position);
        }
        self.entries.push((name, value));
        position
    }
}

impl<V: fmt::Debug> fmt::Debug for OrderedMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<V: PartialEq> PartialEq for OrderedMap<V> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<V: Clone> FromIterator<(Arc<str>, V)> for OrderedMap<V> {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (name, value) in entries {
            map.insert(name, value);
        }
        map
    }
}

impl<V: Serialize> Serialize for OrderedMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, V: Deserialize<'de> + Clone> Deserialize<'de> for OrderedMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = indexmap::IndexMap::<Arc<str>, V>::deserialize(deserializer)?;
        Ok(entries.into_iter().collect())
    }
}

/// Every signal broadcast in an execution, in order. Asking whether one is among them does not scan the list.
#[derive(Clone, Default)]
pub struct SignalLog {
    order: Vector<Arc<str>>,
    /// The distinct ones, once there are too many signals to search.
    seen: Option<Index>,
}

impl SignalLog {
    /// The number of signals, repetitions included.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing was broadcast yet.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether `signal` was ever broadcast.
    pub fn contains(&self, signal: &str) -> bool {
        match &self.seen {
            Some(seen) => seen.get(signal).is_some(),
            None => self.order.iter().any(|other| other.as_ref() == signal),
        }
    }

    /// The signal at `position`, counted from the first.
    pub fn get(&self, position: usize) -> Option<&Arc<str>> {
        self.order.get(position)
    }

    /// All signals, in the order in which they were broadcast.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.order.iter()
    }

    /// Records a signal.
    pub fn push(&mut self, signal: Arc<str>) {
        let position = self.order.len();
        if let Some(seen) = &mut self.seen {
            // Loops and joins record one signal again and again: that needs no look-up.
            if self.order.last() != Some(&signal) && seen.get(&signal).is_none() {
                seen.insert(signal.clone(), position);
            }
        } else if position == SEARCHED {
            let seen = self.seen.insert(Index::default());
            for (i, other) in self.order.iter().chain([&signal]).enumerate() {
                if seen.get(other).is_none() {
                    seen.insert(other.clone(), i);
                }
            }
        }
        self.order.push(signal);
    }
}

impl fmt::Debug for SignalLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.order.fmt(f)
    }
}

impl PartialEq for SignalLog {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl FromIterator<Arc<str>> for SignalLog {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(signals: I) -> Self {
        let mut log = Self::default();
        for signal in signals {
            log.push(signal);
        }
        log
    }
}

impl Serialize for SignalLog {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for SignalLog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Arc<str>>::deserialize(deserializer)?.into_iter().collect())
    }
}
