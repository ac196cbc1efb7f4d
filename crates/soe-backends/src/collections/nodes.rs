//! The leaves and branches of a [`NumberMap`](super::NumberMap).

use std::sync::Arc;

/// Values of a leaf. Few levels are needed above leaves that are large, but a change copies one.
const LEAF_BITS: u32 = 5;
pub(super) const LEAF: u64 = 1 << LEAF_BITS;

/// Children of a branch. They are in place, so that copying one is one allocation.
pub(super) const BITS: u32 = 4;
pub(super) const WIDTH: usize = 1 << BITS;

/// Values in order; a bit of `mask` is set for each. Never empty.
#[derive(Clone)]
pub(super) struct Leaf<T> {
    pub(super) mask: u32,
    pub(super) values: Vec<T>,
}

/// Never empty.
#[derive(Clone)]
pub(super) enum Branch<T> {
    Lowest([Option<Arc<Leaf<T>>>; WIDTH]),
    Above([Option<Arc<Branch<T>>>; WIDTH]),
}

/// The place of `key` in its leaf.
pub(super) fn slot(key: u64) -> u32 {
    (key % LEAF) as u32
}

/// Which child at `level` leads to a leaf.
pub(super) fn child(leaf: u64, level: u32) -> usize {
    (leaf >> (level * BITS)) as usize % WIDTH
}

/// The first leaf behind those of the child that leads to `leaf` at `level`.
fn next(leaf: u64, level: u32) -> Option<u64> {
    let span = 1_u64.checked_shl(level * BITS)?;
    (leaf & !(span - 1)).checked_add(span)
}

impl<T> Leaf<T> {
    pub(super) fn of(key: u64, value: T) -> Self {
        Self {
            mask: 1 << slot(key),
            values: vec![value],
        }
    }

    /// How many values are before a place.
    pub(super) fn rank(&self, slot: u32) -> usize {
        (self.mask & ((1 << slot) - 1)).count_ones() as usize
    }

    pub(super) fn place(&self, slot: u32) -> Option<usize> {
        (self.mask & (1 << slot) != 0).then(|| self.rank(slot))
    }

    /// The first value from a place on.
    pub(super) fn first_from(&self, slot: u32) -> Option<(u64, &T)> {
        let found = (self.mask >> slot << slot).trailing_zeros();
        Some((
            u64::from(found),
            self.values.get(self.place(found.min(31))?).filter(|_| found < 32)?,
        ))
    }

    /// The last value up to a place.
    pub(super) fn last_until(&self, slot: u32) -> Option<(u64, &T)> {
        let found = 31_u32.checked_sub((self.mask << (31 - slot) >> (31 - slot)).leading_zeros())?;
        Some((u64::from(found), self.values.get(self.rank(found))?))
    }
}

impl<T> Branch<T> {
    /// The leaf at or behind `from` that comes first.
    pub(super) fn first_from(&self, level: u32, mut from: u64) -> Option<(u64, &Leaf<T>)> {
        for at in child(from, level)..WIDTH {
            let found = match self {
                Branch::Lowest(leaves) => leaves[at].as_deref().map(|leaf| (from, leaf)),
                Branch::Above(branches) => branches[at]
                    .as_ref()
                    .and_then(|below| below.first_from(level - 1, from)),
            };
            if found.is_some() {
                return found;
            }
            from = next(from, level)?;
        }
        None
    }

    /// The leaf at or before `until` that comes last.
    pub(super) fn last_until(&self, level: u32, mut until: u64) -> Option<(u64, &Leaf<T>)> {
        for at in (0..=child(until, level)).rev() {
            let found = match self {
                Branch::Lowest(leaves) => leaves[at].as_deref().map(|leaf| (until, leaf)),
                Branch::Above(branches) => branches[at]
                    .as_ref()
                    .and_then(|below| below.last_until(level - 1, until)),
            };
            if found.is_some() {
                return found;
            }
            until = (until >> (level * BITS) << (level * BITS)).checked_sub(1)?;
        }
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Branch::Lowest(leaves) => leaves.iter().all(Option::is_none),
            Branch::Above(branches) => branches.iter().all(Option::is_none),
        }
    }

    pub(super) fn empty(level: u32) -> Self {
        match level {
            0 => Branch::Lowest(Default::default()),
            _ => Branch::Above(Default::default()),
        }
    }
}

pub(super) fn descend<T: Clone>(branch: &mut Arc<Branch<T>>, level: u32, leaf: u64) -> &mut Option<Arc<Leaf<T>>> {
    match Arc::make_mut(branch) {
        Branch::Lowest(leaves) => &mut leaves[child(leaf, 0)],
        Branch::Above(branches) => {
            let below = branches[child(leaf, level)].get_or_insert_with(|| Arc::new(Branch::empty(level - 1)));
            descend(below, level - 1, leaf)
        }
    }
}

/// Drops a leaf, and the branches that have nothing else.
pub(super) fn drop_leaf<T: Clone>(branch: &mut Arc<Branch<T>>, level: u32, leaf: u64) {
    match Arc::make_mut(branch) {
        Branch::Lowest(leaves) => leaves[child(leaf, 0)] = None,
        Branch::Above(branches) => {
            let below = &mut branches[child(leaf, level)];
            if let Some(branch) = below {
                drop_leaf(branch, level - 1, leaf);
            }
            below.take_if(|branch| branch.is_empty());
        }
    }
}
