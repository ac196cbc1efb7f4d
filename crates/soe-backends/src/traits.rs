//! The six storage traits. A store is dumb: it keeps what it is given, atomically, and gives it back.

use std::sync::Arc;

use async_trait::async_trait;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{
    BackendError, BackendErrorKind, Commit, Deletion, Event, ExecutionId, ExecutionSummary, Guard, Message, Post,
    Posted, RegistryDocument, RegistryId, Status, Timestamp, TreeState, Value,
};

/// The states of execution trees. The one trait that decides what has happened: a commit that it took, has.
#[async_trait]
pub trait ContextBackend: Send + Sync + 'static {
    /// Stores `commits`: at least one, of one tree, their versions consecutive. All of them or, on an error, none.
    ///
    /// `after` is the state that the last of them makes, where the caller has it: a store that keeps whole states takes that
    /// instead of applying the commits.
    ///
    /// It takes of each commit what it declares in [`ContextBackend::sections`]; of other sections it stores nothing, but
    /// the state counts the events, so a commit is applied with them. Dropping the future must leave the
    /// commits stored as a whole or not at all.
    ///
    /// # Errors
    /// [`Conflict`](crate::BackendErrorKind::Conflict) if the first commit was not computed from the stored version and fence (or
    /// creates a tree that exists); any other kind if they can't be stored.
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError>;

    /// The state of a tree, by its root; `None` if there is none.
    ///
    /// # Errors
    /// It can't be read.
    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError>;

    /// A page of the trees, newest first: what is said of each is said of its root.
    ///
    /// # Errors
    /// They can't be read. One that is damaged doesn't keep the others from being listed: it is in
    /// [`ListPage::damaged`].
    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError>;

    /// Deletes the state of a tree and its inbox, if it is as `guard` says and no message waits in its inbox: in one step, so
    /// nothing that comes in between is lost.
    ///
    /// # Errors
    /// It can't be deleted.
    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError>;

    /// Puts a message into the inbox of a tree, whoever runs it. Neither its version nor its fence changes. The ids of the last
    /// messages that were taken are known, so that one which is sent again is stored once.
    ///
    /// # Errors
    /// It can't be stored.
    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError>;

    /// At most `limit` messages of a tree's inbox that come after place `after` and were not taken
    /// ([`Change::Taken`](crate::Change::Taken)), in order.
    ///
    /// # Errors
    /// They can't be read.
    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError>;

    /// At most `limit` trees that have messages which were not taken, in any order. It is asked a few times a second, and should
    /// cost next to nothing while there is none.
    ///
    /// # Errors
    /// They can't be read.
    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError>;

    /// Which sections of a commit [`ContextBackend::commit`] takes besides the changes. Only a store that implements the
    /// other traits on the same data may declare them.
    fn sections(&self) -> Sections {
        Sections::default()
    }

    /// Whether the store keeps every commit: whether [`ContextBackend::commits`] and [`ContextBackend::load_at`] work.
    fn keeps_commits(&self) -> bool {
        false
    }

    /// The commits of a tree from version `from` on, at most `limit`, in order; none if it doesn't exist.
    ///
    /// They have their changes, and those of their events that are still stored. The other sections are missing: what they
    /// brought is in the stores of those.
    ///
    /// # Errors
    /// [`Unsupported`](crate::BackendErrorKind::Unsupported) if the store doesn't [keep](ContextBackend::keeps_commits)
    /// commits; any other kind if they can't be read.
    async fn commits(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Commit>, BackendError> {
        let _ = (from, limit);
        Err(keeps_no_commits(tree))
    }

    /// The state of a tree as commit `version` made it; `None` if there is no such commit.
    ///
    /// # Errors
    /// [`Unsupported`](crate::BackendErrorKind::Unsupported) if the store doesn't [keep](ContextBackend::keeps_commits)
    /// commits; any other kind if they can't be read.
    async fn load_at(&self, tree: &ExecutionId, version: u64) -> Result<Option<Arc<TreeState>>, BackendError> {
        let _ = version;
        Err(keeps_no_commits(tree))
    }

    /// The conversation history of a tree when its commit `version` was made; `None` if there is no such commit, or if the
    /// store doesn't keep it: a store can only tell what it takes as [`sections`](ContextBackend::sections).
    ///
    /// # Errors
    /// It can't be read.
    async fn turns_at(&self, tree: &ExecutionId, version: u64) -> Result<Option<Vec<Turn>>, BackendError> {
        let _ = (tree, version);
        Ok(None)
    }

    /// Whether the store keeps leases: whether [`ContextBackend::lease`] tells what [`ContextBackend::heartbeat`] said.
    fn keeps_leases(&self) -> bool {
        false
    }

    /// Says that `owner` (an engine, under a name that could be an [`ExecutionId`]) is alive and keeps the trees that
    /// name it until then. Replaces what it said before. A store that keeps no leases ignores it.
    ///
    /// # Errors
    /// It can't be stored.
    async fn heartbeat(&self, owner: &str, until: Timestamp) -> Result<(), BackendError> {
        let _ = (owner, until);
        Ok(())
    }

    /// Until when the lease of `owner` holds, past times included; `None` if it has none.
    ///
    /// # Errors
    /// It can't be read.
    async fn lease(&self, owner: &str) -> Result<Option<Timestamp>, BackendError> {
        let _ = owner;
        Ok(None)
    }

    /// Ends the lease of `owner`, if it has one.
    ///
    /// # Errors
    /// It can't be deleted.
    async fn release(&self, owner: &str) -> Result<(), BackendError> {
        let _ = owner;
        Ok(())
    }
}

