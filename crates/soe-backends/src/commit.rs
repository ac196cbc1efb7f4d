//! Commits: what one event changes, as data.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::state::Batch;
use crate::{
    Answer, DialogueStep, Event, ExecutionId, Failure, Forked, Frame, History, Incoming, Limits, Owner, ParentInfo,
    Progress, Received, RegistryId, Run, Schedule, Started, Status, Tell, Timestamp, Turn, Value, WorkflowVersion,
};

/// Everything that one event changes: it is stored as a whole or not at all.
///
/// Its sections beside `changes` belong to the other storage traits. A store that implements all of them takes the whole
/// commit in one transaction; [`Backends`](crate::Backends) splits it for separate stores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The execution.
    pub execution: ExecutionId,
    /// The version that the commit makes. It was computed from the version before.
    pub version: u64,
    /// When.
    pub at: Timestamp,
    /// The changes to the state, in order.
    pub changes: Vec<Change>,
    /// The registry that a change names, if it may be new to the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<Arc<RegistryDocument>>,
    /// Identities and context schema to be stored for the tree (by main execution id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions: Option<Box<Definitions>>,
    /// Turns to be appended to the conversation history of the tree, for a store that takes them in the same transaction.
    /// Others get them afterwards: see [`Change::Turns`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Box<TreeTurns>>,
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

/// Turns for the conversation history that the executions of a tree share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeTurns {
    /// The root of the tree.
    pub main: ExecutionId,
    /// The turns, in order. Each has a key: what is stored already is not appended again.
    pub turns: Vec<Turn>,
}

/// Identities and context schema of an execution tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Definitions {
    /// Identity name to system prompt.
    pub identities: IndexMap<Arc<str>, Arc<str>>,
    /// Context field to its schema.
    pub context_schema: IndexMap<Arc<str>, Value>,
}

/// One change to the state of an execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// The execution begins to exist. Always the first change of version 1, and only there.
    Created(Box<Genesis>),
    /// Its status is another.
    Status {
        /// The new status.
        status: Status,
        /// When: the time in which an execution runs is counted.
        at: Timestamp,
        /// Why, if it failed, was suspended or cancelled.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
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
    /// Turns for the conversation history, kept until they are in its store: where that is a separate one.
    Turns(Vec<Turn>),
    /// The oldest of these turns, so many, are in the store.
    TurnsStored(usize),
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
    /// A batch was accepted that waits for the cascade in progress.
    Accepted(Batch),
    /// The oldest accepted batch was taken up.
    TakenUp,
    /// The rest of the cascade, innermost batch last. Only what changed is said, so that a deep stack costs nothing.
    Stack {
        /// So many frames of the stack stay as they are; the others go.
        kept: usize,
        /// What comes on top of them.
        frames: Vec<Frame>,
    },
    /// A run starts children; they are registered before they are created.
    Children(Box<Started>),
    /// The execution tells its parent something: this, and the values that wait for it.
    Told(Box<Tell>),
    /// The parent has acknowledged the messages up to this number.
    Acknowledged(u64),
    /// A message of a child is applied.
    Received {
        /// The child.
        child: ExecutionId,
        /// The message.
        message: Received,
    },
    /// A message of a child has to wait.
    Kept(Arc<Incoming>),
    /// The oldest message that waits is taken.
    TakenIn,
    /// The workflows are others.
    Registry(Box<WorkflowVersion>),
    /// The limits of its tree are others.
    Limits(Arc<Limits>),
    /// A process runs it from here on.
    Owned(Owner),
    /// A child is resumed: it is active until it tells otherwise.
    Revived {
        /// The child.
        child: ExecutionId,
    },
    /// What became of the execution has still to go down to its children, or has done so.
    Descending(bool),
}

/// How an execution begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Genesis {
    /// The workflow that it runs.
    pub workflow: Arc<str>,
    /// Its registry.
    pub registry: RegistryId,
    /// The root of its tree.
    pub main_execution_id: ExecutionId,
    /// Its parent, if it is a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Arc<ParentInfo>>,
    /// Its schedule.
    pub schedule: Schedule,
    /// What its tree may use.
    pub limits: Arc<Limits>,
    /// The fields that it starts with.
    pub fields: Vec<(Arc<str>, History)>,
    /// The size of all values in `fields`, in bytes.
    pub context_bytes: u64,
    /// What it goes on with, if it is a fork of another execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<Box<Forked>>,
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
    /// The commit is of another execution.
    #[error("the commit is of execution {0}")]
    Execution(ExecutionId),
    /// The first commit doesn't begin with [`Change::Created`].
    #[error("the first commit of an execution must create it")]
    NotCreated,
    /// The changes contradict the state.
    #[error("the commit doesn't fit the state: {0}")]
    Mismatch(&'static str),
}
