//! A persistent index from names to positions.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Where each name stands. A clone shares everything; an insertion into a shared index begins a new, small level on top and
/// leaves the others as they are. Levels are merged as they grow, so that there are O(log n) of them and an insertion costs
/// O(log n) amortised.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// One for all levels, so that a look-up hashes once.
    hasher: DefaultHashBuilder,
    /// Each much larger than the next.
    levels: Vec<Arc<Level>>,
}

type Level = HashTable<(Arc<str>, usize)>;

impl Index {
    pub(super) fn get(&self, name: &str) -> Option<usize> {
        let hash = self.hasher.hash_one(name);
        let found = self
            .levels
            .iter()
            .find_map(|level| level.find(hash, |(key, _)| key.as_ref() == name));
        found.map(|(_, position)| *position)
    }

    /// Adds a name that is not there yet.
    pub(super) fn insert(&mut self, name: Arc<str>, position: usize) {
        match self.levels.last_mut().and_then(Arc::get_mut) {
            Some(level) => add(level, &self.hasher, name, position),
            None => {
                let mut level = Level::new();
                add(&mut level, &self.hasher, name, position);
                self.levels.push(Arc::new(level));
            }
        }
        while let [.., below, top] = self.levels.as_slice()
            && top.len() * 2 >= below.len()
            && let Some(top) = self.levels.pop()
            && let Some(below) = self.levels.last_mut()
        {
            let below = Arc::make_mut(below);
            top.iter()
                .for_each(|(name, position)| add(below, &self.hasher, name.clone(), *position));
        }
    }
}

fn add(level: &mut Level, hasher: &DefaultHashBuilder, name: Arc<str>, position: usize) {
    let hash = hasher.hash_one(name.as_ref());
    level.insert_unique(hash, (name, position), |(name, _)| hasher.hash_one(name.as_ref()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_name_whatever_is_shared() {
        let mut index = Index::default();
        let mut clones = Vec::new();
        for i in 0..2_000_usize {
            if i % 3 == 0 {
                clones.push((i, index.clone()));
                if clones.len() > 5 {
                    clones.remove(0);
                }
            }
            index.insert(i.to_string().into(), i);
        }
        assert!((0..2_000).all(|i| index.get(&i.to_string()) == Some(i)));
        assert!(index.levels.len() <= 12, "{} levels", index.levels.len());
        for (size, clone) in clones {
            assert_eq!(clone.get(&(size - 1).to_string()), Some(size - 1));
            assert_eq!(clone.get(&size.to_string()), None);
        }
    }
}
