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

/// Every signal broadcast in an execution, in order. Asking whether one is among them, or how often, does not scan the list.
#[derive(Clone, Default)]
pub struct SignalLog {
    order: Vector<Arc<str>>,
    /// What was counted of whole stretches; the signals after the last whole one are searched.
    counted: Option<Arc<Counts>>,
}

/// So many signals are counted at once: a broadcast costs no look-up of its own, and small executions have no index.
const STRETCH: usize = 16;

/// How often signals were broadcast.
#[derive(Clone, Default)]
struct Counts {
    /// Where the count of a signal stands.
    places: Index,
    counts: Vector<usize>,
}

impl Counts {
    fn of(&self, signal: &str) -> usize {
        let count = self.places.get(signal).and_then(|place| self.counts.get(place));
        count.copied().unwrap_or(0)
    }

    fn add(&mut self, signal: &Arc<str>, times: usize) {
        match self.places.get(signal) {
            Some(place) => {
                if let Some(count) = self.counts.get_mut(place) {
                    *count += times;
                }
            }
            None => {
                self.places.insert(signal.clone(), self.counts.len());
                self.counts.push(times);
            }
        }
    }
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
        let is_counted = |counted: &Arc<Counts>| counted.places.get(signal).is_some();
        self.uncounted().any(|other| other.as_ref() == signal) || self.counted.as_ref().is_some_and(is_counted)
    }

    /// How often `signal` was broadcast.
    pub fn count(&self, signal: &str) -> usize {
        let counted = self.counted.as_ref().map_or(0, |counted| counted.of(signal));
        counted + self.uncounted().filter(|other| other.as_ref() == signal).count()
    }

    /// The signals after the last whole stretch.
    fn uncounted(&self) -> impl Iterator<Item = &Arc<str>> {
        let length = self.order.len();
        (length - length % STRETCH..length).filter_map(|position| self.order.get(position))
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
        self.order.push(signal);
        if self.order.len().is_multiple_of(STRETCH) {
            self.count_stretch();
        }
    }

    /// Counts the last stretch, which is whole now.
    fn count_stretch(&mut self) {
        let counted = Arc::make_mut(self.counted.get_or_insert_default());
        let stretch = self.order.len() - STRETCH..self.order.len();
        let mut signals = stretch.filter_map(|position| self.order.get(position)).peekable();
        while let Some(signal) = signals.next() {
            // Loops and joins record one signal again and again: that needs one look-up.
            let mut times = 1;
            while signals.next_if_eq(&signal).is_some() {
                times += 1;
            }
            counted.add(signal, times);
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn signals_are_counted_whatever_is_shared(
            signals in prop::collection::vec(0..40_u8, 0..300),
            shared in prop::collection::vec(0..300_usize, 0..6),
        ) {
            let (mut log, mut model) = (SignalLog::default(), Vec::new());
            let mut clones = Vec::new();
            for (i, signal) in signals.iter().enumerate() {
                if shared.contains(&i) {
                    clones.push((log.clone(), model.clone()));
                }
                // The half of them is one signal.
                let name: Arc<str> = format!("S{}", signal.saturating_sub(20)).into();
                log.push(name.clone());
                model.push(name);
            }
            clones.push((log, model));
            for (log, model) in clones {
                prop_assert!(log.iter().eq(model.iter()));
                for name in (0..21).map(|i| format!("S{i}")) {
                    let count = model.iter().filter(|other| ***other == *name).count();
                    prop_assert_eq!(log.count(&name), count);
                    prop_assert_eq!(log.contains(&name), count > 0);
                }
            }
        }
    }

    #[test]
    fn small_logs_have_no_index() {
        let log: SignalLog = (0..STRETCH - 1).map(|i| i.to_string().into()).collect();
        assert!(log.counted.is_none());
        assert_eq!(log.count("3"), 1);
    }
}
