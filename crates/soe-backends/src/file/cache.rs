//! What this process knows of trees, so that a commit doesn't read what it adds to.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::ExecutionId;

/// The most trees that are kept.
const MAX_ENTRIES: usize = 1024;

/// The most bytes of journals that are kept. (Their values are shared with the engine, as long as it has them too.)
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// What can be kept.
pub(super) trait Cached {
    /// What it was read from.
    fn token(&self) -> Option<&String>;
    /// How large that was.
    fn size(&self) -> u64;
}

/// Each is taken out by who holds the lock of the tree, and put back before that is released.
#[derive(Debug)]
pub(super) struct Cache<E> {
    entries: Mutex<Entries<E>>,
    process: u64,
    counter: AtomicU64,
}

#[derive(Debug)]
struct Entries<E> {
    map: HashMap<ExecutionId, (E, u64)>,
    bytes: u64,
    clock: u64,
}

impl<E: Cached> Cache<E> {
    pub(super) fn new() -> Self {
        let entries = Entries {
            map: HashMap::new(),
            bytes: 0,
            clock: 0,
        };
        Self {
            entries: Mutex::new(entries),
            // std seeds its hashers at random: no need for a crate to get 64 random bits.
            process: RandomState::new().hash_one((std::process::id(), SystemTime::now())),
            counter: AtomicU64::new(0),
        }
    }

    /// A token that no other content has, of this process or another.
    pub(super) fn token(&self) -> String {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{count:016x}", self.process)
    }

    pub(super) fn take(&self, id: &ExecutionId) -> Option<E> {
        self.lock().remove(id)
    }

    pub(super) fn put(&self, id: &ExecutionId, entry: E) {
        let mut entries = self.lock();
        entries.remove(id);
        entries.clock += 1;
        entries.bytes += entry.size();
        let used = entries.clock;
        entries.map.insert(id.clone(), (entry, used));
        while entries.map.len() > MAX_ENTRIES || (entries.bytes > MAX_BYTES && entries.map.len() > 1) {
            let oldest = entries.map.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                break;
            };
            entries.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<E>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Cached> Entries<E> {
    fn remove(&mut self, id: &ExecutionId) -> Option<E> {
        let (entry, _) = self.map.remove(id)?;
        self.bytes = self.bytes.saturating_sub(entry.size());
        Some(entry)
    }
}