fn keeps_no_commits(tree: &ExecutionId) -> BackendError {
    let message = "this store keeps the present state only, no commits; SQLite keeps them";
    BackendError::new(BackendErrorKind::Unsupported, message).execution(tree)
}

/// The sections of a commit that a store takes in the same transaction as the changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    /// [`Commit::registries`].
    pub registry: bool,
    /// [`Commit::definitions`].
    pub definitions: bool,
    /// [`Commit::turns`].
    pub turns: bool,
    /// [`Commit::events`].
    pub events: bool,
}

impl Sections {
    /// All sections.
    pub const ALL: Sections = Sections {
        registry: true,
        definitions: true,
        turns: true,
        events: true,
    };
}

/// Which trees are wanted, and how many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListQuery {
    /// Only those whose root has this status.
    pub status: Option<Status>,
    /// Only those whose root runs this workflow.
    pub workflow: Option<Arc<str>>,
    /// Only those that were created then or later.
    pub since: Option<Timestamp>,
    /// Only those for which something is left to do: [`TreeState::is_unsettled`].
    pub unsettled: bool,
    /// At most so many; 0 means the store's own page size.
    pub limit: usize,
    /// Those after this place: [`ListPage::next`] of the page before.
    pub after: Option<ListCursor>,
}

impl ListQuery {
    /// Whether a tree is wanted, its place apart.
    pub fn wants(&self, tree: &ExecutionSummary) -> bool {
        self.status.is_none_or(|status| status == tree.status)
            && self.workflow.as_ref().is_none_or(|workflow| *workflow == tree.workflow)
            && self.since.is_none_or(|since| tree.created_at >= since)
            && (tree.unsettled || !self.unsettled)
    }
}

/// A place in a list of trees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListCursor {
    /// The creation time of the last tree seen.
    pub created_at: Timestamp,
    /// Its root.
    pub id: ExecutionId,
}

/// A page of trees, newest first; of those created at the same time the greatest id first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListPage {
    /// The roots.
    pub executions: Vec<ExecutionSummary>,
    /// Where the next page starts; `None` if this is the last.
    pub next: Option<ListCursor>,
    /// Trees that can't be read, with what is wrong with each. They stand on the first page of a query, whatever it wants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damaged>,
}

/// A tree that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// Its root, or what takes the place of its name.
    pub tree: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ListPage {
    /// The page size of stores for a query that names none.
    pub const DEFAULT_LIMIT: usize = 100;

    /// The page that `query` asks for, out of all trees in any order. For stores without an index of their own.
    pub fn select(trees: impl IntoIterator<Item = ExecutionSummary>, query: &ListQuery) -> Self {
        let limit = match query.limit {
            0 => Self::DEFAULT_LIMIT,
            limit => limit,
        };
        let cursor = |tree: &ExecutionSummary| ListCursor {
            created_at: tree.created_at,
            id: tree.id.clone(),
        };
        let wanted = trees.into_iter().filter(|tree| query.wants(tree));
        let mut found: Vec<_> = wanted
            .filter(|tree| query.after.as_ref().is_none_or(|after| cursor(tree) < *after))
            .collect();
        found.sort_unstable_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        let more = found.len() > limit;
        found.truncate(limit);
        let next = if more { found.last().map(cursor) } else { None };
        Self {
            executions: found,
            next,
            damaged: Vec::new(),
        }
    }
}

