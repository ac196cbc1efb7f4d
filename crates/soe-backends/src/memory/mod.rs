//! Everything in memory: for tests, and for executions that need not outlive the process.

mod trees;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::trees::Tree;
use crate::stored::{check_versions, unfit};
use crate::{
    ApplyError, BackendError, Commit, ContextBackend, Event, ExecutionId, ExecutionState, ListPage, ListQuery,
    RegistryDocument, RegistryId, Sections, TelemetryBackend, Timestamp, WorkflowBackend,
};

/// Executions that end up in the same shard share a lock; it is held for microseconds and never across an await.
const SHARDS: usize = 16;

/// All six stores in memory. A commit costs O(log n); a state that was loaded, and the snapshots in it, share what they hold
/// with the store.
#[derive(Debug)]
pub struct MemoryStore {
    shards: [Mutex<HashMap<ExecutionId, Entry>>; SHARDS],
    hasher: RandomState,
    registries: Mutex<HashMap<RegistryId, Arc<RegistryDocument>>>,
    trees: Mutex<HashMap<ExecutionId, Tree>>,
    leases: Mutex<HashMap<Arc<str>, Timestamp>>,
}

#[derive(Debug, Default)]
struct Entry {
    state: Option<ExecutionState>,
    events: Vec<Event>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            registries: Mutex::default(),
            trees: Mutex::default(),
            leases: Mutex::default(),
        }
    }

    fn shard(&self, execution: &ExecutionId) -> MutexGuard<'_, HashMap<ExecutionId, Entry>> {
        let hash = self.hasher.hash_one(execution);
        lock(&self.shards[hash as usize % SHARDS])
    }

    fn tree<T: Default>(&self, main: &ExecutionId, read: impl FnOnce(&Tree) -> T) -> T {
        lock(&self.trees).get(main).map(read).unwrap_or_default()
    }

    /// Changes what a tree shares; nothing is kept of a tree that shares nothing (any more).
    fn tree_mut(&self, main: &ExecutionId, change: impl FnOnce(&mut Tree)) {
        let mut trees = lock(&self.trees);
        let tree = trees.entry(main.clone()).or_default();
        change(tree);
        if tree.is_empty() {
            trees.remove(main);
        }
    }

    /// Locks `registries` and `trees`; a caller may hold the lock of a shard, never the other way round.
    fn put_sections(&self, commit: &mut Commit) {
        if let Some(registry) = commit.registry.take() {
            lock(&self.registries).entry(registry.id.clone()).or_insert(registry);
        }
        if let Some(definitions) = commit.definitions.take() {
            self.tree_mut(&commit.execution, |tree| {
                tree.identities = definitions.identities;
                tree.schemas = definitions.context_schema;
            });
        }
        if let Some(new) = commit.turns.take() {
            self.tree_mut(&new.main, |tree| new.turns.iter().for_each(|turn| tree.append(turn)));
        }
    }
}

/// A poisoned lock is taken all the same: nothing panics between the steps of a change, they are checked before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn create(commits: &[Commit]) -> Result<ExecutionState, ApplyError> {
    let (first, rest) = commits.split_first().ok_or(ApplyError::NotCreated)?;
    let mut state = ExecutionState::create(first)?;
    rest.iter().try_for_each(|commit| state.apply(commit))?;
    Ok(state)
}

