//! Telemetry: what happened, step by step.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::state::{Batch, Status};
use crate::{EditedBy, ExecutionId, RegistryId, Stage, Timestamp, Usage, WorkflowEdit};

/// One thing that happened in an execution of a tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place among the events of its tree, from 0 without gaps.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// The execution.
    pub execution: ExecutionId,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened. Written as `{"event": "node_execution", "data": {...}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// An execution was created.
    OrchestrationStart {
        /// The workflow that it runs.
        workflow_name: Arc<str>,
    },
    /// The execution takes workflows, identities and context schema of another execution.
    ConfigInheritanceStart {
        /// The execution that they are copied from.
        source_execution_id: ExecutionId,
    },
    /// The execution takes the histories of another execution's fields.
    ContextInheritanceStart {
        /// The execution that they are copied from.
        source_execution_id: ExecutionId,
    },
    /// Values of the initial context were appended to histories that came from another execution.
    ContextMerge {
        /// The fields.
        fields: Arc<[Arc<str>]>,
    },
    /// The execution goes on with a copy of another's state.
    ExecutionForked {
        /// The execution that it is a fork of.
        source_execution_id: ExecutionId,
        /// The version of that execution.
        version: u64,
    },
    /// A batch of signals was taken up.
    SignalsBroadcast {
        /// The batch.
        signals: Batch,
    },
    /// A node runs: a router was evaluated, or a run was dispatched.
    NodeExecution {
        /// The node.
        node_name: Arc<str>,
        /// Its type.
        node_type: Arc<str>,
        /// The run's number; a router has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<u64>,
    },
    /// A tool is called.
    ToolCall {
        /// The node.
        node_name: Arc<str>,
        /// The tool.
        tool_name: Arc<str>,
        /// The run's number.
        run: u64,
    },
    /// An LLM is asked.
    LlmCall {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// The request's number in the run, from 1.
        call: u32,
        /// What is asked for.
        stage: Stage,
    },
    /// An LLM answered, or failed to.
    LlmReply {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// The request's number in the run.
        call: u32,
        /// Tokens, if the endpoint reports them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// An agent begins, with these tools.
    AgentToolsLoaded {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// The tools that it may call.
        agent_tools: Arc<[Arc<str>]>,
    },
    /// An agent calls a tool.
    AgentToolCall {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// The call's number in the run, from 0.
        index: u32,
        /// The tool.
        tool_name: Arc<str>,
        /// The arguments as JSON, clipped.
        tool_args: Arc<str>,
    },
    /// A tool answered an agent. A tool that failed is a `node_error`.
    AgentToolResult {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// The call's number in the run.
        index: u32,
        /// The tool.
        tool_name: Arc<str>,
        /// The result as text, clipped.
        result_preview: Arc<str>,
    },
    /// An agent wanted to call a tool that it doesn't have.
    AgentToolNotFound {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// What it wanted to call.
        tool_name: Arc<str>,
    },
    /// An attempt failed.
    NodeError {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// What went wrong.
        error: Arc<str>,
        /// The attempt that comes next, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_attempt: Option<u32>,
    },
    /// A run is over.
    NodeFinished {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// From dispatch to completion, in microseconds.
        duration_us: u64,
        /// The tokens that its LLM requests took, if it made any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tokens: Option<u64>,
    },
    /// A value was appended to a field.
    ContextUpdated {
        /// The field.
        field: Arc<str>,
        /// The number of values in its history now.
        length: u64,
    },
    /// A template of a node couldn't be evaluated, or something else that the author should look at.
    ContextWarning {
        /// The node.
        node_name: Arc<str>,
        /// What is wrong, and where.
        message: Arc<str>,
    },
    /// The execution's workflows were changed, by one of its own nodes or by the application.
    WorkflowChanged(Box<WorkflowChange>),
    /// A node changed what the executions of its tree share.
    DefinitionChanged {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// The built-in tool that did it.
        tool_name: Arc<str>,
        /// The identity or the context field.
        name: Arc<str>,
    },
    /// The engine's policy denied a node something.
    PolicyDenied {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// The built-in tool that it called.
        tool_name: Arc<str>,
        /// What is not allowed.
        reason: Arc<str>,
    },
    /// A child execution is started.
    ChildStarted {
        /// The node.
        node_name: Arc<str>,
        /// The run's number.
        run: u64,
        /// The child.
        child: ExecutionId,
    },
    /// Signals are passed on to the parent.
    SignalsToParent {
        /// The signals.
        signals: Batch,
    },
    /// A child has failed, or was cancelled.
    ChildFailed {
        /// The child.
        child: ExecutionId,
        /// Why.
        error: Arc<str>,
    },
    /// A message of the inbox was taken.
    MessageTaken {
        /// Its id.
        message: Arc<str>,
        /// Why it was refused; it changed nothing then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Arc<str>>,
    },
    /// The execution had failed or was suspended, and goes on.
    ExecutionResumed {
        /// The runs that run again.
        runs: u64,
    },
    /// A completion came for an execution that takes none any more, or for a run that is over.
    CompletionDiscarded {
        /// The run's number.
        run: u64,
        /// The execution's status.
        status: Status,
    },
    /// Nothing is in flight any more.
    ExecutionRested {},
    /// The execution failed.
    ExecutionFailed {
        /// Why.
        error: Arc<str>,
    },
    /// The execution was cancelled.
    ExecutionCancelled {
        /// The number of runs that were in flight.
        aborted_runs: u64,
    },
}

/// A change of an execution's workflows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowChange {
    /// The number of the version that it made.
    pub version: u64,
    /// What was done.
    #[serde(flatten)]
    pub edit: WorkflowEdit,
    /// The call that did it; `None` if the application did.
    #[serde(flatten)]
    pub by: Option<EditedBy>,
    /// The registry from then on.
    pub registry: RegistryId,
    /// The registry before.
    pub replaces: RegistryId,
}

impl EventKind {
    /// The event's name as it is stored, `node_execution` for example.
    pub fn name(&self) -> &'static str {
        match self {
            EventKind::OrchestrationStart { .. } => "orchestration_start",
            EventKind::ConfigInheritanceStart { .. } => "config_inheritance_start",
            EventKind::ContextInheritanceStart { .. } => "context_inheritance_start",
            EventKind::ContextMerge { .. } => "context_merge",
            EventKind::ExecutionForked { .. } => "execution_forked",
            EventKind::SignalsBroadcast { .. } => "signals_broadcast",
            EventKind::NodeExecution { .. } => "node_execution",
            EventKind::ToolCall { .. } => "tool_call",
            EventKind::LlmCall { .. } => "llm_call",
            EventKind::LlmReply { .. } => "llm_reply",
            EventKind::AgentToolsLoaded { .. } => "agent_tools_loaded",
            EventKind::AgentToolCall { .. } => "agent_tool_call",
            EventKind::AgentToolResult { .. } => "agent_tool_result",
            EventKind::AgentToolNotFound { .. } => "agent_tool_not_found",
            EventKind::NodeError { .. } => "node_error",
            EventKind::NodeFinished { .. } => "node_finished",
            EventKind::ContextUpdated { .. } => "context_updated",
            EventKind::ContextWarning { .. } => "context_warning",
            EventKind::WorkflowChanged(_) => "workflow_changed",
            EventKind::DefinitionChanged { .. } => "definition_changed",
            EventKind::PolicyDenied { .. } => "policy_denied",
            EventKind::ChildStarted { .. } => "child_started",
            EventKind::SignalsToParent { .. } => "signals_to_parent",
            EventKind::ChildFailed { .. } => "child_failed",
            EventKind::MessageTaken { .. } => "message_taken",
            EventKind::ExecutionResumed { .. } => "execution_resumed",
            EventKind::CompletionDiscarded { .. } => "completion_discarded",
            EventKind::ExecutionRested {} => "execution_rested",
            EventKind::ExecutionFailed { .. } => "execution_failed",
            EventKind::ExecutionCancelled { .. } => "execution_cancelled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_small_and_named_as_it_is_written() {
        assert!(
            size_of::<Event>() <= 96,
            "telemetry in memory counts: {} bytes",
            size_of::<Event>()
        );
        let event = Event {
            seq: 3,
            time: Timestamp::from_micros(0),
            execution: ExecutionId::new("x").unwrap(),
            kind: EventKind::ExecutionRested {},
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["event"], event.kind.name());
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }
    #[test]
    fn a_change_of_workflows_survives_its_json() {
        let change = |edit: WorkflowEdit, by: Option<EditedBy>| Event {
            seq: 7,
            time: Timestamp::from_micros(1),
            execution: ExecutionId::new("x").unwrap(),
            kind: EventKind::WorkflowChanged(Box::new(WorkflowChange {
                version: 2,
                edit,
                by,
                registry: RegistryId::from_digest([1; 32]),
                replaces: RegistryId::from_digest([2; 32]),
            })),
        };
        let by = EditedBy {
            node_name: "N".into(),
            run: 3,
            tool_name: "soe_inject_node".into(),
        };
        let edit = WorkflowEdit::Changed {
            workflow_name: "flow".into(),
            changed_node: None,
        };
        for (event, what) in [
            (change(edit, Some(by)), "changed"),
            (change(WorkflowEdit::Reverted { to: 1 }, None), "reverted"),
        ] {
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&json["event"], &json["data"]["what"]),
                (&"workflow_changed".into(), &what.into())
            );
        }
    }
}
