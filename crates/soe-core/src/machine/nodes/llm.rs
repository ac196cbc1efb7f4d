//! What llm and agent nodes have in common: asking, invalid replies, the output, failing.

use std::sync::Arc;

use soe_backends::{
    ApplyError, Awaits, Context, Dialogue, DialogueStep, EventKind, ExecutionChange, Failure, Rejected, Run, RunId,
    Stage, Turn, Value,
};

use super::super::transaction::{Applied, Transaction};
use super::super::{AnswerContent, Denial, Effect, LlmAnswer, LlmCall};
use crate::config::{AgentNode, LlmNode, Node, NodeKind};
use crate::llm::{Excerpt, prompt};
use crate::template::{Scope, Template};

/// The most bytes of an error that events and failures show.
const MAX_ERROR: usize = 16 * 1024;

/// What a node that asks an LLM is configured with; the second part only for an agent.
pub(super) fn asking(node: &Node) -> Option<(&LlmNode, Option<&AgentNode>)> {
    match &node.kind {
        NodeKind::Llm(llm) => Some((llm, None)),
        NodeKind::Agent(agent) => Some((&agent.llm, Some(agent))),
        _ => None,
    }
}

impl Transaction<'_> {
    pub(in super::super) fn dialogue(&self, run: u64) -> Result<&Dialogue, ApplyError> {
        let run = self.state().runs.get(run);
        run.and_then(|run| run.progress.dialogue())
            .ok_or(ApplyError::Mismatch("a run that asks an LLM has no dialogue"))
    }

    pub(in super::super) fn converse(&mut self, run: u64, step: DialogueStep) -> Applied {
        self.change(ExecutionChange::Dialogue { run, step })
    }

    /// A dialogue that begins. Where there is a conversation history, it knows which turns are none of its business.
    pub(in super::super) fn new_dialogue(&self, stage: Stage, llm: &LlmNode) -> Dialogue {
        let dialogue = Dialogue::new(stage);
        if llm.identity.is_none() {
            return dialogue;
        }
        let state = self.state();
        let unseen_from = self.first.get(&self.here).copied().unwrap_or(state.next_run);
        let talks = |run: &Arc<Run>| Some((run.number, run.progress.dialogue()?.entries.len()));
        let earlier = state.runs.iter().take_while(|(number, _)| *number < unseen_from);
        Dialogue {
            unseen_from,
            unseen: earlier.filter_map(|(_, run)| talks(run)).collect(),
            ..dialogue
        }
    }

    /// A request leaves, if the limits of the tree allow it; it counts from here on. Otherwise the run waits for nothing:
    /// [`Transaction::perform_llm`] ends it.
    pub(in super::super) fn ask(&mut self, run: u64, node: &Node) -> Applied {
        if self.denied().is_some() {
            return self.converse(run, DialogueStep::Waits);
        }
        self.converse(run, DialogueStep::Asked)?;
        let dialogue = self.dialogue(run)?;
        let (call, stage) = (dialogue.calls, dialogue.question.stage);
        self.event(EventKind::LlmCall {
            node_name: node.name.clone(),
            run,
            call,
            stage,
        });
        Ok(())
    }

    /// Why the limits of the tree don't allow another request to an LLM; `None` if they do.
    pub(super) fn denied(&self) -> Option<Denial> {
        let (limits, used) = (self.limits(), self.machine.state.used);
        if let Some(allowed) = limits.llm_calls.filter(|allowed| used.llm_calls >= *allowed) {
            return Some(Denial {
                limit: "llm_calls",
                message: format!("all {allowed} requests to LLMs were made"),
            });
        }
        let allowed = limits.tokens.filter(|allowed| used.tokens >= *allowed)?;
        Some(Denial {
            limit: "tokens",
            message: format!("{} tokens were used, {allowed} are allowed", used.tokens),
        })
    }

    /// Makes the request that was asked last; one that isn't allowed ends the run. The first request leaves the warnings of the
    /// node's templates.
    pub(in super::super) fn perform_llm(&mut self, number: u64, node: &Arc<Node>, context: &Arc<Context>) -> Applied {
        let (llm, _) = asking(node).ok_or(ApplyError::Mismatch("a run asks that is of another type"))?;
        let run = self.state().runs.get(number).cloned();
        let run = run.ok_or(ApplyError::Mismatch("a run asks that is not in flight"))?;
        let dialogue = self.dialogue(number)?;
        let first = dialogue.calls <= 1 && dialogue.rejected.is_empty();
        if dialogue.awaits == Awaits::Grant {
            return match self.denied() {
                Some(denial) => self.give_up(&run, node, denial.to_string().into(), Some(denial.limit)),
                // Something else was denied the last time.
                None => {
                    self.ask(number, node)?;
                    self.perform_llm(number, node, context)
                }
            };
        }
        if first {
            for warning in prompt::missing_fields(context, llm.prompt.needed_fields()) {
                self.warn(&node.name, warning);
            }
        }
        let prompt = match render(&llm.prompt, context) {
            Ok(prompt) => prompt,
            Err(error) => {
                if first {
                    self.warn(&node.name, format!("the prompt is sent unrendered: {error}"));
                }
                llm.prompt.source().into()
            }
        };
        let identity = self.identity(node, llm, context, first);
        self.effects.push(Effect::CallLlm(LlmCall {
            execution: self.target(),
            run,
            node: node.clone(),
            prompt,
            identity,
            context: context.clone(),
            definitions: self.machine.state.definitions.clone(),
        }));
        Ok(())
    }

    /// Asks again, or the next thing, on the context that the run has read from its beginning.
    pub(in super::super) fn ask_next(&mut self, run: &Run, node: &Arc<Node>) -> Applied {
        self.ask(run.number, node)?;
        let context = self.snapshot(run)?;
        self.perform_llm(run.number, node, &context)
    }

    pub(in super::super) fn snapshot(&self, run: &Run) -> Result<Arc<Context>, ApplyError> {
        let snapshot = self.state().snapshots.get(run.snapshot).cloned();
        snapshot.ok_or(ApplyError::Mismatch("a run in flight has lost its snapshot"))
    }

    pub(super) fn llm_answered(&mut self, run: &Run, node: &Arc<Node>, answer: Result<LlmAnswer, Arc<str>>) -> Applied {
        let usage = answer.as_ref().ok().and_then(|answer| answer.usage);
        self.converse(run.number, DialogueStep::Replied { usage })?;
        self.event(EventKind::LlmReply {
            node_name: node.name.clone(),
            run: run.number,
            call: self.dialogue(run.number)?.calls,
            usage,
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.change(ExecutionChange::Error)?;
                return self.give_up(run, node, error, None);
            }
        };
        for warning in answer.warnings {
            self.warn(&node.name, warning);
        }
        match (answer.content, &node.kind) {
            (AnswerContent::Invalid { reply, problem }, _) => self.rejected(run, node, Rejected { reply, problem }),
            (AnswerContent::Output { value, signals }, _) => self.output(run, node, value, signals),
            (content, NodeKind::Agent(agent)) => self.agent_decided(run, node, agent, content),
            _ => Err(ApplyError::Mismatch("an llm node was answered as an agent")),
        }
    }

    /// An invalid reply: asks again, with what is wrong with it, as often as the node allows.
    fn rejected(&mut self, run: &Run, node: &Arc<Node>, rejected: Rejected) -> Applied {
        let retries = asking(node).map_or(0, |(llm, _)| llm.retries);
        let attempts = u32::try_from(self.dialogue(run.number)?.rejected.len() + 1).unwrap_or(u32::MAX);
        let again = (attempts <= retries).then(|| attempts.saturating_add(1));
        let error: Arc<str> = format!("the reply is not valid: {}", rejected.problem).into();
        if again.is_none() {
            let error = format!("no valid reply in {attempts} attempts; the last: {}", rejected.problem).into();
            self.change(ExecutionChange::Error)?;
            return self.give_up(run, node, error, None);
        }
        self.attempt_failed(run, node, error, again)?;
        self.converse(run.number, DialogueStep::Rejected(rejected))?;
        self.ask_next(run, node)
    }

    /// Counts an attempt that has failed.
    pub(super) fn attempt_failed(&mut self, run: &Run, node: &Node, error: Arc<str>, again: Option<u32>) -> Applied {
        self.change(ExecutionChange::Error)?;
        self.node_error(run, node, error, again);
        Ok(())
    }

    fn node_error(&mut self, run: &Run, node: &Node, error: Arc<str>, again: Option<u32>) {
        let error = Excerpt::of(&error, MAX_ERROR).clipped(&error);
        self.event(EventKind::NodeError {
            node_name: node.name.clone(),
            run: run.number,
            error,
            retry_attempt: again,
        });
    }

    /// Ends the run with its failure signal; without one, the execution fails.
    pub(super) fn give_up(
        &mut self,
        run: &Run,
        node: &Arc<Node>,
        error: Arc<str>,
        limit: Option<&'static str>,
    ) -> Applied {
        self.node_error(run, node, error.clone(), None);
        let signal = asking(node).and_then(|(llm, _)| llm.failure_signal.clone());
        match signal {
            Some(signal) => {
                self.finish_with(run, node, Vec::new())?;
                self.emit([signal].into())
            }
            // The run stays in flight, so that resuming the execution runs it again.
            None => self.fail(Failure {
                message: Excerpt::of(&error, MAX_ERROR).to_string(),
                node: Some(node.name.clone()),
                limit: limit.map(Arc::from),
            }),
        }
    }

    fn output(&mut self, run: &Run, node: &Arc<Node>, value: Value, chosen: Vec<Arc<str>>) -> Applied {
        let Some((llm, agent)) = asking(node) else {
            return Err(ApplyError::Mismatch("an output came from a run of another type"));
        };
        // Before the run is over, since its snapshot goes with it.
        if agent.is_none() {
            self.keep_exchange(run, node, llm, &value)?;
        }
        let written = llm.output_field.iter().map(|field| (field.clone(), value.clone()));
        if !self.finish_with(run, node, written.collect())? {
            self.turns.clear();
            return Ok(());
        }
        let signals = match node.lets_llm_choose() {
            true => chosen.into(),
            false => self.emissions(node, None),
        };
        self.emit(signals)
    }

    /// Keeps question and answer in the conversation history, for a node with an identity.
    fn keep_exchange(&mut self, run: &Run, node: &Node, llm: &LlmNode, value: &Value) -> Applied {
        if llm.identity.is_none() {
            return Ok(());
        }
        let context = self.snapshot(run)?;
        if self.identity(node, llm, &context, false).is_none() {
            return Ok(());
        }
        let prompt = render(&llm.prompt, &context).unwrap_or_else(|_| llm.prompt.source().into());
        self.keep_turn(run, 0, "user", None, prompt);
        self.keep_turn(run, 1, "assistant", None, text_of(value));
        Ok(())
    }

    /// Appends a turn to the conversation history, by its number within the run.
    pub(super) fn keep_turn(
        &mut self,
        run: &Run,
        number: usize,
        role: &str,
        tool: Option<&Arc<str>>,
        content: Arc<str>,
    ) {
        let id = RunId::new(self.state().id.clone(), run.number);
        self.turns.push(Turn {
            role: role.into(),
            content,
            tool_name: tool.cloned(),
            key: Some(format!("{id}/{number}").into()),
        });
    }

    /// The node's identity; `None` if it has none, or its template gives no name.
    pub(super) fn identity(
        &mut self,
        node: &Node,
        llm: &LlmNode,
        context: &Arc<Context>,
        warn: bool,
    ) -> Option<Arc<str>> {
        match render(llm.identity.as_ref()?, context) {
            Ok(identity) => Some(identity).filter(|name| !name.trim().is_empty()),
            Err(error) => {
                if warn {
                    self.warn(
                        &node.name,
                        format!("there is no history, the identity can't be rendered: {error}"),
                    );
                }
                None
            }
        }
    }
}

fn render(template: &Template, context: &Arc<Context>) -> Result<Arc<str>, crate::template::TemplateError> {
    template.render(&Scope::shared(context.clone())).map(Arc::from)
}

/// A value as an LLM reads it: text as it is, anything else as JSON.
pub(super) fn text_of(value: &Value) -> Arc<str> {
    match value {
        Value::Text(text) => text.clone(),
        other => other.to_string().into(),
    }
}
