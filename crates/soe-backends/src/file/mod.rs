//! Files in a folder: one journal a tree, which is what counts; and for people JSON, JSON lines and YAML, under the original's
//! file names.

mod cache;
mod contexts;
mod disk;
mod head;
mod journal;
mod layout;
mod leases;
mod old;
mod open;
mod people;
mod telemetry;
mod tree;
mod trees;
mod workflows;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use self::cache::Cache;
use self::disk::{Lock, Staged, failed, newer};
use self::layout::{FOLDERS, Layout, stem_of_temporary};
use self::open::Entry;
use self::trees::pretty;
use crate::{
    BackendError, BackendErrorKind, Commit, ContextBackend, ContextSchemaBackend, ConversationHistoryBackend, Deletion,
    Durability, Event, ExecutionId, FORMAT, Guard, IdentityBackend, ListPage, ListQuery, Message, Post, Posted,
    RegistryDocument, RegistryId, Sections, TelemetryBackend, Timestamp, TreeState, Turn, Value, WorkflowBackend,
};

/// All six stores as readable files in a folder. Several processes can use one folder. Cheap to clone; clones share a cache.
///
/// What counts of a tree is its journal, `trees/ID.journal`: a commit is appended to it. The files for people follow: those of
/// executions that a commit changes are written anew, so it costs as much as they are large. Changing these files changes nothing.
/// Only regular files are read. Its methods need a Tokio runtime, for the blocking I/O.
///
/// A tree that can't be read is named in [`ListPage::damaged`]; it is deleted with a guard of version 0 and fence 0. Stores that
/// the version before wrote are read: each tree is converted when it is first used, and from then on that version refuses the
/// store.
///
/// ```no_run
/// use soe_backends::{Backends, Durability, FileStore};
///
/// # fn main() -> Result<(), soe_backends::BackendError> {
/// let backends = Backends::file("orchestration_data")?;
/// let scratch = FileStore::open_with("scratch", Durability::Relaxed)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FileStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    durability: Durability,
    cache: Cache<Entry>,
}

/// What `store.json` says.
#[derive(Serialize, Deserialize)]
struct Marker {
    format: u64,
}

impl FileStore {
    /// Opens the store in `folder`, with [`Durability::Full`]. Makes the folder if it is missing, and removes what crashed
    /// writers left behind.
    ///
    /// # Errors
    /// The folder can't be written, or a later version wrote the store.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::open_with(folder, Durability::Full)
    }

    /// Opens the store in `folder` as [`FileStore::open`] does, with the durability given.
    ///
    /// # Errors
    /// The folder can't be written, or a later version wrote the store.
    pub fn open_with(folder: impl AsRef<Path>, durability: Durability) -> Result<Self, BackendError> {
        let root = folder.as_ref().to_owned();
        for name in FOLDERS {
            let folder = root.join(name);
            fs::create_dir_all(&folder).map_err(|error| failed("make the folder", &folder, error))?;
        }
        let case_sensitive = !root.join("LOCKS").exists();
        let inner = Inner {
            layout: Layout { root, case_sensitive },
            durability,
            cache: Cache::new(),
        };
        inner.check_marker()?;
        inner.clean_up()?;
        Ok(Self(Arc::new(inner)))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0.layout.root
    }

    /// Does blocking work where it may block. Dropping the future doesn't stop work that has begun: it is done as a whole.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            BackendError::new(BackendErrorKind::Unsupported, "the file store needs a Tokio runtime").because(error)
        })?;
        let inner = self.0.clone();
        match runtime.spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) if error.is_cancelled() => {
                Err(BackendError::new(BackendErrorKind::Unavailable, "the runtime is shutting down").because(error))
            }
            Err(error) => Err(BackendError::new(BackendErrorKind::Other, "the file store panicked").because(error)),
        }
    }

    /// As [`FileStore::run`], for work on one tree.
    async fn on<T: Send + 'static>(
        &self,
        tree: &ExecutionId,
        work: impl FnOnce(&Inner, &ExecutionId) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let id = tree.clone();
        let result = self.run(move |inner| work(inner, &id)).await;
        result.map_err(|error| error.execution(tree))
    }
}

impl Inner {
    /// Makes the file that says which format the store has, or checks it. A store that the version before wrote is marked before
    /// anything else is changed: that version refuses it from then on.
    fn check_marker(&self) -> Result<(), BackendError> {
        let path = self.layout.marker();
        let _lock = Lock::take(&self.layout.registries_lock())?;
        let found: Option<Marker> = match disk::read(&path)? {
            Some(content) => Some(disk::parse(&content, &path)?),
            None => None,
        };
        let format = u64::from(FORMAT);
        match found {
            Some(marker) if marker.format > format => Err(newer(&path, marker.format, FORMAT)),
            Some(marker) if marker.format == format => Ok(()),
            _ => Staged::replace(path, &[&pretty(&Marker { format })?], self.durability)?.publish(self.durability),
        }
    }