#[async_trait]
impl ContextBackend for MemoryStore {
    async fn commit(&self, mut commits: Vec<Commit>) -> Result<(), BackendError> {
        let Some(first) = commits.first() else { return Ok(()) };
        let execution = first.execution.clone();
        let mut shard = self.shard(&execution);
        let stored = shard.get(&execution).and_then(|entry| entry.state.as_ref());
        check_versions(&commits, stored.map(|state| state.version))?;
        // Everything that can fail comes before the first change: the state is changed in place, not copied.
        let created = match stored {
            Some(state) => state.fits(&commits).map(|()| None),
            None => create(&commits).map(Some),
        };
        let created = created.map_err(|error| unfit(&execution, error))?;
        commits.iter_mut().for_each(|commit| self.put_sections(commit));
        let entry = shard.entry(execution.clone()).or_default();
        match (created, &mut entry.state) {
            (None, Some(state)) => commits
                .iter()
                .try_for_each(|commit| state.apply(commit))
                .map_err(|error| unfit(&execution, error))?,
            (created, state) => *state = created,
        }
        for commit in &mut commits {
            entry.events.append(&mut commit.events);
        }
        Ok(())
    }

    async fn load(&self, execution: &ExecutionId) -> Result<Option<ExecutionState>, BackendError> {
        Ok(self
            .shard(execution)
            .get(execution)
            .and_then(|entry| entry.state.clone()))
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(
                lock(shard)
                    .values()
                    .filter_map(|entry| entry.state.as_ref())
                    .map(ExecutionState::summary),
            );
        }
        Ok(ListPage::select(all, query))
    }

    async fn delete(&self, execution: &ExecutionId) -> Result<bool, BackendError> {
        let mut shard = self.shard(execution);
        let Some(entry) = shard.get_mut(execution) else {
            return Ok(false);
        };
        let existed = entry.state.take().is_some();
        if entry.events.is_empty() {
            shard.remove(execution);
        }
        Ok(existed)
    }

    fn sections(&self) -> Sections {
        Sections::ALL
    }

    fn keeps_leases(&self) -> bool {
        true
    }

    async fn heartbeat(&self, owner: &str, until: Timestamp) -> Result<(), BackendError> {
        lock(&self.leases).insert(owner.into(), until);
        Ok(())
    }

    async fn lease(&self, owner: &str) -> Result<Option<Timestamp>, BackendError> {
        Ok(lock(&self.leases).get(owner).copied())
    }

    async fn release(&self, owner: &str) -> Result<(), BackendError> {
        lock(&self.leases).remove(owner);
        Ok(())
    }
}

#[async_trait]
impl WorkflowBackend for MemoryStore {
    async fn put_registry(&self, registry: &RegistryDocument) -> Result<(), BackendError> {
        lock(&self.registries)
            .entry(registry.id.clone())
            .or_insert_with(|| Arc::new(registry.clone()));
        Ok(())
    }

    async fn registry(&self, id: &RegistryId) -> Result<Option<Arc<RegistryDocument>>, BackendError> {
        Ok(lock(&self.registries).get(id).cloned())
    }

    /// The state has both: nothing to store.
    async fn set_current(&self, _: &ExecutionId, _: &RegistryId, _: &str) -> Result<(), BackendError> {
        Ok(())
    }

    async fn delete_current(&self, _: &ExecutionId) -> Result<(), BackendError> {
        Ok(())
    }
}

#[async_trait]
impl TelemetryBackend for MemoryStore {
    async fn append_events(&self, execution: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut shard = self.shard(execution);
        let stored = &mut shard.entry(execution.clone()).or_default().events;
        let next = stored.last().map_or(0, |event| event.seq + 1);
        stored.extend(events.iter().filter(|event| event.seq >= next).cloned());
        Ok(())
    }

    async fn events(&self, execution: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
        let shard = self.shard(execution);
        let Some(entry) = shard.get(execution) else {
            return Ok(Vec::new());
        };
        let start = entry.events.partition_point(|event| event.seq < from);
        Ok(entry.events[start..].iter().take(limit).cloned().collect())
    }

    async fn delete_events(&self, execution: &ExecutionId) -> Result<(), BackendError> {
        let mut shard = self.shard(execution);
        let Some(entry) = shard.get_mut(execution) else {
            return Ok(());
        };
        entry.events = Vec::new();
        if entry.state.is_none() {
            shard.remove(execution);
        }
        Ok(())
    }
}
