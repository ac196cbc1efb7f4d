//! What happens to an execution.

use std::sync::Arc;

use soe_backends::Value;

use crate::nodes::NodeOutput;

/// One thing that happens to an execution.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// Signals from outside.
    Broadcast(Vec<Arc<str>>),
    /// An attempt of a run is over. One that is not in flight any more is discarded.
    Completed {
        /// The run's number.
        run: u64,
        /// The attempt, from 1.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
    },
    /// The driver had its turn: go on with the cascade.
    Continue,
    /// A stored execution was taken up: its runs in flight are performed again.
    Recover,
    /// A limit that the driver watches was exceeded.
    LimitExceeded {
        /// The limit's name in [`Limits`](soe_backends::Limits).
        limit: &'static str,
        /// What was exceeded, and by how much.
        message: String,
    },
    /// Somebody cancels the execution.
    Cancel,
}

/// How an attempt of a run ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// A tool's.
    Tool(Result<Value, ToolFailure>),
    /// A custom node's: what it writes and emits, or the error that fails it.
    Node(Result<NodeOutput, Arc<str>>),
}

/// Why a tool failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolFailure {
    /// What went wrong, for people and for the context.
    pub message: Arc<str>,
    /// Whether another attempt may help.
    pub retryable: bool,
}
