//! What is to be done for an execution tree.

use std::sync::Arc;

use soe_backends::{Context, Definitions, ExecutionId, Owed, Run, Timestamp, Value};

use super::{Outcome, ToolFailure};
use crate::config::Node;

/// One thing to be done, after the commit that implies it is stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// Give this to the stores of their own before any other effect is performed
    /// ([`Backends::pay`](soe_backends::Backends::pay)), and say so by [`Machine::paid`](super::Machine::paid).
    Pay(Owed),
    /// Call a tool, and answer with [`Input::Completed`](super::Input::Completed).
    CallTool(ToolCall),
    /// Answer the call of the built-in tool that this event was about.
    Answer {
        /// What the tool returns.
        result: Result<Value, ToolFailure>,
    },
    /// Run a custom node, and answer with [`Input::Completed`](super::Input::Completed).
    RunNode(NodeRun),
    /// Ask an LLM, and answer with [`Input::Completed`](super::Input::Completed).
    CallLlm(LlmCall),
    /// Give [`Input::Due`](super::Input::Due) at this time.
    Wait {
        /// The execution.
        execution: u64,
        /// The run's number.
        run: u64,
        /// When.
        due: Timestamp,
    },
    /// Answer with this: the outcome is known already.
    Complete {
        /// The execution.
        execution: u64,
        /// The run's number.
        run: u64,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
    },
    /// Look for a cancellation, a shutdown or a failure, then give [`Input::Continue`](super::Input::Continue).
    Continue,
    /// Stop performing what is in flight in an execution and all below it: nobody wants the outcomes any more.
    Abort {
        /// The execution.
        execution: u64,
    },
}

impl Effect {
    /// The execution whose run it performs.
    pub(crate) fn performs_for(&self) -> Option<u64> {
        match self {
            Effect::CallTool(ToolCall { execution, .. })
            | Effect::RunNode(NodeRun { execution, .. })
            | Effect::CallLlm(LlmCall { execution, .. }) => Some(execution.number),
            Effect::Wait { execution, .. } | Effect::Complete { execution, .. } => Some(*execution),
            Effect::Pay(_) | Effect::Answer { .. } | Effect::Continue | Effect::Abort { .. } => None,
        }
    }
}

/// The execution that something is performed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its number in the tree.
    pub number: u64,
    /// Its name.
    pub id: ExecutionId,
}

/// A call of a tool.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// The execution.
    pub execution: Target,
    /// The run's number.
    pub run: u64,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The call's number in the run, from 0, if an agent makes it.
    pub index: Option<u32>,
    /// The node, as it was when the run was dispatched.
    pub node: Arc<Node>,
    /// The tool's name.
    pub tool: Arc<str>,
    /// The arguments: an object, or the list that a tool with `process_accumulated` takes. Checked against the schema.
    pub arguments: serde_json::Value,
}

/// A request to an LLM.
#[derive(Clone, Debug)]
pub struct LlmCall {
    /// The execution.
    pub execution: Target,
    /// The run, as it is now: its dialogue says what is asked.
    pub run: Arc<Run>,
    /// The node, as it was when the run was dispatched.
    pub node: Arc<Node>,
    /// The node's prompt, rendered.
    pub prompt: Arc<str>,
    /// The node's identity, rendered; without it there is no conversation history.
    pub identity: Option<Arc<str>>,
    /// The context that the run reads.
    pub context: Arc<Context>,
    /// Identities and context schema of the tree.
    pub definitions: Arc<Definitions>,
}

/// A run of a custom node.
#[derive(Clone, Debug)]
pub struct NodeRun {
    /// The execution.
    pub execution: Target,
    /// The run's number.
    pub run: u64,
    /// The node, as it was when the run was dispatched.
    pub node: Arc<Node>,
    /// The name that its type is registered under.
    pub node_type: Arc<str>,
    /// The context that the run reads.
    pub context: Arc<Context>,
}
