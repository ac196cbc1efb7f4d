//! The state of an execution: what is its own among all that a tree keeps.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Answers, Context, Dialogue, ExecutionId, NumberMap, RegistryId, Stopped, Timestamp, TreeTotals, Value,
    WorkflowVersion,
};

/// Signals that are broadcast together.
pub type Batch = Arc<[Arc<str>]>;

/// The state of one execution of a tree. It is changed by [`TreeState::apply`](crate::TreeState::apply) alone, in the live
/// engine, in every store and at recovery. A clone costs O(1): it shares what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionState {
    /// Its number in the tree, in the order of creation; the root has 0.
    pub number: u64,
    /// Its name.
    pub id: ExecutionId,
    /// What started it; `None` for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Arc<Origin>>,
    /// Where it stands by itself. An execution above it may have ended: [`TreeState::status`](crate::TreeState::status) says
    /// what holds.
    pub status: Status,
    /// Since when; `None` if it was only prepared yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_since: Option<Timestamp>,
    /// The time for which it has run, the current stretch not counted, in microseconds.
    #[serde(default)]
    pub active_us: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Arc<Failure>>,
    /// The workflow that it runs.
    pub workflow: Arc<str>,
    /// The workflows that it was started with, as changed since by its own nodes.
    pub registry: RegistryId,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// What templates and nodes read.
    pub context: Arc<Context>,
    /// The size of all values in the histories, in bytes, as [`Value::size`](crate::Value::size) counts.
    pub context_bytes: u64,
    /// Runs in flight (of an execution that has ended: those to be run again) by number.
    pub runs: NumberMap<Arc<Run>>,
    /// The number of the next run.
    pub next_run: u64,
    /// The contexts that runs in flight were dispatched on, by [`Run::snapshot`].
    pub snapshots: NumberMap<Arc<Context>>,
    /// Its children; `None` while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<Arc<Children>>,
    /// Values that wait for the next delivery to the parent, with their fields, oldest first.
    #[serde(default, skip_serializing_if = "NumberMap::is_empty")]
    pub unsent: NumberMap<(Arc<str>, Value)>,
    /// What the parent knows of what it and its own children have used.
    #[serde(default)]
    pub sent: TreeTotals,
    /// What it had on the work list when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Arc<Stopped>>,
    /// What built-in tools have answered, as long as a call may be repeated.
    #[serde(default, skip_serializing_if = "Answers::is_empty")]
    pub answers: Answers,
    /// How often its workflows were changed by its own nodes.
    #[serde(default)]
    pub workflow_changes: u64,
    /// The versions of its workflows, as far as they are kept; empty while there was no change.
    #[serde(default, skip_serializing_if = "NumberMap::is_empty")]
    pub versions: NumberMap<Arc<WorkflowVersion>>,
}

/// What started a child: shared by all children of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The parent's number in the tree.
    pub parent: u64,
    /// The parent's run that started it.
    pub run: u64,
    /// The node of that run.
    pub node: Arc<str>,
    /// The signal that the parent broadcasts when the child has failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_signal: Option<Arc<str>>,
}

/// The children of an execution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Children {
    /// Their numbers in the tree, by the run that started them and their place in it.
    pub by_run: NumberMap<NumberMap<u64>>,
    /// How many of them are running.
    pub active: u64,
}

impl Children {
    /// How many children a run has started.
    pub fn count(&self, run: u64) -> u64 {
        self.by_run.get(run).map_or(0, |of_run| of_run.len() as u64)
    }

    /// The numbers of all children, by run and place.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.by_run.values().flat_map(|run| run.values().copied())
    }
}

/// Who runs a tree. That it is still so is said by the lease of its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process: the name under which it keeps its lease.
    pub process: Arc<str>,
    /// How often the tree has changed hands: a process that reads another number has lost it.
    pub fence: u64,
}

/// Where an execution stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Created, not started: its first signals will start it.
    Prepared,
    /// Something is in flight.
    Running,
    /// Nothing is in flight, in it or in its children. A signal wakes it.
    Rested,
    /// A node or a limit failed it. It can be resumed.
    Failed,
    /// An execution above it failed. It goes on when that one is resumed.
    Suspended,
    /// Cancelled for good.
    Cancelled,
}

