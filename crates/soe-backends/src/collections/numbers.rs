//! A persistent map from numbers: small leaves, under a tree of branches of which a path is copied where a clone shares it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::nodes::{BITS, Branch, LEAF, Leaf, WIDTH, child, descend, drop_leaf, slot};

/// A persistent map from numbers, in their order. Cloning is O(1); reading, inserting and removing cost O(log n) of the largest
/// number, and copy a leaf and a path of branches where a clone shares them.
///
/// ```
/// use soe_backends::NumberMap;
///
/// let mut map = NumberMap::default();
/// map.insert(7, "seven");
/// let before = map.clone();
/// map.remove(7);
/// assert_eq!((before.get(7), map.get(7)), (Some(&"seven"), None));
/// ```
#[derive(Clone)]
pub struct NumberMap<T> {
    len: usize,
    /// The leaf of the lowest numbers. It is at hand, because number 0, the root among the executions of a tree, changes with
    /// many of the others: it would be a second path to be copied.
    first: Option<Arc<Leaf<T>>>,
    /// The other leaves.
    rest: Option<Arc<Branch<T>>>,
    /// The levels of branches above the lowest.
    height: u32,
}

impl<T> Default for NumberMap<T> {
    fn default() -> Self {
        Self {
            len: 0,
            first: None,
            rest: None,
            height: 0,
        }
    }
}

impl<T> NumberMap<T> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The greatest leaf that the branches have room for.
    fn most(&self) -> u64 {
        let room = 1_u64.checked_shl((self.height + 1) * BITS);
        room.map_or(u64::MAX, |room| room - 1)
    }

    fn leaf(&self, leaf: u64) -> Option<&Leaf<T>> {
        if leaf == 0 {
            return self.first.as_deref();
        }
        if leaf > self.most() {
            return None;
        }
        let mut branch = self.rest.as_deref()?;
        for level in (0..=self.height).rev() {
            match branch {
                Branch::Lowest(leaves) => return leaves[child(leaf, 0)].as_deref(),
                Branch::Above(branches) => branch = branches[child(leaf, level)].as_deref()?,
            }
        }
        None
    }

    /// The value of `key`.
    pub fn get(&self, key: u64) -> Option<&T> {
        let leaf = self.leaf(key / LEAF)?;
        leaf.values.get(leaf.place(slot(key))?)
    }

    /// Whether there is a value of `key`.
    pub fn contains(&self, key: u64) -> bool {
        self.get(key).is_some()
    }

    /// All entries, by their numbers.
    pub fn iter(&self) -> Iter<'_, T> {
        self.range(0)
    }

    /// The entries from number `from` on.
    pub fn range(&self, from: u64) -> Iter<'_, T> {
        Iter {
            map: self,
            next: Some(from),
        }
    }

    /// The values, by their numbers.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    /// The numbers, in order.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.iter().map(|(key, _)| key)
    }

    /// The entry with the lowest number that is at least `from`.
    pub fn first_from(&self, from: u64) -> Option<(u64, &T)> {
        let leaf = from / LEAF;
        if let Some((slot, value)) = self.leaf(leaf).and_then(|leaf| leaf.first_from(slot(from))) {
            return Some((leaf * LEAF + slot, value));
        }
        if leaf >= self.most() {
            return None;
        }
        let (leaf, found) = self.rest.as_ref()?.first_from(self.height, leaf + 1)?;
        let (slot, value) = found.first_from(0)?;
        Some((leaf * LEAF + slot, value))
    }

    /// The entry with the greatest number below `before`.
    pub fn last_before(&self, before: u64) -> Option<(u64, &T)> {
        let last = before.checked_sub(1)?;
        let mut leaf = last / LEAF;
        if let Some((slot, value)) = self.leaf(leaf).and_then(|leaf| leaf.last_until(slot(last))) {
            return Some((leaf * LEAF + slot, value));
        }
        leaf = leaf.checked_sub(1)?.min(self.most());
        let found = self.rest.as_ref().and_then(|rest| rest.last_until(self.height, leaf));
        let (leaf, found) = found.or_else(|| Some((0, self.first.as_deref()?)))?;
        let (slot, value) = found.last_until(31)?;
        Some((leaf * LEAF + slot, value))
    }
}

