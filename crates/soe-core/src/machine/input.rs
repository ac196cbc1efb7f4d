//! What happens to an execution.

use std::sync::Arc;

use soe_backends::{ExecutionId, Limits, Told, Usage, Value};

use super::BuiltinCall;
use crate::config::Registry;
use crate::llm::ToolRequest;
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
    /// A stored execution was taken up: its runs in flight are performed again. Changes nothing if that was done.
    Recover,
    /// A limit that the driver watches was exceeded.
    LimitExceeded {
        /// The limit's name in [`Limits`](soe_backends::Limits).
        limit: &'static str,
        /// What was exceeded, and by how much.
        message: String,
    },
    /// Whether a run may make a request to an LLM: the answer to [`Effect::Reserve`](super::Effect::Reserve).
    Granted {
        /// The run's number.
        run: u64,
        /// The request's number in the run.
        call: u32,
        /// Why not, if not.
        denied: Option<Denial>,
    },
    /// A custom node makes a request to an LLM, and the driver lets it.
    Asked {
        /// The run's number.
        run: u64,
        /// The request's number in the run.
        call: u32,
    },
    /// A custom node's request to an LLM was answered.
    Replied {
        /// The run's number.
        run: u64,
        /// The request's number in the run.
        call: u32,
        /// Tokens, if the endpoint reports them.
        usage: Option<Usage>,
    },
    /// A built-in tool is called: answered by [`Effect::Answer`](super::Effect::Answer).
    Builtin(Box<BuiltinCall>),
    /// The application goes back to an earlier version of the execution's workflows.
    Revert {
        /// The version's number.
        to: u64,
        /// The workflows of that version.
        registry: Arc<Registry>,
    },
    /// A message of a child.
    FromChild {
        /// The child.
        child: ExecutionId,
        /// What it tells.
        message: Arc<Told>,
    },
    /// The parent has dealt with the messages up to this number.
    Acknowledged {
        /// The number.
        number: u64,
    },
    /// An execution above this one has failed.
    Suspend,
    /// A failed or suspended execution goes on, under these limits if there are any.
    Resume {
        /// What its tree may use from now on.
        limits: Option<Arc<Limits>>,
        /// What the parent knows of it, if it is the parent that resumes it.
        parent: Option<Heard>,
    },
    /// What the last effects of an execution that takes no signals were to do is done: [`Effect::Descend`](super::Effect::Descend)
    /// has reached the children, and turns are stored. Of one that is still to be heard by its parent, it is said again after
    /// [`Input::Acknowledged`].
    Settled,
    /// Somebody cancels the execution.
    Cancel,
}

/// What a parent knows of a child that it has go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The last of its messages that was dealt with.
    pub received: u64,
    /// Whether the parent takes it for active, and so waits to hear that it isn't.
    pub waits: bool,
}

/// How an attempt of a run ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// A tool's.
    Tool(Result<Value, ToolFailure>),
    /// An LLM's answer to a run's last request, whose number is the attempt; or why there was none.
    Llm(Result<LlmAnswer, Arc<str>>),
    /// A tool's that an agent called.
    AgentTool {
        /// The call's number in the run.
        index: u32,
        /// What it returned.
        result: Result<Value, ToolFailure>,
    },
    /// The children of a child node are created, or why not.
    Spawned(Result<(), Arc<str>>),
    /// A custom node's: what it writes and emits, or the error that fails it.
    Node(Result<NodeOutput, Arc<str>>),
}

/// What an LLM answered, as far as it was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct LlmAnswer {
    /// The answer.
    pub content: AnswerContent,
    /// Tokens, if the endpoint reports them.
    pub usage: Option<Usage>,
    /// What the author of the workflow should look at.
    pub warnings: Vec<Arc<str>>,
}

/// What an LLM answered, as far as it was understood.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AnswerContent {
    /// Not what was asked for.
    Invalid {
        /// The reply, clipped.
        reply: Arc<str>,
        /// What is wrong with it, in words that an LLM can correct itself by.
        problem: Arc<str>,
    },
    /// The output.
    Output {
        /// The value.
        value: Value,
        /// The signals that it chose, where it may choose.
        signals: Vec<Arc<str>>,
    },
    /// An agent wants to call this tool.
    CallTool {
        /// The tool, as the LLM wrote it.
        name: Arc<str>,
    },
    /// An agent is done.
    Finish,
    /// The arguments of a tool, checked against its schema.
    Arguments(serde_json::Value),
    /// An agent calls tools natively; nothing of it is checked.
    ToolCalls {
        /// What it said besides.
        text: Arc<str>,
        /// The calls.
        calls: Vec<ToolRequest>,
    },
}

/// Why the limits of a tree don't allow something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit {limit} exceeded: {message}")]
pub struct Denial {
    /// The limit's name in [`Limits`](soe_backends::Limits).
    pub limit: &'static str,
    /// What was used up.
    pub message: String,
}

/// Why a tool failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolFailure {
    /// What went wrong, for people and for the context.
    pub message: Arc<str>,
    /// Whether another attempt may help.
    pub retryable: bool,
}
