//! Everything in memory: for tests, and for executions that need not outlive the process.

mod trees;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::trees::Tree;
use crate::inbox::Inbox;
use crate::stored::{applied, check_versions, unfit, version_of};
use crate::{
    BackendError, Commit, ContextBackend, Deletion, Event, ExecutionId, Guard, ListPage, ListQuery, Message, Post,
    Posted, RegistryDocument, RegistryId, Sections, TelemetryBackend, Timestamp, TreeState, WorkflowBackend,
};

/// Trees that end up in the same shard share a lock; it is held for microseconds and never across an await.
const SHARDS: usize = 16;

/// All six stores in memory. A commit costs O(1): the store keeps the state that came with it, and shares with the engine and
/// with those who load it what they hold.
#[derive(Debug)]
pub struct MemoryStore {
    shards: [Mutex<HashMap<ExecutionId, Entry>>; SHARDS],
    hasher: RandomState,
    registries: Mutex<HashMap<RegistryId, Arc<RegistryDocument>>>,
    trees: Mutex<HashMap<ExecutionId, Tree>>,
    leases: Mutex<HashMap<Arc<str>, Timestamp>>,
    /// The trees with messages that were not taken. It is locked while the lock of a shard is held, never the other way round.
    waiting: Mutex<HashSet<ExecutionId>>,
}

#[derive(Debug, Default)]
struct Entry {
    state: Option<Arc<TreeState>>,
    events: Vec<Event>,
    inbox: Inbox,
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
            waiting: Mutex::default(),
        }
    }

    fn shard(&self, tree: &ExecutionId) -> MutexGuard<'_, HashMap<ExecutionId, Entry>> {
        let hash = self.hasher.hash_one(tree);
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
        for registry in commit.registries.drain(..) {
            lock(&self.registries).entry(registry.id.clone()).or_insert(registry);
        }
        if let Some(definitions) = commit.definitions.take() {
            self.tree_mut(&commit.tree, |tree| {
                tree.identities.clone_from(&definitions.identities);
                tree.schemas.clone_from(&definitions.context_schema);
            });
        }
        if !commit.turns.is_empty() {
            self.tree_mut(&commit.tree, |tree| {
                commit.turns.iter().for_each(|turn| tree.append(turn))
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
    async fn commit(&self, mut commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        let Some(first) = commits.first() else { return Ok(()) };
        let tree = first.tree.clone();
        let mut shard = self.shard(&tree);
        let stored = shard.get(&tree).and_then(|entry| entry.state.as_deref());
        check_versions(&commits, stored.map(version_of))?;
        // Everything that can fail comes before the first change.
        let after = match after {
            Some(after) => after,
            None => Arc::new(applied(stored, &commits).map_err(|error| unfit(&tree, error))?),
        };
        commits.iter_mut().for_each(|commit| self.put_sections(commit));
        let entry = shard.entry(tree).or_default();
        if !entry.inbox.is_empty() {
            entry.inbox.take(after.inbox);
            if entry.inbox.is_empty() {
                lock(&self.waiting).remove(&after.root);
            }
        }
        entry.state = Some(after);
        for commit in &mut commits {
            entry.events.append(&mut commit.events);
        }
        Ok(())
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        Ok(self.shard(tree).get(tree).and_then(|entry| entry.state.clone()))
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let states = shard.values().filter_map(|entry| entry.state.as_ref());
            all.extend(states.filter_map(|state| state.summary()));
        }
        Ok(ListPage::select(all, query))
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        let mut shard = self.shard(tree);
        let Some(entry) = shard.get_mut(tree) else {
            return Ok(Deletion::NoSuchTree);
        };
        let Some(state) = &entry.state else {
            return Ok(Deletion::NoSuchTree);
        };
        if version_of(state) != (guard.version, guard.fence) || !entry.inbox.is_empty() {
            return Ok(Deletion::Changed);
        }
        entry.state = None;
        entry.inbox = Inbox::default();
        if entry.events.is_empty() {
            shard.remove(tree);
        }
        Ok(Deletion::Deleted)
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        let mut shard = self.shard(tree);
        let entry = shard.get_mut(tree).filter(|entry| entry.state.is_some());
        let Some(entry) = entry else {
            return Ok(Post::NoSuchTree);
        };
        Ok(match entry.inbox.place(message) {
            Ok(posted) => {
                lock(&self.waiting).insert(tree.clone());
                let seq = posted.seq;
                entry.inbox.put(posted);
                Post::Stored(seq)
            }
            Err(seq) => Post::Duplicate(seq),
        })
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        let shard = self.shard(tree);
        Ok(shard
            .get(tree)
            .map(|entry| entry.inbox.after(after, limit))
            .unwrap_or_default())
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        let waiting = lock(&self.waiting);
        Ok(waiting.iter().take(limit).cloned().collect())
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
    async fn append_events(&self, tree: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut shard = self.shard(tree);
        let stored = &mut shard.entry(tree.clone()).or_default().events;
        let next = stored.last().map_or(0, |event| event.seq + 1);
        stored.extend(events.iter().filter(|event| event.seq >= next).cloned());
        Ok(())
    }

    async fn events(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
        let shard = self.shard(tree);
        let Some(entry) = shard.get(tree) else {
            return Ok(Vec::new());
        };
        let start = entry.events.partition_point(|event| event.seq < from);
        Ok(entry.events[start..].iter().take(limit).cloned().collect())
    }

    async fn delete_events(&self, tree: &ExecutionId) -> Result<(), BackendError> {
        let mut shard = self.shard(tree);
        let Some(entry) = shard.get_mut(tree) else {
            return Ok(());
        };
        entry.events = Vec::new();
        if entry.state.is_none() {
            shard.remove(tree);
        }
        Ok(())
    }
}
