//! The state of an execution in format 1: each execution of a tree had one of its own, and told its parent by messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::state::Batch;
use crate::{
    Answers, Context, Dialogue, ExecutionId, Failure, Limits, NumberMap, Owner, RegistryId, Schedule, Status,
    Timestamp, TreeTotals, Turn, Value, WorkflowVersion,
};

/// A state as it was stored: what its snapshots share with the context is stored once.
#[derive(Deserialize)]
pub(super) struct Written {
    pub(super) state: State,
    pub(super) snapshots: Json,
}

/// The state of one execution.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct State {
    pub(super) format: u32,
    pub(super) id: ExecutionId,
    pub(super) version: u64,
    pub(super) status: Status,
    #[serde(default)]
    pub(super) status_since: Option<Timestamp>,
    #[serde(default)]
    pub(super) active_us: u64,
    #[serde(default)]
    pub(super) failure: Option<Failure>,
    pub(super) workflow: Arc<str>,
    pub(super) registry: RegistryId,
    pub(super) schedule: Schedule,
    pub(super) limits: Arc<Limits>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) context: Arc<Context>,
    pub(super) context_bytes: u64,
    pub(super) broadcasts: u64,
    pub(super) runs_started: u64,
    pub(super) runs: BTreeMap<u64, Run>,
    pub(super) next_run: u64,
    /// By commit. They are stored beside the state.
    #[serde(skip)]
    pub(super) snapshots: NumberMap<Arc<Context>>,
    #[serde(default)]
    pub(super) stack: Vec<Frame>,
    #[serde(default)]
    pub(super) pending: VecDeque<Batch>,
    #[serde(default)]
    pub(super) family: Option<Family>,
    #[serde(default)]
    pub(super) turns: Vec<Turn>,
    #[serde(default)]
    pub(super) answers: Answers,
    #[serde(default)]
    pub(super) workflow_changes: u64,
    #[serde(default)]
    pub(super) versions: Vec<Arc<WorkflowVersion>>,
    pub(super) next_event: u64,
    #[serde(default)]
    pub(super) owner: Option<Owner>,
}

/// A run in flight.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) node: Arc<str>,
    pub(super) workflow: Arc<str>,
    pub(super) registry: RegistryId,
    /// The commit whose context it reads.
    pub(super) snapshot: u64,
    pub(super) started_at: Timestamp,
    pub(super) progress: Progress,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Progress {
    Tool { attempt: u32 },
    Custom,
    Llm(Box<Dialogue>),
    Agent(Box<Dialogue>),
    Child(Spawning),
}

impl Progress {
    pub(super) fn dialogue_mut(&mut self) -> Option<&mut Dialogue> {
        match self {
            Progress::Llm(dialogue) | Progress::Agent(dialogue) => Some(dialogue),
            Progress::Tool { .. } | Progress::Custom | Progress::Child(_) => None,
        }
    }
}

/// So many children are registered, so many there will be; when the last ones that are registered are due.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Spawning {
    pub(super) next: u64,
    pub(super) total: u64,
    #[serde(default)]
    pub(super) due: Option<Timestamp>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Frame {
    pub(super) signals: Batch,
    pub(super) registry: RegistryId,
    pub(super) next: usize,
    #[serde(default)]
    pub(super) then: Option<Then>,
}

/// What comes when a batch is worked off, in a depth-first execution.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Then {
    Tell(Batch),
    Acknowledge { child: ExecutionId },
}

/// What an execution knew of its children, and what it had to tell its parent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Family {
    pub(super) children: BTreeMap<ExecutionId, Child>,
    /// Values that wait for the next message.
    pub(super) unsent: Vec<(Arc<str>, Value)>,
    /// Messages that the parent hasn't acknowledged, oldest first.
    pub(super) outbox: VecDeque<Told>,
    pub(super) told: u64,
    /// Messages of children that wait.
    pub(super) inbox: VecDeque<Incoming>,
}

/// A child, as its parent knows it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Child {
    pub(super) run: u64,
    pub(super) node: Arc<str>,
    #[serde(default)]
    pub(super) failure_signal: Option<Arc<str>>,
    pub(super) status: ChildStatus,
    /// The number of the last message that was applied.
    pub(super) received: u64,
    #[serde(default)]
    pub(super) totals: TreeTotals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChildStatus {
    Active,
    Rested,
    Failed,
    Cancelled,
}

/// A message from a child to its parent.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Told {
    pub(super) number: u64,
    #[serde(default)]
    pub(super) signals: Option<Batch>,
    #[serde(default)]
    pub(super) updates: Vec<(Arc<str>, Value)>,
    #[serde(default)]
    pub(super) status: Option<ChildStatus>,
    #[serde(default)]
    pub(super) error: Option<Arc<str>>,
    #[serde(default)]
    pub(super) totals: TreeTotals,
}

/// A message of a child that waits.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Incoming {
    pub(super) child: ExecutionId,
    pub(super) message: Told,
}

impl State {
    pub(super) fn parent(&self) -> Option<&ExecutionId> {
        Some(&self.context.parent.as_ref()?.parent_execution_id)
    }

    pub(super) fn depth(&self) -> u32 {
        self.context.parent.as_ref().map_or(0, |parent| parent.depth)
    }

    /// A child, as this execution knows it.
    pub(super) fn child(&self, id: &ExecutionId) -> Option<&Child> {
        self.family.as_ref()?.children.get(id)
    }
}