    /// Removes temporary files that nobody is writing.
    fn clean_up(&self) -> Result<(), BackendError> {
        for folder in FOLDERS {
            let is_registries = folder.ends_with("registries");
            let folder = self.layout.root.join(folder);
            let entries = fs::read_dir(&folder).map_err(|error| failed("list", &folder, error))?;
            for entry in entries.flatten() {
                let name = entry.file_name();
                let Some(stem) = name.to_str().and_then(stem_of_temporary) else {
                    continue;
                };
                let lock = if is_registries {
                    self.layout.registries_lock()
                } else {
                    self.layout.lock_of_stem(stem)
                };
                if let Some(_lock) = Lock::try_take(&lock)? {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ContextBackend for FileStore {
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        let Some(tree) = commits.first().map(|commit| commit.tree.clone()) else {
            return Ok(());
        };
        self.on(&tree, move |inner, id| inner.commit(id, commits, after)).await
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        self.on(tree, Inner::load).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        let query = query.clone();
        self.run(move |inner| inner.list(&query)).await
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        self.on(tree, move |inner, id| inner.delete(id, guard)).await
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        let message = message.clone();
        self.on(tree, move |inner, id| inner.post(id, &message)).await
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        self.on(tree, move |inner, id| inner.inbox(id, after, limit)).await
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        self.run(move |inner| inner.waiting(limit)).await
    }

    fn sections(&self) -> Sections {
        Sections::ALL
    }

    fn keeps_leases(&self) -> bool {
        true
    }

    async fn heartbeat(&self, owner: &str, until: Timestamp) -> Result<(), BackendError> {
        let owner = leases::checked(owner)?;
        self.run(move |inner| inner.heartbeat(&owner, until)).await
    }

    async fn lease(&self, owner: &str) -> Result<Option<Timestamp>, BackendError> {
        let owner = leases::checked(owner)?;
        self.run(move |inner| inner.lease(&owner)).await
    }

    async fn release(&self, owner: &str) -> Result<(), BackendError> {
        let owner = leases::checked(owner)?;
        self.run(move |inner| inner.release(&owner)).await
    }
}

#[async_trait]
impl WorkflowBackend for FileStore {
    async fn put_registry(&self, registry: &RegistryDocument) -> Result<(), BackendError> {
        let registry = registry.clone();
        self.run(move |inner| inner.put_registry(&registry)).await
    }

    async fn registry(&self, id: &RegistryId) -> Result<Option<Arc<RegistryDocument>>, BackendError> {
        let id = id.clone();
        self.run(move |inner| inner.registry(&id)).await
    }

    async fn set_current(
        &self,
        execution: &ExecutionId,
        registry: &RegistryId,
        workflow: &str,
    ) -> Result<(), BackendError> {
        let (registry, workflow) = (registry.clone(), workflow.to_owned());
        self.on(execution, move |inner, id| inner.set_current(id, &registry, &workflow))
            .await
    }

    async fn delete_current(&self, execution: &ExecutionId) -> Result<(), BackendError> {
        self.on(execution, Inner::delete_current).await
    }
}

#[async_trait]
impl ContextSchemaBackend for FileStore {
    async fn schemas(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Value>, BackendError> {
        self.on(main, Inner::schemas).await
    }

    async fn put_schemas(&self, main: &ExecutionId, schemas: &IndexMap<Arc<str>, Value>) -> Result<(), BackendError> {
        let schemas = schemas.clone();
        self.on(main, move |inner, id| inner.put_schemas(id, schemas)).await
    }

    async fn delete_schemas(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.on(main, |inner, id| inner.put_schemas(id, IndexMap::new())).await
    }
}

#[async_trait]
impl IdentityBackend for FileStore {
    async fn identities(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Arc<str>>, BackendError> {
        self.on(main, Inner::identities).await
    }

    async fn put_identities(
        &self,
        main: &ExecutionId,
        identities: &IndexMap<Arc<str>, Arc<str>>,
    ) -> Result<(), BackendError> {
        let identities = identities.clone();
        self.on(main, move |inner, id| inner.put_identities(id, identities))
            .await
    }

    async fn delete_identities(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.on(main, |inner, id| inner.put_identities(id, IndexMap::new()))
            .await
    }
}

#[async_trait]
impl ConversationHistoryBackend for FileStore {
    async fn turns(&self, main: &ExecutionId) -> Result<Vec<Turn>, BackendError> {
        self.on(main, Inner::turns).await
    }

    async fn append_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        let turns = turns.to_vec();
        self.on(main, move |inner, id| inner.append_turns(id, &turns)).await
    }

    async fn replace_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        let turns = turns.to_vec();
        self.on(main, move |inner, id| inner.replace_turns(id, turns)).await
    }

    async fn delete_turns(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.on(main, |inner, id| inner.replace_turns(id, Vec::new())).await
    }
}

#[async_trait]
impl TelemetryBackend for FileStore {
    async fn append_events(&self, tree: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
        let events = events.to_vec();
        self.on(tree, move |inner, id| inner.append_events(id, events)).await
    }

    async fn events(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
        self.on(tree, move |inner, id| inner.events(id, from, limit)).await
    }

    async fn delete_events(&self, tree: &ExecutionId) -> Result<(), BackendError> {
        self.on(tree, Inner::delete_events).await
    }
}
