//! Built-in tools: what they do to an execution. Each call is an event of its own, on the live state. A call that has
//! changed something is answered once: repeated, it gets the same answer.

mod calls;
mod context;
mod definitions;
mod rights;
mod workflows;

use std::sync::Arc;

use soe_backends::{Answer, ApplyError, EventKind, ExecutionChange, ExecutionId, History, Value};

use super::transaction::{Applied, Transaction};
use super::{Effect, ToolFailure};
use crate::config::{ConfigError, Node, NodeKind};
use crate::llm::Excerpt;
use crate::tools::builtin::{docs, works_on_definitions};

/// A call of a built-in tool.
#[derive(Clone, Debug)]
pub struct BuiltinCall {
    /// The execution whose run makes it; `None` for a run of this one.
    pub execution: Option<ExecutionId>,
    /// The run's number.
    pub run: u64,
    /// The call's number in the run, if an agent makes it.
    pub index: Option<u32>,
    /// The node that makes it.
    pub node: Arc<str>,
    /// The tool's name.
    pub tool: Arc<str>,
    /// What is to be done.
    pub request: BuiltinRequest,
}

/// What a built-in tool is to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BuiltinRequest {
    /// What the tool does with these arguments, which were checked against its schema.
    Arguments(serde_json::Value),
    /// Put these histories in the place of those that the fields have, if they have any.
    Copy {
        /// Field name to its new history.
        fields: Vec<(Arc<str>, History)>,
        /// What to answer then.
        answer: Value,
    },
    /// Nothing: the policy doesn't allow what would be done elsewhere. The text says why.
    Deny(String),
}

/// Why a call has no result.
enum Refused {
    /// It can't be done like this; the text says how.
    Failed(String),
    /// The policy doesn't allow it.
    Denied(String),
    /// A defect.
    Broken(ApplyError),
}

type Answered = Result<Value, Refused>;

impl From<ApplyError> for Refused {
    fn from(error: ApplyError) -> Self {
        Refused::Broken(error)
    }
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        Refused::Failed(format!("it is not valid:\n{}", clipped(&error.to_string())))
    }
}

/// A call, and the node that makes it as it was when its run was dispatched.
struct Caller<'c> {
    call: &'c BuiltinCall,
    node: Arc<Node>,
}

impl Transaction<'_> {
    pub(super) fn builtin(&mut self, call: &BuiltinCall) -> Applied {
        let answers = &self.state().answers;
        let kept = answers.get(call.execution.as_ref(), call.run, call.index).cloned();
        let result = match kept {
            Some(value) => Ok(value),
            None => self.answer(call)?,
        };
        self.effects.push(Effect::Answer { result });
        Ok(())
    }

    fn answer(&mut self, call: &BuiltinCall) -> Result<Result<Value, ToolFailure>, ApplyError> {
        let before = self.changed();
        let message = match self.perform_builtin(call) {
            Ok(value) => {
                if self.changed() > before || self.definitions.is_some() {
                    self.change(ExecutionChange::Answered(Arc::new(Answer {
                        execution: call.execution.clone(),
                        run: call.run,
                        index: call.index,
                        value: value.clone(),
                    })))?;
                }
                return Ok(Ok(value));
            }
            Err(Refused::Broken(error)) => return Err(error),
            Err(Refused::Failed(message)) => message,
            Err(Refused::Denied(reason)) => {
                self.event(EventKind::PolicyDenied {
                    node_name: call.node.clone(),
                    run: call.run,
                    tool_name: call.tool.clone(),
                    reason: reason.as_str().into(),
                });
                format!("the policy of this engine doesn't allow it: {reason}")
            }
        };
        Ok(Err(ToolFailure {
            message: message.into(),
            retryable: false,
        }))
    }

    fn perform_builtin(&mut self, call: &BuiltinCall) -> Answered {
        if !self.machine.specs.policy.allows(&call.tool) {
            return Err(Refused::Denied(format!("there is no tool '{}'", call.tool)));
        }
        // The run of another execution is known there.
        let caller = match call.execution {
            None => Some(self.caller(call)?),
            Some(_) => None,
        };
        match (&call.request, caller) {
            (BuiltinRequest::Copy { fields, answer }, _) => self.copy(fields).map(|()| answer.clone()),
            (BuiltinRequest::Deny(reason), _) => Err(Refused::Denied(reason.clone())),
            (BuiltinRequest::Arguments(arguments), Some(caller)) => self.with_arguments(&caller, arguments),
            (BuiltinRequest::Arguments(_), None) => Err(Refused::Failed(format!(
                "'{}' works on the execution that calls it",
                call.tool
            ))),
        }
    }

    fn with_arguments(&mut self, caller: &Caller<'_>, arguments: &serde_json::Value) -> Answered {
        match caller.call.tool.as_ref() {
            "soe_get_workflows" => self.get_workflows(arguments),
            "soe_inject_workflow" => self.inject_workflow(caller, arguments),
            "soe_inject_node" => self.inject_node(caller, arguments),
            "soe_remove_workflow" => self.remove_workflow(caller, arguments),
            "soe_remove_node" => self.remove_node(caller, arguments),
            "soe_add_signal" => self.add_signal(caller, arguments),
            "soe_get_available_tools" => Ok(self.available_tools()),
            "soe_get_context" => self.get_context(arguments),
            "soe_update_context" => self.update_context(arguments),
            "soe_explore_docs" => docs::explore(arguments).map(Value::from).map_err(Refused::Failed),
            "soe_call_tool" => self.call_by_name(caller, arguments),
            tool if works_on_definitions(tool) => self.definitions(caller, arguments),
            other => Err(Refused::Failed(format!("there is no built-in tool '{other}'"))),
        }
    }

    /// The run that makes a call, which must be waiting for its answer.
    fn caller<'c>(&self, call: &'c BuiltinCall) -> Result<Caller<'c>, Refused> {
        let run = self.state().runs.get(call.run).filter(|_| self.is_running());
        let over = || Refused::Failed("the run that makes this call is over".to_owned());
        let run = run.ok_or_else(over)?;
        let node = self.node_of(run)?;
        let waits = match (&node.kind, run.progress.dialogue(), call.index) {
            (NodeKind::Tool(tool), None, None) => tool.tool == call.tool,
            (NodeKind::Agent(_), Some(dialogue), Some(index)) => dialogue.open.contains_key(&index),
            _ => false,
        };
        match waits {
            true => Ok(Caller { call, node }),
            false => Err(over()),
        }
    }
}

/// The text argument `name`; empty if it isn't given.
fn text<'a>(arguments: &'a serde_json::Value, name: &str) -> &'a str {
    arguments[name].as_str().unwrap_or_default()
}

/// As [`text`], for one that may be left out or blank.
fn optional<'a>(arguments: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    Some(text(arguments, name)).filter(|text| !text.is_empty())
}

/// What there is, for somebody who named something else.
fn listed<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> String {
    const MOST: usize = 50;
    let names: Vec<&str> = names.map(AsRef::as_ref).collect();
    match names.len() {
        0 => "there are none".to_owned(),
        count if count > MOST => format!("there are: {}, and {} more", names[..MOST].join(", "), count - MOST),
        _ => format!("there are: {}", names.join(", ")),
    }
}

/// A text that an LLM gets to read.
fn clipped(text: &str) -> String {
    const MOST: usize = 8 * 1024;
    Excerpt::of(text, MOST).to_string()
}
