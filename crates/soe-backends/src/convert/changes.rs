//! The changes of commits of format 1.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Deserialize;

use super::old::{ChildStatus, Frame, Incoming, Progress, Run};
use crate::state::Batch;
use crate::{
    Answer, DialogueStep, ExecutionId, Failure, History, Limits, Operational, Owner, ParentInfo, RegistryId, Schedule,
    Status, Timestamp, TreeTotals, Turn, Value, WorkflowVersion,
};

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    Created(Box<Genesis>),
    Status {
        status: Status,
        at: Timestamp,
        #[serde(default)]
        failure: Option<Failure>,
    },
    Broadcast(Batch),
    Routed {
        node: Arc<str>,
    },
    Dispatched(Run),
    Restarted(Run),
    Progressed {
        run: u64,
        progress: Progress,
    },
    Dialogue {
        run: u64,
        step: DialogueStep,
    },
    Turns(Vec<Turn>),
    TurnsStored(usize),
    Finished {
        run: u64,
    },
    Error,
    Appended {
        field: Arc<str>,
        value: Value,
        size: u64,
    },
    Replaced {
        field: Arc<str>,
        history: History,
        before: u64,
        size: u64,
    },
    ToolCalled,
    Answered(Arc<Answer>),
    Accepted(Batch),
    TakenUp,
    Stack {
        kept: usize,
        frames: Vec<Frame>,
    },
    Children(Box<Started>),
    Told(Box<Tell>),
    Acknowledged(u64),
    Received {
        child: ExecutionId,
        message: Received,
    },
    Kept(Box<Incoming>),
    TakenIn,
    Registry(Box<WorkflowVersion>),
    Limits(Arc<Limits>),
    Owned(Owner),
    Revived {
        child: ExecutionId,
    },
    /// It is seen from the states.
    Descending(#[expect(dead_code, reason = "it is read with the others")] bool),
}

#[derive(Deserialize)]
pub(super) struct Genesis {
    pub(super) workflow: Arc<str>,
    pub(super) registry: RegistryId,
    pub(super) main_execution_id: ExecutionId,
    #[serde(default)]
    pub(super) parent: Option<Arc<ParentInfo>>,
    pub(super) schedule: Schedule,
    pub(super) limits: Arc<Limits>,
    pub(super) fields: Vec<(Arc<str>, History)>,
    pub(super) context_bytes: u64,
    #[serde(default)]
    pub(super) forked: Option<Box<Forked>>,
}

#[derive(Deserialize)]
pub(super) struct Forked {
    pub(super) operational: Operational,
    #[serde(default)]
    pub(super) active_us: u64,
    pub(super) broadcasts: u64,
    pub(super) runs_started: u64,
    pub(super) next_run: u64,
    #[serde(default)]
    pub(super) stack: Vec<Frame>,
    #[serde(default)]
    pub(super) pending: VecDeque<Batch>,
    #[serde(default)]
    pub(super) workflow_changes: u64,
    #[serde(default)]
    pub(super) versions: Vec<Arc<WorkflowVersion>>,
}

#[derive(Deserialize)]
pub(super) struct Started {
    pub(super) run: u64,
    pub(super) node: Arc<str>,
    #[serde(default)]
    pub(super) failure_signal: Option<Arc<str>>,
    pub(super) children: Vec<ExecutionId>,
}

#[derive(Deserialize)]
pub(super) struct Tell {
    #[serde(default)]
    pub(super) signals: Option<Batch>,
    #[serde(default)]
    pub(super) status: Option<ChildStatus>,
    #[serde(default)]
    pub(super) error: Option<Arc<str>>,
    #[serde(default)]
    pub(super) joined: bool,
}

#[derive(Deserialize)]
pub(super) struct Received {
    pub(super) number: u64,
    #[serde(default)]
    pub(super) status: Option<ChildStatus>,
    pub(super) totals: TreeTotals,
}