impl Status {
    /// The status as it is stored and printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Prepared => "prepared",
            Status::Running => "running",
            Status::Rested => "rested",
            Status::Failed => "failed",
            Status::Suspended => "suspended",
            Status::Cancelled => "cancelled",
        }
    }

    /// Whether signals can be broadcast to it.
    pub fn accepts_signals(self) -> bool {
        matches!(self, Status::Prepared | Status::Running | Status::Rested)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an execution failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, for people.
    pub message: String,
    /// The node whose failure it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// The limit that was exceeded: the name of a field of [`Limits`](crate::Limits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Arc<str>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "node '{node}': {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// The order in which an execution runs its nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Schedule {
    /// All listeners of a batch run in parallel.
    #[default]
    Concurrent,
    /// One node at a time, in the order of a synchronous recursion: the same trace each time.
    DepthFirst,
}

/// A run in flight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its number in the execution.
    pub number: u64,
    /// The node that runs.
    pub node: Arc<str>,
    /// The workflow of that node.
    pub workflow: Arc<str>,
    /// The registry with the node's configuration at dispatch: the run stays with it whatever changes meanwhile.
    pub registry: RegistryId,
    /// The context that the run reads, among the [snapshots](ExecutionState::snapshots): the number of the first run that was
    /// dispatched with it.
    pub snapshot: u64,
    /// When it was dispatched.
    pub started_at: Timestamp,
    /// How far it is.
    pub progress: Progress,
}

/// How far a run is, between its own calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Progress {
    /// A tool node: its call is in flight.
    Tool {
        /// The attempt in flight, from 1.
        attempt: u32,
    },
    /// A node of a type that the application registered.
    Custom,
    /// An llm node.
    Llm(Box<Dialogue>),
    /// An agent node.
    Agent(Box<Dialogue>),
    /// A child node: it starts its children.
    Child(Spawning),
}

/// How far a run is that starts children. How many there are is known from [`Children::by_run`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawning {
    /// How many children there will be; `None` until the run has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// When the next one is due, if children are spaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
}

impl Progress {
    /// What a run that asks an LLM has asked.
    pub fn dialogue(&self) -> Option<&Dialogue> {
        match self {
            Progress::Llm(dialogue) | Progress::Agent(dialogue) => Some(dialogue),
            Progress::Tool { .. } | Progress::Custom | Progress::Child(_) => None,
        }
    }

    pub(crate) fn dialogue_mut(&mut self) -> Option<&mut Dialogue> {
        match self {
            Progress::Llm(dialogue) | Progress::Agent(dialogue) => Some(dialogue),
            Progress::Tool { .. } | Progress::Custom | Progress::Child(_) => None,
        }
    }
}

/// What a list of executions says of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionSummary {
    /// Its name.
    pub id: ExecutionId,
    /// The root of its tree.
    pub main_execution_id: ExecutionId,
    /// The workflow that it runs.
    pub workflow: Arc<str>,
    /// Where it stands.
    pub status: Status,
    /// The version of its tree.
    pub version: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// How many executions are below it; of one that is no root, its own children only.
    #[serde(default)]
    pub children: u64,
    /// Of a root, whether something is left to do for its tree: see [`TreeState::is_unsettled`](crate::TreeState::is_unsettled).
    #[serde(default)]
    pub unsettled: bool,
}

impl ExecutionState {
    /// The number of its parent; `None` for the root.
    pub fn parent(&self) -> Option<u64> {
        self.origin.as_ref().map(|origin| origin.parent)
    }

    /// How many of its children are running.
    pub fn active_children(&self) -> u64 {
        self.children.as_ref().map_or(0, |children| children.active)
    }

    /// Its depth in its tree; the root has depth 0.
    pub fn depth(&self) -> u32 {
        self.context.parent.as_ref().map_or(0, |parent| parent.depth)
    }

    /// The root of its tree.
    pub fn main_execution_id(&self) -> &ExecutionId {
        self.context.operational.main_execution_id.as_ref().unwrap_or(&self.id)
    }

    /// The time for which it has run until then, in microseconds.
    pub fn active_us_until(&self, until: Timestamp) -> u64 {
        let since = self.status_since.filter(|_| self.status == Status::Running);
        self.active_us + since.map_or(0, |since| micros(until.since(since)))
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
