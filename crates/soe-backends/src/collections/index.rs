//! A persistent index from names to positions.

use std::sync::Arc;

use hashbrown::HashMap;

/// Where each name stands. A clone shares everything; an insertion into a shared index begins a new, small level on top and
/// leaves the others as they are. Levels are merged as they grow, so that there are O(log n) of them and an insertion costs
/// O(log n) amortised.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Each much larger than the next.
    levels: Vec<Arc<HashMap<Arc<str>, usize>>>,
}

impl Index {
    pub(super) fn get(&self, name: &str) -> Option<usize> {
        self.levels.iter().find_map(|level| level.get(name)).copied()
    }

    /// Adds a name that is not there yet.
    pub(super) fn insert(&mut self, name: Arc<str>, position: usize) {
        match self.levels.last_mut().and_then(Arc::get_mut) {
            Some(level) => {
                level.insert(name, position);
            }
            None => self.levels.push(Arc::new(HashMap::from([(name, position)]))),
        }
        while let [.., below, top] = self.levels.as_slice()
            && top.len() * 2 >= below.len()
            && let Some(top) = self.levels.pop()
            && let Some(below) = self.levels.last_mut()
        {
            Arc::make_mut(below).extend(top.iter().map(|(name, position)| (name.clone(), *position)));
        }
    }
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
