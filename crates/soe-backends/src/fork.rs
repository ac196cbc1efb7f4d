//! What a fork takes over from the execution that it goes on with.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::state::Batch;
use crate::{ExecutionId, ExecutionState, Frame, Operational, TreeTotals, WorkflowVersion};

/// What a fork takes over besides the fields: all of it is copied, so nothing depends on the source. What belongs to the
/// source's tree (children, messages, the parent) is left out, and so are its runs in flight: see
/// [`Change::Restarted`](crate::Change::Restarted).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forked {
    /// The execution that it is a fork of.
    pub source: ExecutionId,
    /// The version of that execution.
    pub version: u64,
    /// What was counted.
    pub operational: Operational,
    /// The time for which it had run, in microseconds.
    #[serde(default)]
    pub active_us: u64,
    /// Broadcasts so far.
    pub broadcasts: u64,
    /// Node runs so far.
    pub runs_started: u64,
    /// The number of the next run.
    pub next_run: u64,
    /// The rest of the cascade in progress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Frame>,
    /// Batches that wait for it.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub pending: VecDeque<Batch>,
    /// How often its workflows were changed by its own nodes.
    #[serde(default)]
    pub workflow_changes: u64,
    /// The versions of its workflows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Arc<WorkflowVersion>>,
}

impl Forked {
    /// What a fork of `source` takes over, as that is at its version.
    pub fn of(source: &ExecutionState) -> Self {
        let mut operational = source.context.operational.clone();
        operational.main_execution_id = None;
        operational.tree = TreeTotals {
            llm_calls: operational.llm_calls,
            tool_calls: operational.tool_calls,
            tokens: operational.tokens,
            children: 0,
        };
        // Nobody waits any more for what a batch leads to: neither a parent nor a child.
        let frame = |frame: &Frame| Frame {
            then: None,
            ..frame.clone()
        };
        Self {
            source: source.id.clone(),
            version: source.version,
            operational,
            active_us: source.active_us_until(source.updated_at),
            broadcasts: source.broadcasts,
            runs_started: source.runs_started,
            next_run: source.next_run,
            stack: source.stack.iter().map(frame).collect(),
            pending: source.pending.clone(),
            workflow_changes: source.workflow_changes,
            versions: source.versions.clone(),
        }
    }
}
