//! A persistent map from numbers: a tree of small nodes, a path of which is copied where a clone shares it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Children of a branch, and values of a leaf.
const WIDTH: u64 = 16;
const BITS: u32 = WIDTH.trailing_zeros();

/// A persistent map from numbers, in their order. Cloning is O(1); reading, inserting and removing cost O(log n) of the largest
/// number, and copy a path of small nodes where a clone shares them.
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
    /// The depth of the tree: 0 for a single leaf.
    height: u32,
    root: Option<Arc<Node<T>>>,
}

/// What a node has, in order; a bit of `mask` is set for each.
#[derive(Clone)]
enum Node<T> {
    Branch { mask: u16, children: Vec<Arc<Node<T>>> },
    Leaf { mask: u16, values: Vec<T> },
}

impl<T> Default for NumberMap<T> {
    fn default() -> Self {
        Self {
            len: 0,
            height: 0,
            root: None,
        }
    }
}

/// Which child at `level` leads to `key`.
fn slot(key: u64, level: u32) -> u32 {
    ((key >> (level * BITS)) % WIDTH) as u32
}

/// How many numbers a tree of this height has room for; `None` if that is all.
fn capacity(height: u32) -> Option<u64> {
    1_u64.checked_shl((height + 1) * BITS).filter(|_| (height + 1) * BITS < 64)
}

fn place(mask: u16, slot: u32) -> Option<usize> {
    (mask & (1 << slot) != 0).then(|| rank(mask, slot))
}

/// How many are before `slot`.
fn rank(mask: u16, slot: u32) -> usize {
    (mask & ((1 << slot) - 1)).count_ones() as usize
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

    fn fits(&self, key: u64) -> bool {
        capacity(self.height).is_none_or(|capacity| key < capacity)
    }

    /// The value of `key`.
    pub fn get(&self, key: u64) -> Option<&T> {
        if !self.fits(key) {
            return None;
        }
        let mut node = self.root.as_ref()?;
        for level in (0..=self.height).rev() {
            match node.as_ref() {
                Node::Leaf { mask, values } => return values.get(place(*mask, slot(key, 0))?),
                Node::Branch { mask, children } => node = &children[place(*mask, slot(key, level))?],
            }
        }
        None
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
        if !self.fits(from) {
            return None;
        }
        find(self.root.as_ref()?, self.height, 0, from)
    }

    /// The entry with the greatest number below `before`.
    pub fn last_before(&self, before: u64) -> Option<(u64, &T)> {
        let most = capacity(self.height).map_or(u64::MAX, |capacity| capacity - 1);
        find_last(self.root.as_ref()?, self.height, 0, before.checked_sub(1)?.min(most))
    }
}

fn find<T>(node: &Node<T>, level: u32, base: u64, from: u64) -> Option<(u64, &T)> {
    let first = if from > base { slot(from, level) } else { 0 };
    match node {
        Node::Leaf { mask, values } => {
            let slot = (first..WIDTH as u32).find(|slot| mask & (1 << slot) != 0)?;
            Some((base + u64::from(slot), &values[rank(*mask, slot)]))
        }
        Node::Branch { mask, children } => {
            (first..WIDTH as u32).filter(|slot| mask & (1 << slot) != 0).find_map(|slot| {
                let below = base + (u64::from(slot) << (level * BITS));
                find(&children[rank(*mask, slot)], level - 1, below, from.max(below))
            })
        }
    }
}

fn find_last<T>(node: &Node<T>, level: u32, base: u64, until: u64) -> Option<(u64, &T)> {
    let span = (1_u64.checked_shl((level + 1) * BITS).unwrap_or(0)).wrapping_sub(1);
    let last = if until >= base.saturating_add(span) { WIDTH as u32 - 1 } else { slot(until, level) };
    match node {
        Node::Leaf { mask, values } => {
            let slot = (0..=last).rev().find(|slot| mask & (1 << slot) != 0)?;
            Some((base + u64::from(slot), &values[rank(*mask, slot)]))
        }
        Node::Branch { mask, children } => {
            (0..=last).rev().filter(|slot| mask & (1 << slot) != 0).find_map(|slot| {
                let below = base + (u64::from(slot) << (level * BITS));
                find_last(&children[rank(*mask, slot)], level - 1, below, until)
            })
        }
    }
}

impl<T: Clone> NumberMap<T> {
    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        // Looked up first: a path is copied only to something that there is.
        self.get(key)?;
        let mut node = self.root.as_mut()?;
        for level in (0..=self.height).rev() {
            match Arc::make_mut(node) {
                Node::Leaf { mask, values } => return values.get_mut(place(*mask, slot(key, 0))?),
                Node::Branch { mask, children } => node = &mut children[place(*mask, slot(key, level))?],
            }
        }
        None
    }

    /// Sets the value of `key`; gives the one before.
    pub fn insert(&mut self, key: u64, value: T) -> Option<T> {
        while !self.fits(key) {
            if let Some(root) = self.root.take() {
                self.root = Some(Arc::new(Node::Branch {
                    mask: 1,
                    children: vec![root],
                }));
            }
            self.height += 1;
        }
        let mut height = self.height;
        let mut node = self.root.get_or_insert_with(|| Arc::new(empty(height)));
        loop {
            match Arc::make_mut(node) {
                Node::Leaf { mask, values } => {
                    let slot = slot(key, 0);
                    if let Some(place) = place(*mask, slot) {
                        return Some(std::mem::replace(&mut values[place], value));
                    }
                    values.insert(rank(*mask, slot), value);
                    *mask |= 1 << slot;
                    self.len += 1;
                    return None;
                }
                Node::Branch { mask, children } => {
                    let slot = slot(key, height);
                    height -= 1;
                    let rank = rank(*mask, slot);
                    if place(*mask, slot).is_none() {
                        children.insert(rank, Arc::new(empty(height)));
                        *mask |= 1 << slot;
                    }
                    node = &mut children[rank];
                }
            }
        }
    }

    /// Removes the value of `key`, and gives it.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        self.get(key)?;
        let root = self.root.as_mut()?;
        let (removed, is_empty) = take(root, self.height, key);
        self.len -= usize::from(removed.is_some());
        if is_empty {
            *self = Self::default();
        }
        removed
    }
}

fn empty<T>(level: u32) -> Node<T> {
    match level {
        0 => Node::Leaf {
            mask: 0,
            values: Vec::new(),
        },
        _ => Node::Branch {
            mask: 0,
            children: Vec::new(),
        },
    }
}

/// Takes a value out; says whether nothing is left in the node.
fn take<T: Clone>(node: &mut Arc<Node<T>>, level: u32, key: u64) -> (Option<T>, bool) {
    let slot = slot(key, level);
    match Arc::make_mut(node) {
        Node::Leaf { mask, values } => {
            let removed = place(*mask, slot).map(|place| values.remove(place));
            *mask &= !(1 << slot);
            (removed, *mask == 0)
        }
        Node::Branch { mask, children } => {
            let Some(place) = place(*mask, slot) else {
                return (None, false);
            };
            let (removed, is_empty) = take(&mut children[place], level - 1, key);
            if is_empty {
                children.remove(place);
                *mask &= !(1 << slot);
            }
            (removed, *mask == 0)
        }
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
