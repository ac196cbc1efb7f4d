//! Commits: what one event changes, as data.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::state::Batch;
use crate::{
    Answer, DialogueStep, Event, ExecutionId, Failure, History, Limits, Origin, Owed, Owner, ParentInfo, Progress,
    RegistryId, Run, Schedule, Status, Stopped, Timestamp, TreeState, TreeTotals, Turn, Value, WorkChange,
    WorkflowVersion,
};

/// Everything that one event changes in a tree, or one link of a chain of them: it is stored as a whole or not at all.
///
/// Its sections beside `changes` belong to the other storage traits. A store that implements all of them takes the whole
/// commit in one transaction; [`Backends`](crate::Backends) splits it for separate stores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The root of the tree.
    pub tree: ExecutionId,
    /// The version that the commit makes. It was computed from the version before.
    pub version: u64,
    /// The fence of the owner as of the version before: 0 if there was none. A store refuses a commit that was computed under
    /// another.
    #[serde(default)]
    pub fence: u64,
    /// When.
    pub at: Timestamp,
    /// The changes to the state, in order.
    pub changes: Vec<Change>,
    /// The registries that changes name, if they may be new to the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<Arc<RegistryDocument>>,
    /// Identities and context schema, if the commit changes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions: Option<Arc<Definitions>>,
    /// Turns to be appended to the conversation history of the tree. Each has a key: what is stored already is not appended
    /// again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<Turn>,
    /// Telemetry, in order; the numbers go on from the state's `next_event`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// The workflows of a registry as they are stored, and the name of that content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistryDocument {
    /// The hash of the document.
    pub id: RegistryId,
    /// `workflow name -> node name -> node configuration`.
    pub workflows: Value,
}

/// Identities and context schema of an execution tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Definitions {
    /// Identity name to system prompt.
    pub identities: IndexMap<Arc<str>, Arc<str>>,
    /// Context field to its schema.
    pub context_schema: IndexMap<Arc<str>, Value>,
}

/// One change to the state of a tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// The tree begins to exist, with its root. Always the first change of version 1, and only there.
    Created(Box<TreeGenesis>),
    /// The tree begins to exist as a copy of another. Always the first change of version 1, and only there.
    Forked(Box<TreeState>),
    /// A child begins to exist.
    Started(Box<Genesis>),
    /// Something changes in one execution.
    In {
        /// Its number.
        execution: u64,
        /// What changes.
        change: ExecutionChange,
    },
    /// The work list is another.
    Work(Box<WorkChange>),
    /// The limits are others.
    Limits(Arc<Limits>),
    /// Identities and context schema are others.
    Defined(Arc<Definitions>),
    /// A process runs the tree from here on.
    Owned(Owner),
    /// The messages of the inbox up to this one are taken.
    Taken(u64),
    /// Stores of their own have to be given this.
    Owed(Box<Owed>),
    /// The oldest of what stores of their own had to be given, they have.
    Paid {
        /// The definitions too.
        definitions: bool,
        /// The number of turns.
        turns: usize,
        /// The number of events.
        events: usize,
    },
}

/// One change to the state of an execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExecutionChange {
    /// Its status is another.
    Status {
        /// The new status.
        status: Status,
        /// When: the time in which an execution runs is counted.
        at: Timestamp,
        /// Why, if it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Arc<Failure>>,
    },
    /// A batch was broadcast.
    Broadcast(Batch),
    /// A router was evaluated.
    Routed {
        /// The router.
        node: Arc<str>,
    },
    /// A run was dispatched.
    Dispatched(Arc<Run>),
    /// A run that was in flight where a fork begins starts again: it is counted already.
    Restarted(Arc<Run>),
    /// The context as it is now is kept for the runs that were dispatched since the last time.
    Snapshot {
        /// The first of these runs.
        run: u64,
    },
    /// A run made progress that is worth keeping.
    Progressed {
        /// The number of the run.
        run: u64,
        /// How far it is now.
        progress: Progress,
    },
    /// A run asked an LLM, or an agent did something.
    Dialogue {
        /// The number of the run.
        run: u64,
        /// What changed. Of a run that keeps no dialogue (a custom node's), requests and replies are counted only.
        step: DialogueStep,
    },
    /// A run is over.
    Finished {
        /// The number of the run.
        run: u64,
    },
    /// An attempt failed.
    Error,
    /// A value was appended to a field.
    Appended {
        /// The field.
        field: Arc<str>,
        /// The value.
        value: Value,
        /// The value's size in bytes.
        size: u64,
        /// Whether it came from a child; values of its own wait for the next delivery to the parent, if they are the parent's
        /// too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        delivered: bool,
    },
    /// The history of a field is a copy of another now: the one exception to appending.
    Replaced {
        /// The field.
        field: Arc<str>,
        /// Its history.
        history: History,
        /// The size of the values that it had, in bytes.
        before: u64,
        /// The size of the values that it has, in bytes.
        size: u64,
    },
    /// A tool was called by way of another.
    ToolCalled,
    /// A built-in tool answered a call that has changed something: a repetition of the call gets the same answer.
    Answered(Arc<Answer>),
    /// What waited for the parent is on its way there.
    Sent,
    /// Children have used this.
    Used(TreeTotals),
    /// What it had on the work list is kept until it is resumed, or put back.
    Stopped(Option<Arc<Stopped>>),
    /// The workflows are others.
    Registry(Box<WorkflowVersion>),
}

/// How a tree begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeGenesis {
    /// The order in which its executions run their nodes.
    pub schedule: Schedule,
    /// What it may use.
    pub limits: Arc<Limits>,
    /// Identities and context schema.
    #[serde(default)]
    pub definitions: Arc<Definitions>,
    /// Its root.
    pub root: Genesis,
}

/// How an execution begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Genesis {
    /// Its name.
    pub id: ExecutionId,
    /// What starts it, and its place among the children of that run; `None` for a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<(Arc<Origin>, u64)>,
    /// The workflow that it runs.
    pub workflow: Arc<str>,
    /// Its registry.
    pub registry: RegistryId,
    /// Where its signals and results go, if it is a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Arc<ParentInfo>>,
    /// The fields that it starts with.
    pub fields: Vec<(Arc<str>, History)>,
    /// The size of all values in `fields`, in bytes.
    pub context_bytes: u64,
}

/// A commit that doesn't fit the state it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The commit was computed from another version.
    #[error("the commit makes version {commit}, but the state is at version {state}")]
    Version {
        /// The version that the commit makes.
        commit: u64,
        /// The version of the state.
        state: u64,
    },
    /// The commit is of another tree.
    #[error("the commit is of tree {0}")]
    Tree(ExecutionId),
    /// The first commit doesn't begin with [`Change::Created`] or [`Change::Forked`].
    #[error("the first commit of a tree must create it")]
    NotCreated,
    /// The changes contradict the state.
    #[error("the commit doesn't fit the state: {0}")]
    Mismatch(&'static str),
}
