//! The agent node: decides, calls tools, decides again, until it gives its output.

use std::sync::Arc;

use soe_backends::{ApplyError, DialogueStep, Entry, EventKind, Excess, Question, Run, Stage, Value};

use super::super::transaction::{Applied, Transaction};
use super::super::{AnswerContent, Effect, ToolCall, ToolFailure};
use super::llm::text_of;
use crate::config::{AgentNode, Node, NodeKind};
use crate::llm::{Excerpt, ToolRequest, lenient_arguments};

/// The most bytes of a tool's result that an agent gets to read, and that its progress keeps.
const MAX_RESULT: usize = 256 * 1024;

/// The most bytes of arguments and results that events show.
const MAX_PREVIEW: usize = 1_000;

/// The most tools that are called in one turn; further calls are answered with an error.
const MAX_CALLS: usize = 64;

/// Longer names of calls are replaced by our own.
const MAX_CALL_ID: usize = 200;

impl Transaction<'_> {
    /// How an agent on this node is asked for a decision.
    pub(in super::super) fn turn_stage(&self, agent: &AgentNode) -> Stage {
        let spec = self.machine.specs.llms.get(agent.llm.llm.as_deref());
        match spec.is_some_and(|spec| spec.capabilities.tool_calls) {
            true => Stage::Turn,
            false => Stage::Router,
        }
    }

    /// A decision that is asked for again is asked for in the way that the LLM can now.
    pub(in super::super) fn same_protocol(&mut self, run: &Run, node: &Node) -> Applied {
        let NodeKind::Agent(agent) = &node.kind else {
            return Ok(());
        };
        let (stage, now) = (self.dialogue(run.number)?.question.stage, self.turn_stage(agent));
        match stage {
            Stage::Turn | Stage::Router if stage != now => {
                self.converse(run.number, DialogueStep::Question(now.into()))
            }
            _ => Ok(()),
        }
    }

    pub(in super::super) fn tools_loaded(&mut self, run: u64, node: &Node, agent: &AgentNode) {
        self.event(EventKind::AgentToolsLoaded {
            node_name: node.name.clone(),
            run,
            agent_tools: agent.tools.as_slice().into(),
        });
    }

    pub(super) fn agent_decided(
        &mut self,
        run: &Run,
        node: &Arc<Node>,
        agent: &AgentNode,
        content: AnswerContent,
    ) -> Applied {
        let last = self.dialogue(run.number)?.turns >= agent.max_turns;
        match content {
            AnswerContent::CallTool { .. } | AnswerContent::ToolCalls { .. } if last => {
                let allowed = agent.max_turns;
                let error = format!("it calls tools in its last turn, and 'max_turns' allows no more than {allowed}");
                self.give_up(run, node, error.into(), None)
            }
            AnswerContent::Finish => {
                self.converse(run.number, DialogueStep::Question(Stage::Response.into()))?;
                self.ask_next(run, node)
            }
            AnswerContent::CallTool { name } if self.has_tool(agent, &name) => {
                let question = Question {
                    stage: Stage::Parameter,
                    tool: Some(name),
                };
                self.converse(run.number, DialogueStep::Question(question))?;
                self.ask_next(run, node)
            }
            AnswerContent::CallTool { name } => {
                self.unknown_tool(run, node, agent, &name)?;
                self.next_turn(run, node, agent)
            }
            AnswerContent::Arguments(arguments) => {
                let tool = self.dialogue(run.number)?.question.tool.clone();
                let tool = tool.ok_or(ApplyError::Mismatch("arguments came for no tool"))?;
                let index = self.called(run, node, &tool, None, arguments.into(), false)?;
                self.call_tool(run, node, index)
            }
            AnswerContent::ToolCalls { text, calls } => self.native_calls(run, node, agent, text, calls),
            _ => Err(ApplyError::Mismatch("an agent was answered as something else")),
        }
    }

    fn has_tool(&self, agent: &AgentNode, name: &str) -> bool {
        agent.tools.iter().any(|tool| tool.as_ref() == name) && self.machine.specs.tools.contains(name)
    }

    /// What an agent is told that calls a tool which it doesn't have: those that it has.
    fn no_such_tool(&self, agent: &AgentNode, name: &str) -> String {
        let tools = agent.tools.iter().map(AsRef::as_ref);
        let tools: Vec<&str> = tools.filter(|tool| self.machine.specs.tools.contains(tool)).collect();
        match tools.as_slice() {
            [] => format!("there is no tool '{name}': this task has no tools"),
            tools => format!("there is no tool '{name}'; there are: {}", tools.join(", ")),
        }
    }

    fn unknown_tool(&mut self, run: &Run, node: &Arc<Node>, agent: &AgentNode, name: &str) -> Applied {
        let name = Excerpt::of(name, MAX_PREVIEW).to_string();
        self.event(EventKind::AgentToolNotFound {
            node_name: node.name.clone(),
            run: run.number,
            tool_name: name.as_str().into(),
        });
        let error: Arc<str> = self.no_such_tool(agent, &name).into();
        self.attempt_failed(run, node, error.clone(), None)?;
        self.add(run, node, Entry::SystemError { error })?;
        self.converse(run.number, DialogueStep::Failure)
    }

    /// Records a call. It is made by [`Transaction::call_tool`].
    fn called(
        &mut self,
        run: &Run,
        node: &Node,
        tool: &Arc<str>,
        id: Option<Arc<str>>,
        arguments: Value,
        refused: bool,
    ) -> Result<u32, ApplyError> {
        let dialogue = self.dialogue(run.number)?;
        let (index, turn) = (dialogue.tool_calls, dialogue.turns);
        self.event(EventKind::AgentToolCall {
            node_name: node.name.clone(),
            run: run.number,
            index,
            tool_name: tool.clone(),
            tool_args: Excerpt::of(&arguments.to_string(), MAX_PREVIEW).to_string().into(),
        });
        self.converse(
            run.number,
            DialogueStep::Entry(Entry::Called {
                index,
                turn,
                id,
                tool: tool.clone(),
                arguments,
                refused,
            }),
        )?;
        Ok(index)
    }

    /// Performs a call that was recorded.
    pub(in super::super) fn call_tool(&mut self, run: &Run, node: &Arc<Node>, wanted: u32) -> Applied {
        let found = self.dialogue(run.number)?.entries.iter().find_map(|entry| match entry {
            Entry::Called {
                index, tool, arguments, ..
            } if *index == wanted => Some((tool.clone(), arguments.to_json())),
            _ => None,
        });
        let (tool, arguments) = found.ok_or(ApplyError::Mismatch("a call of a tool is in flight that wasn't made"))?;
        let attempt = self.dialogue(run.number)?.open.get(&wanted).copied().unwrap_or(1);
        self.effects.push(Effect::CallTool(ToolCall {
            execution: self.target(),
            run: run.number,
            attempt,
            index: Some(wanted),
            node: node.clone(),
            tool,
            arguments,
        }));
        Ok(())
    }

    /// All calls of a turn: those that can be made run in parallel, the others are answered with an error.
    fn native_calls(
        &mut self,
        run: &Run,
        node: &Arc<Node>,
        agent: &AgentNode,
        text: Arc<str>,
        calls: Vec<ToolRequest>,
    ) -> Applied {
        if !text.is_empty() {
            let text = Excerpt::of(&text, MAX_RESULT).to_string().into();
            self.converse(run.number, DialogueStep::Entry(Entry::Said { text }))?;
        }
        let all = calls.len();
        for call in calls.into_iter().take(MAX_CALLS) {
            self.native_call(run, node, agent, call)?;
        }
        if all > MAX_CALLS {
            let error: Arc<str> = format!("{all} calls in one turn: only the first {MAX_CALLS} were made").into();
            self.attempt_failed(run, node, error.clone(), None)?;
            self.add(run, node, Entry::SystemError { error })?;
            self.converse(run.number, DialogueStep::Failure)?;
        }
        self.go_on_when_answered(run, node, agent)
    }

    fn native_call(&mut self, run: &Run, node: &Arc<Node>, agent: &AgentNode, call: ToolRequest) -> Applied {
        let name: Arc<str> = Excerpt::of(&call.name, MAX_PREVIEW).to_string().into();
        let id = self.call_id(run, &call.id)?;
        let spec = self.machine.specs.tools.get(&call.name).cloned();
        let arguments = match spec.filter(|_| self.has_tool(agent, &call.name)) {
            None => {
                self.event(EventKind::AgentToolNotFound {
                    node_name: node.name.clone(),
                    run: run.number,
                    tool_name: name.clone(),
                });
                Err(self.no_such_tool(agent, &name))
            }
            Some(spec) => lenient_arguments(&call.arguments, &spec).map(Value::from),
        };
        let limits = self.limits();
        let arguments = arguments.and_then(|value| match value.size_within(limits.value_bytes, Value::MAX_DEPTH) {
            Ok(_) => Ok(value),
            Err(Excess::Bytes) => Err(format!("the arguments have more than {} bytes", limits.value_bytes)),
            Err(Excess::Depth) => Err(format!("the arguments nest deeper than {} levels", Value::MAX_DEPTH)),
        });
        match arguments {
            Ok(arguments) => {
                let index = self.called(run, node, &name, Some(id), arguments, false)?;
                self.call_tool(run, node, index)
            }
            Err(problem) => {
                let written = Value::from(Excerpt::of(&call.arguments, MAX_PREVIEW).to_string());
                let index = self.called(run, node, &name, Some(id), written, true)?;
                self.call_failed(run, node, index, &name, problem.into())
            }
        }
    }

    /// The endpoint's name for a call, or one of our own where it gave none, a very long one, or the same again.
    fn call_id(&self, run: &Run, given: &str) -> Result<Arc<str>, ApplyError> {
        let dialogue = self.dialogue(run.number)?;
        let used = |id: &str| {
            let is = |entry: &Entry| matches!(entry, Entry::Called { id: Some(other), .. } if other.as_ref() == id);
            dialogue.entries.iter().any(is)
        };
        if !given.is_empty() && given.len() <= MAX_CALL_ID && !used(given) {
            return Ok(given.into());
        }
        let mut own = format!("call_{}", dialogue.tool_calls);
        while used(&own) {
            own.push('_');
        }
        Ok(own.into())
    }

    /// A tool that an agent called is done.
    pub(super) fn agent_tool_completed(
        &mut self,
        run: &Run,
        node: &Arc<Node>,
        index: u32,
        result: Result<Value, ToolFailure>,
    ) -> Applied {
        let NodeKind::Agent(agent) = &node.kind else {
            return Err(ApplyError::Mismatch("a run that is no agent called tools"));
        };
        let tool = self.dialogue(run.number)?.entries.iter().find_map(|entry| match entry {
            Entry::Called {
                index: called, tool, ..
            } if *called == index => Some(tool.clone()),
            _ => None,
        });
        let tool = tool.ok_or(ApplyError::Mismatch("a tool answered that wasn't called"))?;
        match result {
            Ok(value) => {
                let text = text_of(&value);
                self.event(EventKind::AgentToolResult {
                    node_name: node.name.clone(),
                    run: run.number,
                    index,
                    tool_name: tool.clone(),
                    result_preview: Excerpt::of(&text, MAX_PREVIEW).to_string().into(),
                });
                let content = match text.len() > MAX_RESULT {
                    true => Excerpt::of(&text, MAX_RESULT).to_string().into(),
                    false => text,
                };
                self.add(run, node, Entry::Answered { index, tool, content })?;
            }
            Err(failure) => {
                let attempt = self.dialogue(run.number)?.open.get(&index).copied().unwrap_or(1);
                let spec = self.machine.specs.tools.get(&tool);
                let attempts = spec.map_or(1, |spec| spec.max_retries.saturating_add(1));
                if failure.retryable && attempt < attempts {
                    let message = format!("tool '{tool}': {}", failure.message).into();
                    self.attempt_failed(run, node, message, Some(attempt.saturating_add(1)))?;
                    self.converse(run.number, DialogueStep::Retried { index })?;
                    return self.call_tool(run, node, index);
                }
                self.call_failed(run, node, index, &tool, failure.message)?;
            }
        }
        self.go_on_when_answered(run, node, agent)
    }

    fn call_failed(&mut self, run: &Run, node: &Arc<Node>, index: u32, tool: &Arc<str>, error: Arc<str>) -> Applied {
        let message = format!("tool '{tool}': {error}").into();
        self.attempt_failed(run, node, message, None)?;
        let error = Excerpt::of(&error, MAX_RESULT).to_string().into();
        let tool = tool.clone();
        self.add(run, node, Entry::Failed { index, tool, error })?;
        self.converse(run.number, DialogueStep::Failure)
    }

    fn go_on_when_answered(&mut self, run: &Run, node: &Arc<Node>, agent: &AgentNode) -> Applied {
        match self.dialogue(run.number)?.open.is_empty() {
            true => self.next_turn(run, node, agent),
            false => Ok(()),
        }
    }

    /// Asks for the next decision, unless there were too many failures or turns.
    fn next_turn(&mut self, run: &Run, node: &Arc<Node>, agent: &AgentNode) -> Applied {
        let dialogue = self.dialogue(run.number)?;
        let (failures, turns) = (dialogue.failures, dialogue.turns);
        if failures > agent.llm.retries {
            let last = dialogue.entries.iter().filter_map(|entry| match entry {
                Entry::Failed { tool, error, .. } => Some(format!("tool '{tool}': {error}")),
                Entry::SystemError { error } => Some(error.to_string()),
                _ => None,
            });
            let last = last.last().unwrap_or_default();
            let last = Excerpt::of(&last, MAX_PREVIEW);
            let error = format!(
                "{failures} calls of tools failed, {} may; the last: {last}",
                agent.llm.retries
            );
            return self.give_up(run, node, error.into(), None);
        }
        if turns >= agent.max_turns {
            let error = format!("it didn't finish in {turns} turns, and 'max_turns' allows no more");
            return self.give_up(run, node, error.into(), None);
        }
        let allowed = self.limits().value_bytes;
        if dialogue.bytes > allowed {
            let bytes = dialogue.bytes;
            let error =
                format!("limit value_bytes exceeded: what it has done has {bytes} bytes, {allowed} are allowed");
            return self.give_up(run, node, error.into(), Some("value_bytes"));
        }
        let stage = self.turn_stage(agent);
        self.converse(run.number, DialogueStep::Question(stage.into()))?;
        self.ask_next(run, node)
    }

    /// Adds an entry, to the conversation history too where the agent has an identity.
    fn add(&mut self, run: &Run, node: &Node, entry: Entry) -> Applied {
        let number = self.dialogue(run.number)?.entries.len();
        let turn = match &entry {
            Entry::Answered { tool, content, .. } => Some(("tool", Some(tool.clone()), content.clone())),
            Entry::Failed { tool, error, .. } => Some(("tool_error", Some(tool.clone()), error.clone())),
            Entry::SystemError { error } => Some(("system_error", None, error.clone())),
            _ => None,
        };
        self.converse(run.number, DialogueStep::Entry(entry))?;
        let (NodeKind::Agent(agent), Some((role, tool, content))) = (&node.kind, turn) else {
            return Ok(());
        };
        if agent.llm.identity.is_some() {
            let context = self.snapshot(run)?;
            if self.identity(node, &agent.llm, &context, false).is_some() {
                self.keep_turn(run, number, role, tool.as_ref(), content);
            }
        }
        Ok(())
    }
}
