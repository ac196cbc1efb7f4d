//! The storage traits.

use std::sync::Arc;

use async_trait::async_trait;
use indexmap::IndexMap;
use soe_backends::{
    BackendError, Commit, ContextBackend, ContextSchemaBackend, ConversationHistoryBackend, Deletion, Event,
    ExecutionId, Guard, IdentityBackend, ListPage, ListQuery, Message, Post, Posted, RegistryDocument, RegistryId,
    Sections, TelemetryBackend, Timestamp, TreeState, Turn, Value, WorkflowBackend, stored,
};

use crate::prepare::NewEvents;
use crate::store::SqliteStore;
use crate::trees::{self, Shared};
use crate::{commits, inbox, list, past, states, telemetry};

/// Says which execution an error is about.
trait About<T> {
    fn about(self, execution: &ExecutionId) -> Result<T, BackendError>;
}

impl<T> About<T> for Result<T, BackendError> {
    fn about(self, execution: &ExecutionId) -> Result<T, BackendError> {
        self.map_err(|error| error.execution(execution))
    }
}

#[async_trait]
impl ContextBackend for SqliteStore {
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        let Some(first) = commits.first() else { return Ok(()) };
        let tree = first.tree.clone();
        commits::commit(&self.0, commits, after).await.about(&tree)
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        let (inner, id) = (self.0.clone(), tree.clone());
        let loaded = self.0.read(move |db| states::load(db, &inner, &id, None)).await;
        loaded.about(tree)
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        let query = query.clone();
        self.0.read(move |db| list::page(db, &query)).await
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        let id = tree.clone();
        let deleted = self.0.write(move |db| states::delete(db, &id, guard)).await;
        self.0.cache.forget(tree);
        deleted.about(tree)
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        let (tree_id, id, json) = (tree.clone(), message.id.clone(), stored::write(message)?);
        let posted = self.0.write(move |db| inbox::post(db, &tree_id, &id, &json));
        posted.await.about(tree)
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        let (place, id) = (self.0.place.clone(), tree.clone());
        let read = self.0.read(move |db| inbox::waiting(db, &place, &id, after, limit));
        read.await.about(tree)
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        let place = self.0.place.clone();
        self.0.read(move |db| inbox::trees(db, &place, limit)).await
    }

    fn sections(&self) -> Sections {
        Sections::ALL
    }

    fn keeps_commits(&self) -> bool {
        true
    }

    async fn commits(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Commit>, BackendError> {
        let (inner, id) = (self.0.clone(), tree.clone());
        let read = self.0.read(move |db| states::commits(db, &inner, &id, from, limit));
        read.await.about(tree)
    }

    async fn load_at(&self, tree: &ExecutionId, version: u64) -> Result<Option<Arc<TreeState>>, BackendError> {
        let (inner, id) = (self.0.clone(), tree.clone());
        let read = self.0.read(move |db| states::load(db, &inner, &id, Some(version)));
        read.await.about(tree)
    }

    async fn turns_at(&self, tree: &ExecutionId, version: u64) -> Result<Option<Vec<Turn>>, BackendError> {
        let id = tree.clone();
        let read = self.0.read(move |db| past::turns(db, &id, version));
        read.await.about(tree)
    }

    fn keeps_leases(&self) -> bool {
        true
    }

    async fn heartbeat(&self, owner: &str, until: Timestamp) -> Result<(), BackendError> {
        let owner = owner.to_owned();
        self.0.write(move |db| trees::heartbeat(db, &owner, until)).await
    }

    async fn lease(&self, owner: &str) -> Result<Option<Timestamp>, BackendError> {
        let owner = owner.to_owned();
        self.0.read(move |db| trees::lease(db, &owner)).await
    }

    async fn release(&self, owner: &str) -> Result<(), BackendError> {
        let owner = owner.to_owned();
        self.0.write(move |db| trees::release(db, &owner)).await
    }
}

#[async_trait]
impl WorkflowBackend for SqliteStore {
    async fn put_registry(&self, registry: &RegistryDocument) -> Result<(), BackendError> {
        if self.0.registries().contains(&registry.id) {
            return Ok(());
        }
        let (id, workflows) = (registry.id.clone(), stored::write(&registry.workflows)?);
        self.0.write(move |db| trees::put_registry(db, &id, &workflows)).await?;
        commits::remember(&self.0, [registry.id.clone()]);
        Ok(())
    }