impl<T: Clone> NumberMap<T> {
    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        // Looked up first: a path is copied only to something that there is.
        self.get(key)?;
        let leaf = Arc::make_mut(self.place_of(key / LEAF).as_mut()?);
        let place = leaf.place(slot(key))?;
        leaf.values.get_mut(place)
    }

    /// Sets the value of `key`; gives the one before.
    pub fn insert(&mut self, key: u64, value: T) -> Option<T> {
        let before = match self.place_of(key / LEAF) {
            Some(leaf) => {
                let leaf = Arc::make_mut(leaf);
                match leaf.place(slot(key)) {
                    Some(place) => Some(std::mem::replace(&mut leaf.values[place], value)),
                    None => {
                        leaf.values.insert(leaf.rank(slot(key)), value);
                        leaf.mask |= 1 << slot(key);
                        None
                    }
                }
            }
            none => {
                *none = Some(Arc::new(Leaf::of(key, value)));
                None
            }
        };
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes the value of `key`, and gives it.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let value = self.get(key)?.clone();
        if self.len == 1 {
            *self = Self::default();
            return Some(value);
        }
        self.len -= 1;
        let leaf = key / LEAF;
        if self.leaf(leaf).is_some_and(|leaf| leaf.values.len() > 1) {
            let found = Arc::make_mut(self.place_of(leaf).as_mut()?);
            found.values.remove(found.place(slot(key))?);
            found.mask &= !(1 << slot(key));
        } else if leaf == 0 {
            self.first = None;
        } else {
            let height = self.height;
            let rest = self.rest.as_mut()?;
            drop_leaf(rest, height, leaf);
            if rest.is_empty() {
                (self.rest, self.height) = (None, 0);
            }
        }
        Some(value)
    }

    /// Where a leaf is or has to be. A path to it is made, or copied.
    fn place_of(&mut self, leaf: u64) -> &mut Option<Arc<Leaf<T>>> {
        if leaf == 0 {
            return &mut self.first;
        }
        while leaf > self.most() {
            if let Some(rest) = self.rest.take() {
                let mut branches: [Option<Arc<Branch<T>>>; WIDTH] = Default::default();
                branches[0] = Some(rest);
                self.rest = Some(Arc::new(Branch::Above(branches)));
            }
            self.height += 1;
        }
        let height = self.height;
        let rest = self.rest.get_or_insert_with(|| Arc::new(Branch::empty(height)));
        descend(rest, height, leaf)
    }
}

/// The entries of a [`NumberMap`], by their numbers.
pub struct Iter<'a, T> {
    map: &'a NumberMap<T>,
    next: Option<u64>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = (u64, &'a T);

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.map.first_from(self.next?);
        self.next = found.and_then(|(key, _)| key.checked_add(1));
        found
    }
}

impl<T: fmt::Debug> fmt::Debug for NumberMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<T: PartialEq> PartialEq for NumberMap<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<T: Clone> FromIterator<(u64, T)> for NumberMap<T> {
    fn from_iter<I: IntoIterator<Item = (u64, T)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<T: Serialize> Serialize for NumberMap<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, T: Deserialize<'de> + Clone> Deserialize<'de> for NumberMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<u64, T>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_map_whose_clones_stay_as_they_were(steps in prop::collection::vec((0..6_u8, 0..5_000_u64), 0..800)) {
            let (mut map, mut model) = (NumberMap::default(), BTreeMap::new());
            let mut clones = Vec::new();
            for (step, key) in steps {
                match step {
                    0 => prop_assert_eq!(map.remove(key), model.remove(&key)),
                    1 => clones.push((map.clone(), model.clone())),
                    2 => {
                        if let (Some(value), Some(expected)) = (map.get_mut(key), model.get_mut(&key)) {
                            *value += 1;
                            *expected += 1;
                        }
                    }
                    3 => prop_assert_eq!(map.insert(key * 1_000_003, key), model.insert(key * 1_000_003, key)),
                    _ => prop_assert_eq!(map.insert(key, key), model.insert(key, key)),
                }
            }
            clones.push((map, model));
            for (map, model) in clones {
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.iter().eq(model.iter().map(|(key, value)| (*key, value))));
                for from in [0, 1, 17, 250, 4_999, 5_000_000] {
                    let (first, last) = (model.range(from..).next(), model.range(..from).next_back());
                    prop_assert_eq!(map.first_from(from), first.map(|(key, value)| (*key, value)));
                    prop_assert_eq!(map.last_before(from), last.map(|(key, value)| (*key, value)));
                }
            }
        }
    }

    #[test]
    fn takes_the_greatest_number() {
        let mut map = NumberMap::default();
        map.insert(u64::MAX, 1);
        map.insert(0, 0);
        assert_eq!(map.keys().collect::<Vec<_>>(), [0, u64::MAX]);
        assert_eq!(map.last_before(u64::MAX), Some((0, &0)));
        assert_eq!((map.remove(u64::MAX), map.remove(5), map.len()), (Some(1), None, 1));
    }
}
