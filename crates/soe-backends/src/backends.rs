//! The stores that an engine works with, as one handle.

use std::fmt;
use std::sync::Arc;

use crate::{
    BackendError, BackendErrorKind, Change, Commit, ContextBackend, ContextSchemaBackend, ConversationHistoryBackend,
    Definitions, ExecutionId, ExecutionState, IdentityBackend, MemoryStore, Sections, TelemetryBackend, TreeShared,
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

    /// What the tree of an execution, with this root, shared when that one's commit `version` was made, or shares now (`None`).
    /// What no store can tell of that time is as it is now. See [`ContextBackend::shared_at`].
    ///
    /// # Errors
    /// A store can't be read.
    pub async fn shared_at(
        &self,
        execution: &ExecutionId,
        version: Option<u64>,
        main: &ExecutionId,
    ) -> Result<TreeShared, BackendError> {
        let sections = self.0.sections;
        let kept = match version.filter(|_| sections.definitions || sections.turns) {
            Some(version) => self.0.context.shared_at(execution, version).await?,
            None => None,
        };
        let (is_kept, mut shared) = (kept.is_some(), kept.unwrap_or_default());
        if !(is_kept && sections.definitions) {
            shared.definitions = Definitions::default();
            if let Some(store) = self.identities() {
                shared.definitions.identities = store.identities(main).await?;
            }
            if let Some(store) = self.schemas() {
                shared.definitions.context_schema = store.schemas(main).await?;
            }
        }
        if !(is_kept && sections.turns) {
            shared.turns = match self.conversations() {
                Some(store) => store.turns(main).await?,
                None => Vec::new(),
            };
        }
        Ok(shared)
    }

    /// Stores consecutive commits of one execution. In one transaction if one store takes all; else registries and
    /// definitions first, then the changes, then telemetry.
    ///
    /// # Errors
    /// As [`ContextBackend::commit`]; and [`TelemetryLost`](BackendErrorKind::TelemetryLost), with the cause, if the commits
    /// are stored and only a separate telemetry store has failed.
    pub async fn commit(&self, mut commits: Vec<Commit>) -> Result<(), BackendError> {
        if commits.is_empty() {
            return Ok(());
        }
        if self.0.sections == Sections::ALL {
            return self.0.context.commit(commits).await;
        }
        for commit in &mut commits {
            self.store_ahead(commit).await?;
        }
        let (Some(execution), false) = (commits.first().map(|c| c.execution.clone()), self.0.sections.events) else {
            return self.0.context.commit(commits).await;
        };
        // They stay in the commits too: the state counts them.
        let events: Vec<_> = commits
            .iter()
            .flat_map(|commit| commit.events.iter().cloned())
            .collect();
        self.0.context.commit(commits).await?;
        match self.telemetry() {
            Some(telemetry) if !events.is_empty() => {
                telemetry.append_events(&execution, &events).await.map_err(|error| {
                    let message = format!("{} events of stored commits are lost", events.len());
                    BackendError::new(BackendErrorKind::TelemetryLost, message)
                        .execution(&execution)
                        .because(error)
                })
            }
            _ => Ok(()),
        }
    }

    /// Stores what a commit refers to, so that nothing committed refers to something missing.
    async fn store_ahead(&self, commit: &mut Commit) -> Result<(), BackendError> {
        if !self.0.sections.registry
            && let Some(registry) = commit.registry.take()
        {
            self.0.workflows.put_registry(&registry).await?;
            let created = commit.changes.iter().find_map(|change| match change {
                Change::Created(genesis) => Some(genesis.workflow.clone()),
                _ => None,
            });
            if let Some(workflow) = created {
                self.0
                    .workflows
                    .set_current(&commit.execution, &registry.id, &workflow)
                    .await?;
            }
        }
        if !self.0.sections.definitions
            && let Some(definitions) = commit.definitions.take()
        {
            // Where nothing can be stored yet, nothing needs to be replaced by nothing.
            let first = commit.version == 1;
            if let (Some(store), false) = (self.identities(), first && definitions.identities.is_empty()) {
                store.put_identities(&commit.execution, &definitions.identities).await?;
            }
            if let (Some(store), false) = (self.schemas(), first && definitions.context_schema.is_empty()) {
                store
                    .put_schemas(&commit.execution, &definitions.context_schema)
                    .await?;
            }
        }
        Ok(())
    }

    /// Deletes one execution with all that belongs to it; what its tree shares only if it is the tree's root. Says whether
    /// there was one.
    ///
    /// # Errors
    /// Some of it can't be deleted. Calling it again goes on.
    pub async fn delete(&self, state: &ExecutionState) -> Result<bool, BackendError> {
        let id: &ExecutionId = &state.id;
        if state.main_execution_id() == id {
            if let Some(store) = self.schemas() {
                store.delete_schemas(id).await?;
            }
            if let Some(store) = self.identities() {
                store.delete_identities(id).await?;
            }
            if let Some(store) = self.conversations() {
                store.delete_turns(id).await?;
            }
        }
        if let Some(store) = self.telemetry() {
            store.delete_events(id).await?;
        }
        self.0.workflows.delete_current(id).await?;
        self.0.context.delete(id).await
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