    async fn registry(&self, id: &RegistryId) -> Result<Option<Arc<RegistryDocument>>, BackendError> {
        let (place, id) = (self.0.place.clone(), id.clone());
        self.0.read(move |db| trees::registry(db, &place, &id)).await
    }

    /// The state has both: nothing to store.
    async fn set_current(&self, _: &ExecutionId, _: &RegistryId, _: &str) -> Result<(), BackendError> {
        Ok(())
    }

    async fn delete_current(&self, _: &ExecutionId) -> Result<(), BackendError> {
        Ok(())
    }
}

impl SqliteStore {
    async fn put_shared(&self, main: &ExecutionId, kind: Shared, json: String) -> Result<(), BackendError> {
        let id = main.clone();
        let written = self.0.write(move |db| trees::put_shared(db, &id, kind, &json));
        written.await.about(main)
    }
}

#[async_trait]
impl ContextSchemaBackend for SqliteStore {
    async fn schemas(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Value>, BackendError> {
        let (place, id) = (self.0.place.clone(), main.clone());
        self.0.read(move |db| trees::schemas(db, &place, &id)).await.about(main)
    }

    async fn put_schemas(&self, main: &ExecutionId, schemas: &IndexMap<Arc<str>, Value>) -> Result<(), BackendError> {
        self.put_shared(main, Shared::Schemas, stored::write(schemas)?).await
    }

    async fn delete_schemas(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.put_schemas(main, &IndexMap::new()).await
    }
}

#[async_trait]
impl IdentityBackend for SqliteStore {
    async fn identities(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Arc<str>>, BackendError> {
        let (place, id) = (self.0.place.clone(), main.clone());
        let read = self.0.read(move |db| trees::identities(db, &place, &id));
        read.await.about(main)
    }

    async fn put_identities(
        &self,
        main: &ExecutionId,
        identities: &IndexMap<Arc<str>, Arc<str>>,
    ) -> Result<(), BackendError> {
        self.put_shared(main, Shared::Identities, stored::write(identities)?)
            .await
    }

    async fn delete_identities(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.put_identities(main, &IndexMap::new()).await
    }
}

#[async_trait]
impl ConversationHistoryBackend for SqliteStore {
    async fn turns(&self, main: &ExecutionId) -> Result<Vec<Turn>, BackendError> {
        let id = main.clone();
        self.0.read(move |db| trees::turns(db, &id)).await.about(main)
    }

    async fn append_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        let (id, turns) = (main.clone(), turns.to_vec());
        let written = self.0.write(move |db| trees::append_turns(db, &id, &turns));
        written.await.about(main)
    }

    async fn replace_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        let (id, turns) = (main.clone(), turns.to_vec());
        let written = self.0.write(move |db| trees::replace_turns(db, &id, &turns));
        written.await.about(main)
    }

    async fn delete_turns(&self, main: &ExecutionId) -> Result<(), BackendError> {
        let id = main.clone();
        self.0.write(move |db| trees::delete_turns(db, &id)).await.about(main)
    }
}

#[async_trait]
impl TelemetryBackend for SqliteStore {
    async fn append_events(&self, tree: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
        if events.is_empty() {
            return Ok(());
        }
        let (id, events, buffers) = (tree.clone(), events.to_vec(), self.0.buffers.clone());
        let written = self.0.write(move |db| {
            let next = telemetry::next(db, &id)?;
            let fresh = NewEvents::new(&buffers, &id, events.iter().filter(|event| event.seq >= next))?;
            telemetry::append(db, &id, &fresh)
        });
        written.await.about(tree)
    }

    async fn events(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
        let (place, id) = (self.0.place.clone(), tree.clone());
        let read = self
            .0
            .read(move |db| telemetry::read(db, &place, &id, from..u64::MAX, limit));
        read.await.about(tree)
    }

    async fn delete_events(&self, tree: &ExecutionId) -> Result<(), BackendError> {
        let id = tree.clone();
        self.0.write(move |db| telemetry::delete(db, &id)).await.about(tree)
    }
}
