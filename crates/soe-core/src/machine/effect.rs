//! What is to be done for an execution.

use std::sync::Arc;

use soe_backends::{Context, ExecutionId, Limits, Run, Timestamp, Told, Turn, Value};

use super::{Heard, Outcome, Start, ToolFailure};
use crate::config::Node;

/// One thing to be done, after the commit that implies it is stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Effect {
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
    /// Put turns into the store of conversation histories before any other effect is performed, and say so by
    /// [`Machine::turns_stored`](super::Machine::turns_stored). Those whose key is stored already are left out.
    StoreTurns(Vec<Turn>),
    /// Find out whether the execution's tree may make a request, and answer with [`Input::Granted`](super::Input::Granted).
    Reserve {
        /// The run's number.
        run: u64,
        /// The number that the request would have in the run.
        call: u32,
    },
    /// Create children, and answer with [`Input::Completed`](super::Input::Completed).
    Spawn(Spawn),
    /// Deliver a message to the parent, until it is acknowledged; then give
    /// [`Input::Acknowledged`](super::Input::Acknowledged).
    Tell {
        /// The parent.
        parent: ExecutionId,
        /// The message.
        message: Arc<Told>,
    },
    /// A message of a child is dealt with: the child may forget it.
    Acknowledge {
        /// The child.
        child: ExecutionId,
        /// The message's number.
        number: u64,
    },
    /// Do the same to these children, after the effect of this kind before it. When it is done, give
    /// [`Input::Settled`](super::Input::Settled).
    Descend {
        /// What.
        what: Descend,
        /// The children, and what is known of each.
        children: Vec<(ExecutionId, Heard)>,
    },
    /// Answer with this: the outcome is known already.
    Complete {
        /// The run's number.
        run: u64,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
    },
    /// Look for a cancellation, a shutdown or a failure, then give [`Input::Continue`](super::Input::Continue).
    Continue,
    /// Stop performing this run: nobody wants its outcome any more.
    Abort {
        /// The run's number.
        run: u64,
    },
}

/// A call of a tool.
#[derive(Clone, Debug)]
pub struct ToolCall {
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
}

/// What goes down a tree.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Descend {
    /// Cancel them.
    Cancel,
    /// Suspend them.
    Suspend,
    /// Have them go on, by [`Input::Resume`](super::Input::Resume).
    Resume {
        /// What their tree may use.
        limits: Arc<Limits>,
    },
}

/// Children to be created. Those that exist already are left alone.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// The run's number.
    pub run: u64,
    /// So many children of the run are registered with these: the attempt of the answer.
    pub next: u32,
    /// The node's name.
    pub node: Arc<str>,
    /// When; at once if `None`.
    pub due: Option<Timestamp>,
    /// How they begin.
    pub children: Vec<Start>,
}

/// A run of a custom node.
#[derive(Clone, Debug)]
pub struct NodeRun {
    /// The run's number.
    pub run: u64,
    /// The node, as it was when the run was dispatched.
    pub node: Arc<Node>,
    /// The name that its type is registered under.
    pub node_type: Arc<str>,
    /// The context that the run reads.
    pub context: Arc<Context>,
}
