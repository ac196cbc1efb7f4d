//! A persistent vector: a tree of small chunks with the last one at hand.

use std::fmt;
use std::iter::FusedIterator;
use std::slice;
use std::sync::Arc;

/// Elements of a chunk, and children of a branch.
const WIDTH: usize = 16;
const BITS: u32 = WIDTH.trailing_zeros();

/// A persistent vector that grows at its end. Cloning is O(1); a push costs O(1) amortised, and copies at most one chunk a
/// level where a clone shares it; reading and replacing an element cost O(log n).
#[derive(Clone)]
pub(crate) struct Vector<T> {
    len: usize,
    /// The depth of the tree: 0 for a single leaf.
    height: u32,
    /// All full chunks but the last.
    root: Option<Arc<Node<T>>>,
    /// The last chunk; `None` only while the vector is empty.
    tail: Option<Arc<Vec<T>>>,
}

#[derive(Clone, Debug)]
enum Node<T> {
    Branch(Vec<Arc<Node<T>>>),
    Leaf(Vec<T>),
}

impl<T> Default for Vector<T> {
    fn default() -> Self {
        Self {
            len: 0,
            height: 0,
            root: None,
            tail: None,
        }
    }
}

impl<T> Vector<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn last(&self) -> Option<&T> {
        self.tail.as_ref()?.last()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.chunk(index)?.get(index % WIDTH)
    }

    pub(crate) fn iter(&self) -> Iter<'_, T> {
        Iter {
            vector: self,
            next: 0,
            chunk: [].iter(),
        }
    }

    /// Where the tail begins.
    fn tail_start(&self) -> usize {
        self.len - self.tail.as_ref().map_or(0, |tail| tail.len())
    }

    /// The chunk that holds `index`.
    fn chunk(&self, index: usize) -> Option<&[T]> {
        if index >= self.len {
            return None;
        }
        if index >= self.tail_start() {
            return self.tail.as_ref().map(|tail| tail.as_slice());
        }
        let mut node = self.root.as_ref()?;
        for level in (0..=self.height).rev() {
            match node.as_ref() {
                Node::Leaf(items) => return Some(items),
                Node::Branch(children) => node = children.get(child(index, level))?,
            }
        }
        None
    }
}

/// Which child of a branch at `level` (its leaves' parents being level 1) leads to `index`.
fn child(index: usize, level: u32) -> usize {
    (index >> (level * BITS)) % WIDTH
}

impl<T: Clone> Vector<T> {
    pub(crate) fn push(&mut self, item: T) {
        match &mut self.tail {
            None => self.tail = Some(Arc::new(vec![item])),
            Some(tail) if tail.len() < WIDTH => match Arc::get_mut(tail) {
                Some(items) => items.push(item),
                None => {
                    let mut items = Vec::with_capacity((tail.len() + 1).next_power_of_two());
                    items.extend_from_slice(tail);
                    items.push(item);
                    *tail = Arc::new(items);
                }
            },
            Some(tail) => {
                let full = std::mem::replace(tail, Arc::new(vec![item]));
                let full = Arc::try_unwrap(full).unwrap_or_else(|shared| shared.as_ref().clone());
                self.push_leaf(Arc::new(Node::Leaf(full)));
            }
        }
        self.len += 1;
    }

    /// The element at `index`, to be changed.
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        if index >= self.len {
            return None;
        }
        if index >= self.tail_start() {
            return Arc::make_mut(self.tail.as_mut()?).get_mut(index % WIDTH);
        }
        let mut node = self.root.as_mut()?;
        for level in (0..=self.height).rev() {
            match Arc::make_mut(node) {
                Node::Leaf(items) => return items.get_mut(index % WIDTH),
                Node::Branch(children) => node = children.get_mut(child(index, level))?,
            }
        }
        None
    }

    /// Adds a full chunk to the tree; `len` still is where it begins plus its size.
    fn push_leaf(&mut self, leaf: Arc<Node<T>>) {
        let start = self.len - WIDTH;
        let Some(root) = &mut self.root else {
            self.root = Some(leaf);
            return;
        };
        if start == WIDTH << (self.height * BITS) {
            // The tree is full: it becomes the first child of a new root.
            let path = grow(leaf, self.height);
            self.root = Some(Arc::new(Node::Branch(vec![root.clone(), path])));
            self.height += 1;
            return;
        }
        let mut node = root;
        for level in (1..=self.height).rev() {
            let Node::Branch(children) = Arc::make_mut(node) else {
                return;
            };
            let position = child(start, level);
            if position == children.len() {
                children.push(grow(leaf, level - 1));
                return;
            }
            node = &mut children[position];
        }
    }
}

/// `leaf` under so many branches of one child each.
fn grow<T>(leaf: Arc<Node<T>>, branches: u32) -> Arc<Node<T>> {
    (0..branches).fold(leaf, |node, _| Arc::new(Node::Branch(vec![node])))
}

impl<T: fmt::Debug> fmt::Debug for Vector<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: PartialEq> PartialEq for Vector<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<T: Clone> FromIterator<T> for Vector<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut vector = Self::default();
        items.into_iter().for_each(|item| vector.push(item));
        vector
    }
}

pub(crate) struct Iter<'a, T> {
    vector: &'a Vector<T>,
    /// Where the next chunk begins.
    next: usize,
    chunk: slice::Iter<'a, T>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        if let Some(item) = self.chunk.next() {
            return Some(item);
        }
        let chunk = self.vector.chunk(self.next)?;
        self.next += chunk.len();
        self.chunk = chunk.iter();
        self.chunk.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.vector.len - self.next + self.chunk.len();
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}
impl<T> FusedIterator for Iter<'_, T> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_vec_whose_clones_stay_as_they_were(steps in prop::collection::vec(0..10_u8, 0..1_500)) {
            let (mut vector, mut model) = (Vector::default(), Vec::new());
            let mut clones = Vec::new();
            for (i, step) in steps.iter().enumerate() {
                match step {
                    0 if i % 7 == 0 => clones.push((vector.clone(), model.clone())),
                    1 if !model.is_empty() => {
                        let index = i * 31 % model.len();
                        *vector.get_mut(index).unwrap() = i;
                        model[index] = i;
                    }
                    _ => {
                        vector.push(i);
                        model.push(i);
                    }
                }
            }
            clones.push((vector, model));
            for (vector, model) in clones {
                prop_assert!(vector.iter().eq(model.iter()));
                prop_assert_eq!(vector.iter().len(), model.len());
                prop_assert_eq!(vector.last(), model.last());
                for index in 0..=model.len() {
                    prop_assert_eq!(vector.get(index), model.get(index));
                }
            }
        }
    }

    #[test]
    fn grows_over_several_levels() {
        let vector: Vector<usize> = (0..100_000).collect();
        assert!(vector.iter().copied().eq(0..100_000));
        assert_eq!(vector.get(65_535), Some(&65_535));
    }
}
