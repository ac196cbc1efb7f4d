//! The stores that an engine works with, as one handle.

use std::fmt;
use std::sync::Arc;

use crate::{
    BackendError, BackendErrorKind, Change, Commit, ContextBackend, ContextSchemaBackend, ConversationHistoryBackend,
    Deletion, ExecutionId, Guard, IdentityBackend, MemoryStore, Owed, Sections, TelemetryBackend, TreeState, Turn,
    WorkflowBackend,
};

/// The stores that an engine works with: one that implements all six traits, or several. Cheap to clone.
///
/// ```
/// use soe_backends::Backends;
///
/// let backends = Backends::memory();
/// assert!(backends.telemetry().is_some());
/// ```
#[derive(Clone)]
pub struct Backends(Arc<Parts>);

struct Parts {
    context: Arc<dyn ContextBackend>,
    workflows: Arc<dyn WorkflowBackend>,
    schemas: Option<Arc<dyn ContextSchemaBackend>>,
    identities: Option<Arc<dyn IdentityBackend>>,
    conversations: Option<Arc<dyn ConversationHistoryBackend>>,
    telemetry: Option<Arc<dyn TelemetryBackend>>,
    /// What the context store takes of a commit by itself.
    sections: Sections,
}

/// Puts separate stores together.
pub struct BackendsBuilder(Parts);

impl Backends {
    /// Everything in memory: gone with the process.
    pub fn memory() -> Self {
        Self::single(Arc::new(MemoryStore::new()))
    }

    /// Everything as readable files in `folder`: a [`FileStore`](crate::FileStore) with full durability.
    ///
    /// # Errors
    /// As [`FileStore::open`](crate::FileStore::open).
    #[cfg(feature = "file")]
    pub fn file(folder: impl AsRef<std::path::Path>) -> Result<Self, BackendError> {
        Ok(Self::single(Arc::new(crate::FileStore::open(folder)?)))
    }

    /// One store for everything.
    pub fn single<S>(store: Arc<S>) -> Self
    where
        S: ContextBackend
            + WorkflowBackend
            + ContextSchemaBackend
            + IdentityBackend
            + ConversationHistoryBackend
            + TelemetryBackend,
    {
        let sections = store.sections();
        Self(Arc::new(Parts {
            context: store.clone(),
            workflows: store.clone(),
            schemas: Some(store.clone()),
            identities: Some(store.clone()),
            conversations: Some(store.clone()),
            telemetry: Some(store),
            sections,
        }))
    }

    /// Separate stores, beginning with the two that an engine needs. What `context` declares as its own
    /// [`sections`](ContextBackend::sections) is left to it.
    pub fn builder(context: Arc<dyn ContextBackend>, workflows: Arc<dyn WorkflowBackend>) -> BackendsBuilder {
        let mut sections = context.sections();
        sections.registry &= same(&context, &workflows);
        BackendsBuilder(Parts {
            context,
            workflows,
            schemas: None,
            identities: None,
            conversations: None,
            telemetry: None,
            sections,
        })
    }

    /// What the store of states takes of a commit by itself.
    pub fn sections(&self) -> Sections {
        self.0.sections
    }

    /// The store of states.
    pub fn context(&self) -> &Arc<dyn ContextBackend> {
        &self.0.context
    }

    /// The store of workflow registries.
    pub fn workflows(&self) -> &Arc<dyn WorkflowBackend> {
        &self.0.workflows
    }

    /// The store of context schemas, if there is one.
    pub fn schemas(&self) -> Option<&Arc<dyn ContextSchemaBackend>> {
        self.0.schemas.as_ref()
    }

    /// The store of identities, if there is one.
    pub fn identities(&self) -> Option<&Arc<dyn IdentityBackend>> {
        self.0.identities.as_ref()
    }

    /// The store of conversation histories, if there is one.
    pub fn conversations(&self) -> Option<&Arc<dyn ConversationHistoryBackend>> {
        self.0.conversations.as_ref()
    }

    /// The store of telemetry, if there is one.
    pub fn telemetry(&self) -> Option<&Arc<dyn TelemetryBackend>> {
        self.0.telemetry.as_ref()
    }

    /// The conversation history of a tree when its commit `version` was made, or now (`None`). What no store can tell of that
    /// time is as it is now. See [`ContextBackend::turns_at`].
    ///
    /// # Errors
    /// A store can't be read.
    pub async fn turns_at(&self, tree: &ExecutionId, version: Option<u64>) -> Result<Vec<Turn>, BackendError> {
        if let Some(version) = version.filter(|_| self.0.sections.turns)
            && let Some(turns) = self.0.context.turns_at(tree, version).await?
        {
            return Ok(turns);
        }
        match self.conversations() {
            Some(store) => store.turns(tree).await,
            None => Ok(Vec::new()),
        }
    }