/// Workflow registries, each stored once under the hash of its content and shared by all executions that use it.
#[async_trait]
pub trait WorkflowBackend: Send + Sync + 'static {
    /// Stores a registry, unless it is there already.
    ///
    /// # Errors
    /// It can't be stored.
    async fn put_registry(&self, registry: &RegistryDocument) -> Result<(), BackendError>;

    /// The registry of that id; `None` if there is none.
    ///
    /// # Errors
    /// It can't be read.
    async fn registry(&self, id: &RegistryId) -> Result<Option<Arc<RegistryDocument>>, BackendError>;

    /// Says which registry and workflow a root uses now, for stores that show it to people.
    ///
    /// # Errors
    /// It can't be stored.
    async fn set_current(
        &self,
        execution: &ExecutionId,
        registry: &RegistryId,
        workflow: &str,
    ) -> Result<(), BackendError>;

    /// Deletes what [`WorkflowBackend::set_current`] stored for an execution.
    ///
    /// # Errors
    /// It can't be deleted.
    async fn delete_current(&self, execution: &ExecutionId) -> Result<(), BackendError>;
}

/// Context schemas, by main execution id.
#[async_trait]
pub trait ContextSchemaBackend: Send + Sync + 'static {
    /// The schemas of a tree by field; empty if there are none.
    ///
    /// # Errors
    /// They can't be read.
    async fn schemas(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Value>, BackendError>;

    /// Replaces the schemas of a tree.
    ///
    /// # Errors
    /// They can't be stored.
    async fn put_schemas(&self, main: &ExecutionId, schemas: &IndexMap<Arc<str>, Value>) -> Result<(), BackendError>;

    /// Deletes the schemas of a tree.
    ///
    /// # Errors
    /// They can't be deleted.
    async fn delete_schemas(&self, main: &ExecutionId) -> Result<(), BackendError>;
}

/// Identities (system prompts), by main execution id.
#[async_trait]
pub trait IdentityBackend: Send + Sync + 'static {
    /// The identities of a tree: name to system prompt; empty if there are none.
    ///
    /// # Errors
    /// They can't be read.
    async fn identities(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Arc<str>>, BackendError>;

    /// Replaces the identities of a tree.
    ///
    /// # Errors
    /// They can't be stored.
    async fn put_identities(
        &self,
        main: &ExecutionId,
        identities: &IndexMap<Arc<str>, Arc<str>>,
    ) -> Result<(), BackendError>;

    /// Deletes the identities of a tree.
    ///
    /// # Errors
    /// They can't be deleted.
    async fn delete_identities(&self, main: &ExecutionId) -> Result<(), BackendError>;
}

/// One entry of a conversation history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// `system`, `user`, `assistant`, `tool`, `tool_error` or `system_error`.
    pub role: Arc<str>,
    /// The tool that a `tool` or `tool_error` entry is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<Arc<str>>,
    /// The text.
    pub content: Arc<str>,
    /// What makes an append idempotent: the run (and the index within it) that wrote the turn. A turn whose key is stored
    /// already is not appended again. `None` for turns that an application wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
}

/// Conversation histories, by main execution id.
#[async_trait]
pub trait ConversationHistoryBackend: Send + Sync + 'static {
    /// The history of a tree, oldest first; empty if there is none.
    ///
    /// # Errors
    /// It can't be read.
    async fn turns(&self, main: &ExecutionId) -> Result<Vec<Turn>, BackendError>;

    /// Appends `turns` together, leaving out those whose key is stored already. Concurrent appends lose nothing.
    ///
    /// # Errors
    /// They can't be stored.
    async fn append_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError>;

    /// Replaces the history.
    ///
    /// # Errors
    /// It can't be stored.
    async fn replace_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError>;

    /// Deletes the history.
    ///
    /// # Errors
    /// It can't be deleted.
    async fn delete_turns(&self, main: &ExecutionId) -> Result<(), BackendError>;
}

/// Telemetry events, by tree.
#[async_trait]
pub trait TelemetryBackend: Send + Sync + 'static {
    /// Appends events in their order, leaving out those whose number is stored already.
    ///
    /// # Errors
    /// They can't be stored.
    async fn append_events(&self, tree: &ExecutionId, events: &[Event]) -> Result<(), BackendError>;

    /// At most `limit` events from number `from` on.
    ///
    /// # Errors
    /// They can't be read.
    async fn events(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError>;

    /// Deletes the events of a tree.
    ///
    /// # Errors
    /// They can't be deleted.
    async fn delete_events(&self, tree: &ExecutionId) -> Result<(), BackendError>;
}
