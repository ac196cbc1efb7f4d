//! What happens to an execution tree.

use std::sync::Arc;

use soe_backends::{Definitions, Limits, Posted, Usage, Value};

use super::BuiltinCall;
use crate::config::Registry;
use crate::llm::ToolRequest;
use crate::nodes::NodeOutput;

/// One thing that happens to an execution tree. Executions are named by their numbers:
/// [`TreeState::number_of`](soe_backends::TreeState::number_of).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// Signals from outside.
    Signal {
        /// The execution that they are for.
        execution: u64,
        /// The batch.
        signals: Vec<Arc<str>>,
    },
    /// An attempt of a run is over. One that is not in flight any more is discarded.
    Completed {
        /// The execution.
        execution: u64,
        /// The run's number.
        run: u64,
        /// The attempt, from 1.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
    },
    /// The driver had its turn: go on with the work list.
    Continue,
    /// The next child of a run is due: see [`Effect::Wait`](super::Effect::Wait).
    Due {
        /// The execution.
        execution: u64,
        /// The run's number.
        run: u64,
    },
    /// A stored tree was taken up: its runs in flight are performed again. Changes nothing if that was done.
    Recover,
    /// A limit that the driver watches was exceeded.
    LimitExceeded {
        /// The limit's name in [`Limits`](soe_backends::Limits).
        limit: &'static str,
        /// What was exceeded, and by how much.
        message: String,
    },
    /// A custom node makes a request to an LLM. It is refused if the limits of the tree don't allow it.
    Asked {
        /// The execution.
        execution: u64,
        /// The run's number.
        run: u64,
        /// The request's number in the run.
        call: u32,
    },
    /// A custom node's request to an LLM was answered.
    Replied {
        /// The execution.
        execution: u64,
        /// The run's number.
        run: u64,
        /// The request's number in the run.
        call: u32,
        /// Tokens, if the endpoint reports them.
        usage: Option<Usage>,
    },
    /// A built-in tool is called: answered by [`Effect::Answer`](super::Effect::Answer).
    Builtin {
        /// The execution that the call is about.
        execution: u64,
        /// The call.
        call: Box<BuiltinCall>,
    },
    /// The application goes back to an earlier version of an execution's workflows.
    Revert {
        /// The execution.
        execution: u64,
        /// The version's number.
        to: u64,
        /// The workflows of that version.
        registry: Arc<Registry>,
    },
    /// Identities and context schema are replaced from outside.
    Define(Arc<Definitions>),
    /// What has failed goes on, under these limits if there are any.
    Resume {
        /// The execution that carries the end.
        execution: u64,
        /// What the tree may use from now on.
        limits: Option<Arc<Limits>>,
    },
    /// Somebody cancels an execution and all below it.
    Cancel {
        /// The execution.
        execution: u64,
    },
    /// A message of the inbox: taken exactly once, also if what it asks for is refused.
    Message(Posted),
    /// Stores of their own were given what they were owed: forget it, if there is something.
    Settle,
}

impl Input {
    /// The execution of an input that has to wait until that one has no part in an event that isn't over.
    pub(super) fn waits_for_chain(&self) -> Option<u64> {
        match self {
            Input::Completed { execution, .. }
            | Input::Due { execution, .. }
            | Input::Asked { execution, .. }
            | Input::Replied { execution, .. }
            | Input::Builtin { execution, .. }
            | Input::Revert { execution, .. } => Some(*execution),
            _ => None,
        }
    }
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
