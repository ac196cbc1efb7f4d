//! The states that this process stored or loaded last, so that a load needs no folding.
//!
//! A cached state is used only if its epoch and version are those of the row: together they name one content.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use soe_backends::{ExecutionId, TreeState};

/// A generation has so many states at most, and there are two.
const MAX_STATES: usize = 1024;

/// A generation has states of so many bytes of commits at most. (They are shared with the engine, as long as it has them too.)
const MAX_BYTES: u64 = 128 * 1024 * 1024;

/// A state, and in which creation of its tree it belongs.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) epoch: i64,
    /// The bytes of all its commits.
    pub(crate) log: u64,
    pub(crate) state: Arc<TreeState>,
}

/// Two generations: what is used is in the young one. When that is full it becomes the old one, which is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<ExecutionId, Known>,
    old: HashMap<ExecutionId, Known>,
    /// Of those in the young one.
    bytes: u64,
}

impl Cache {
    /// Forgets a state.
    pub(crate) fn forget(&self, tree: &ExecutionId) {
        self.with(|generations| drop(generations.take(tree)));
    }

    /// The state of that version, if it is here.
    pub(crate) fn get(&self, tree: &ExecutionId, epoch: i64, version: u64) -> Option<Arc<TreeState>> {
        self.with(|generations| {
            let known = generations.take(tree)?;
            let found = (known.epoch == epoch && known.state.version == version).then(|| known.state.clone());
            generations.put(known);
            found
        })
    }

    /// Keeps a state, unless a later one of the same creation is here.
    pub(crate) fn put(&self, known: Known) {
        self.with(|generations| {
            let here = generations.take(&known.state.root);
            match here.filter(|here| here.epoch == known.epoch && here.state.version > known.state.version) {
                Some(later) => generations.put(later),
                None => generations.put(known),
            }
        });
    }

    /// Nothing panics while the lock is held, so what a poisoned one guards is whole.
    fn with<T>(&self, work: impl FnOnce(&mut Generations) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generations {
    fn take(&mut self, tree: &ExecutionId) -> Option<Known> {
        match self.young.remove(tree) {
            Some(known) => {
                self.bytes = self.bytes.saturating_sub(known.log);
                Some(known)
            }
            None => self.old.remove(tree),
        }
    }

    fn put(&mut self, known: Known) {
        if self.young.len() >= MAX_STATES || self.bytes >= MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(known.log);
        self.young.insert(known.state.root.clone(), known);
    }
}