    /// Stores consecutive commits of one tree; `after` is the state that they make. Separate stores of workflows get what is
    /// theirs before that, so that nothing committed refers to something missing; other separate stores get it afterwards, from
    /// what the state says is owed: [`Backends::pay`].
    ///
    /// # Errors
    /// As [`ContextBackend::commit`].
    pub async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        if commits.is_empty() {
            return Ok(());
        }
        if !self.0.sections.registry {
            for commit in &commits {
                self.store_registries(commit).await?;
            }
        }
        self.0.context.commit(commits, after).await
    }

    async fn store_registries(&self, commit: &Commit) -> Result<(), BackendError> {
        for registry in &commit.registries {
            self.0.workflows.put_registry(registry).await?;
        }
        if let Some(Change::Created(genesis)) = commit.changes.first() {
            let root = &genesis.root;
            self.0
                .workflows
                .set_current(&commit.tree, &root.registry, &root.workflow)
                .await?;
        }
        Ok(())
    }

    /// Gives separate stores what a commit owes them ([`Change::Owed`]). All of them know what they have already, so it can be
    /// given again.
    ///
    /// # Errors
    /// One of them fails. The others may have taken what is theirs.
    pub async fn pay(&self, tree: &TreeState, owed: &Owed) -> Result<(), BackendError> {
        if owed.definitions {
            if let Some(store) = self.identities() {
                store.put_identities(&tree.root, &tree.definitions.identities).await?;
            }
            if let Some(store) = self.schemas() {
                store.put_schemas(&tree.root, &tree.definitions.context_schema).await?;
            }
        }
        if let (Some(store), false) = (self.conversations(), owed.turns.is_empty()) {
            store.append_turns(&tree.root, &owed.turns).await?;
        }
        if let (Some(store), false) = (self.telemetry(), owed.events.is_empty()) {
            let appended = store.append_events(&tree.root, &owed.events).await;
            appended.map_err(|error| {
                let message = format!("{} events wait for the telemetry store", owed.events.len());
                BackendError::new(BackendErrorKind::TelemetryLate, message)
                    .execution(&tree.root)
                    .because(error)
            })?;
        }
        Ok(())
    }

    /// Deletes a tree with all that belongs to it, if it is as `guard` says: its state first, and then nobody can go on with it.
    ///
    /// # Errors
    /// Some of it can't be deleted. Calling it again goes on.
    pub async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        let deletion = self.0.context.delete(tree, guard).await?;
        if deletion != Deletion::Changed {
            self.delete_rest(tree).await?;
        }
        Ok(deletion)
    }

    async fn delete_rest(&self, tree: &ExecutionId) -> Result<(), BackendError> {
        if let Some(store) = self.schemas() {
            store.delete_schemas(tree).await?;
        }
        if let Some(store) = self.identities() {
            store.delete_identities(tree).await?;
        }
        if let Some(store) = self.conversations() {
            store.delete_turns(tree).await?;
        }
        if let Some(store) = self.telemetry() {
            store.delete_events(tree).await?;
        }
        self.0.workflows.delete_current(tree).await
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends")
            .field("sections", &self.0.sections)
            .finish_non_exhaustive()
    }
}

impl BackendsBuilder {
    /// Adds a store of context schemas.
    #[must_use]
    pub fn schemas(mut self, store: Arc<dyn ContextSchemaBackend>) -> Self {
        self.0.schemas = Some(store);
        self
    }

    /// Adds a store of identities.
    #[must_use]
    pub fn identities(mut self, store: Arc<dyn IdentityBackend>) -> Self {
        self.0.identities = Some(store);
        self
    }

    /// Adds a store of conversation histories.
    #[must_use]
    pub fn conversations(mut self, store: Arc<dyn ConversationHistoryBackend>) -> Self {
        self.0.conversations = Some(store);
        self
    }

    /// Adds a store of telemetry.
    #[must_use]
    pub fn telemetry(mut self, store: Arc<dyn TelemetryBackend>) -> Self {
        self.0.telemetry = Some(store);
        self
    }

    /// The stores as one handle.
    pub fn build(self) -> Backends {
        let mut parts = self.0;
        let (context, sections) = (&parts.context, &mut parts.sections);
        // What belongs to another store than that of the states is not that one's to take.
        let taken = |other: Option<bool>| other.unwrap_or(true);
        let schemas = parts.schemas.as_ref().map(|store| same(context, store));
        let identities = parts.identities.as_ref().map(|store| same(context, store));
        sections.definitions &= taken(schemas) && taken(identities);
        sections.turns &= taken(parts.conversations.as_ref().map(|store| same(context, store)));
        sections.events &= taken(parts.telemetry.as_ref().map(|store| same(context, store)));
        Backends(Arc::new(parts))
    }
}

/// Whether two handles are on the same store.
fn same<A: ?Sized, B: ?Sized>(a: &Arc<A>, b: &Arc<B>) -> bool {
    std::ptr::eq(Arc::as_ptr(a).cast::<()>(), Arc::as_ptr(b).cast::<()>())
}
