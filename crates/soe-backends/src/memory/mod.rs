//! Everything in memory: for tests, and for executions that need not outlive the process.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use indexmap::IndexMap;

use crate::{
    BackendError, BackendErrorKind, Change, Commit, ContextBackend, ContextSchemaBackend, ConversationHistoryBackend,
    Event, ExecutionId, ExecutionState, IdentityBackend, ListPage, ListQuery, RegistryDocument, RegistryId, Sections,
    TelemetryBackend, Turn, Value, WorkflowBackend,
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
}

#[derive(Debug, Default)]
struct Entry {
    state: Option<ExecutionState>,
    events: Vec<Event>,
}

/// What the executions of a tree share.
#[derive(Debug, Default)]
struct Tree {
    identities: IndexMap<Arc<str>, Arc<str>>,
    schemas: IndexMap<Arc<str>, Value>,
    turns: Vec<Turn>,
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
        }
    }

    fn shard(&self, execution: &ExecutionId) -> MutexGuard<'_, HashMap<ExecutionId, Entry>> {
        let hash = self.hasher.hash_one(execution);
        lock(&self.shards[hash as usize % SHARDS])
    }

    fn tree<T>(&self, main: &ExecutionId, read: impl FnOnce(&Tree) -> T) -> T
    where
        T: Default,
    {
        lock(&self.trees).get(main).map(read).unwrap_or_default()
    }

    fn tree_mut(&self, main: &ExecutionId, change: impl FnOnce(&mut Tree)) {
        change(lock(&self.trees).entry(main.clone()).or_default());
    }

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
    }
}

/// A poisoned lock is taken all the same: nothing panics between the steps of a change, they are checked before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl ContextBackend for MemoryStore {
    async fn commit(&self, mut commits: Vec<Commit>) -> Result<(), BackendError> {
        let Some(first) = commits.first() else { return Ok(()) };
        let (execution, base) = (first.execution.clone(), first.version - 1);
        let mut shard = self.shard(&execution);
        let found = shard
            .get(&execution)
            .and_then(|entry| entry.state.as_ref())
            .map(|state| state.version);
        let creates = matches!(first.changes.first(), Some(Change::Created(_)));
        let consecutive = commits.windows(2).all(|pair| pair[1].version == pair[0].version + 1);
        if found.unwrap_or(0) != base || (found.is_none() != creates) || !consecutive {
            return Err(BackendError::conflict(&execution, base, found));
        }
        let entry = shard.entry(execution.clone()).or_default();
        for commit in &commits {
            let applied = match &mut entry.state {
                Some(state) => state.apply(commit),
                None => ExecutionState::create(commit).map(|state| entry.state = Some(state)),
            };
            // A commit of the right version that doesn't fit was not made by an engine from this state.
            applied.map_err(|error| {
                BackendError::new(
                    BackendErrorKind::Corrupt,
                    "the state can't be used any more: a commit doesn't fit it",
                )
                .execution(&execution)
                .because(error)
            })?;
        }
        for commit in &mut commits {
            entry.events.append(&mut commit.events);
        }
        drop(shard);
        commits.iter_mut().for_each(|commit| self.put_sections(commit));
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
impl ContextSchemaBackend for MemoryStore {
    async fn schemas(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Value>, BackendError> {
        Ok(self.tree(main, |tree| tree.schemas.clone()))
    }

    async fn put_schemas(&self, main: &ExecutionId, schemas: &IndexMap<Arc<str>, Value>) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.schemas.clone_from(schemas));
        Ok(())
    }

    async fn delete_schemas(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.schemas.clear());
        Ok(())
    }
}

#[async_trait]
impl IdentityBackend for MemoryStore {
    async fn identities(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Arc<str>>, BackendError> {
        Ok(self.tree(main, |tree| tree.identities.clone()))
    }

    async fn put_identities(
        &self,
        main: &ExecutionId,
        identities: &IndexMap<Arc<str>, Arc<str>>,
    ) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.identities.clone_from(identities));
        Ok(())
    }

    async fn delete_identities(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.identities.clear());
        Ok(())
    }
}

#[async_trait]
impl ConversationHistoryBackend for MemoryStore {
    async fn turns(&self, main: &ExecutionId) -> Result<Vec<Turn>, BackendError> {
        Ok(self.tree(main, |tree| tree.turns.clone()))
    }

    async fn append_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| {
            for turn in turns {
                let stored = turn.key.is_some() && tree.turns.iter().any(|other| other.key == turn.key);
                if !stored {
                    tree.turns.push(turn.clone());
                }
            }
        });
        Ok(())
    }

    async fn replace_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.turns = turns.to_vec());
        Ok(())
    }

    async fn delete_turns(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.turns.clear());
        Ok(())
    }
}

#[async_trait]
impl TelemetryBackend for MemoryStore {
    async fn append_events(&self, execution: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
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
