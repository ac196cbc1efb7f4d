//! The state of an execution: all that is needed to go on with it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Answers, Context, Dialogue, ExecutionId, Family, Limits, RegistryId, Timestamp, Turn, WorkflowVersion};

/// The version of the stored form of an [`ExecutionState`]. States of every earlier version stay readable.
pub const FORMAT: u32 = 1;

/// Signals that are broadcast together.
pub type Batch = Arc<[Arc<str>]>;

/// The state of one execution. It is changed by [`ExecutionState::apply`](crate::ExecutionState::apply) alone, in the
/// live engine, in every store and at recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionState {
    /// The version of the stored form: [`FORMAT`].
    pub format: u32,
    /// Its name.
    pub id: ExecutionId,
    /// The number of commits applied; the version that the next commit must be computed from.
    pub version: u64,
    /// Where it stands.
    pub status: Status,
    /// Since when; `None` if it was only prepared yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_since: Option<Timestamp>,
    /// The time for which it has run, the current stretch not counted, in microseconds.
    #[serde(default)]
    pub active_us: u64,
    /// Why it failed, was suspended or cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The workflow that it runs.
    pub workflow: Arc<str>,
    /// The workflows that it was started with, as changed since by its own nodes.
    pub registry: RegistryId,
    /// The order in which it runs its nodes.
    pub schedule: Schedule,
    /// What its tree may use.
    pub limits: Arc<Limits>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// What templates and nodes read.
    pub context: Arc<Context>,
    /// The size of all values in the histories, in bytes, as [`Value::size`](crate::Value::size) counts.
    pub context_bytes: u64,
    /// Broadcasts so far.
    pub broadcasts: u64,
    /// Node runs so far, routers included.
    pub runs_started: u64,
    /// Runs in flight (of a failed or suspended execution: those to be run again) by number.
    pub runs: BTreeMap<u64, Arc<Run>>,
    /// The number of the next run.
    pub next_run: u64,
    /// The contexts that runs in flight were dispatched on, by commit.
    pub snapshots: BTreeMap<u64, Arc<Context>>,
    /// The rest of a cascade that is not worked off yet, innermost batch last.
    #[serde(default)]
    pub stack: Vec<Frame>,
    /// Batches that were accepted from outside and wait for the stack.
    #[serde(default)]
    pub pending: VecDeque<Batch>,
    /// Its children, and what it has to tell its parent; `None` while there is nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Box<Family>>,
    /// Turns that are on their way to a separate store of conversation histories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<Turn>,
    /// What built-in tools have answered, as long as a call may be repeated.
    #[serde(default, skip_serializing_if = "Answers::is_empty")]
    pub answers: Answers,
    /// How often its workflows were changed by its own nodes.
    #[serde(default)]
    pub workflow_changes: u64,
    /// The versions of its workflows, as far as they are kept; empty while there was no change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Arc<WorkflowVersion>>,
    /// The number of the next telemetry event.
    pub next_event: u64,
    /// Who runs it, or ran it last; `None` on stores that keep no leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// Who runs an execution. That it is still so is said by the lease of its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process: the name under which it keeps its lease.
    pub process: Arc<str>,
    /// How often the execution has changed hands: a process that reads another number has lost it.
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
    /// The limit that was exceeded: the name of a field of [`Limits`].
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
    /// The commit whose context the run reads.
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

/// How far a run is that starts children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawning {
    /// The first child of those that are being created.
    pub from: u64,
    /// So many children are registered.
    pub next: u64,
    /// So many there will be.
    pub total: u64,
    /// When they are due, if children are spaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// Whether those that are registered are created: a depth-first run waits until they rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub created: bool,
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

/// A batch whose listeners are being worked off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// The batch.
    pub signals: Batch,
    /// The registry in which its listeners were looked up.
    pub registry: RegistryId,
    /// The first listener, counted in the order of dispatch, that was not handled yet.
    pub next: usize,
    /// What comes when the batch is worked off, in a depth-first execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Box<Then>>,
}

/// What comes when a batch and all that followed from it is worked off, in a depth-first execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Then {
    /// These signals are told to the parent, and the execution waits until it has dealt with them.
    Tell(Batch),
    /// A message of a child is acknowledged: the child goes on.
    Acknowledge {
        /// The child.
        child: ExecutionId,
        /// The message's number.
        number: u64,
    },
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
    /// Its version.
    pub version: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// Whether something is left to do for it: see [`ExecutionState::is_unsettled`].
    #[serde(default)]
    pub unsettled: bool,
}

impl ExecutionState {
    /// What a list of executions says of this one.
    pub fn summary(&self) -> ExecutionSummary {
        ExecutionSummary {
            id: self.id.clone(),
            main_execution_id: self.main_execution_id().clone(),
            workflow: self.workflow.clone(),
            status: self.status,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            unsettled: self.is_unsettled(),
        }
    }

    /// Whether something is left to do for it that nobody has to ask for: it runs, its end has still to go down to its
    /// children, or turns have still to be stored. A process that starts takes up these.
    pub fn is_unsettled(&self) -> bool {
        let descending = self.family.as_ref().is_some_and(|family| family.descending);
        self.status == Status::Running || descending || !self.turns.is_empty()
    }

    /// Its children that are active.
    pub fn active_children(&self) -> u64 {
        self.family.as_ref().map_or(0, |family| family.active)
    }

    /// Its depth in its tree; the root has depth 0.
    pub fn depth(&self) -> u32 {
        self.context.parent.as_ref().map_or(0, |parent| parent.depth)
    }

    /// The root of its tree.
    pub fn main_execution_id(&self) -> &ExecutionId {
        self.context.operational.main_execution_id.as_ref().unwrap_or(&self.id)
    }
}
