//! From a run's dialogue to the request that is sent, and from a reply to what it means. Pure: what has to be read from
//! stores comes in as [`Materials`].

use std::collections::HashMap;
use std::sync::Arc;

use soe_backends::{Entry, ExecutionId, RunId, Stage, Turn};

use super::history::{entry_text, history_text, written_by};
use super::prompt::{AgentSituation, Rejected, context_text, request_text, router_instructions};
use super::tool_text::tool_signatures;
use super::{Excerpt, LlmReply, LlmRequest, LlmSpec, Message, Parsed, ReplyFormat, ToolOffer, ToolRequest};
use crate::config::{Condition, FieldSchema, LlmNode, Node, NodeKind};
use crate::machine::{AnswerContent, LlmCall};
use crate::tools::{ToolSpec, ToolSpecs};

/// The most bytes of an invalid reply that are kept, to be shown to the LLM again.
const MAX_REJECTED: usize = 16 * 1024;

/// What the executions of a tree share, as far as a request needs it.
#[derive(Clone, Debug, Default)]
pub struct Materials {
    /// The prompt of the node's identity, if one of that name is defined.
    pub system: Option<Arc<str>>,
    /// The conversation history, for a node with an identity.
    pub turns: Vec<Turn>,
    /// The schema of the node's output field, if there is one.
    pub schema: Option<FieldSchema>,
}

/// A request, and how to read the reply: all of an llm node's or agent's call but the call itself.
#[derive(Debug)]
pub struct Asked {
    request: LlmRequest,
    format: ReplyFormat,
    /// Whether the reply may call tools.
    native: bool,
}

/// What a call is about.
struct Subject<'a> {
    call: &'a LlmCall,
    llm: &'a LlmNode,
    /// The agent's tools, as far as there are such.
    tools: Vec<Arc<ToolSpec>>,
    materials: &'a Materials,
    tell_schema: bool,
}

impl Asked {
    /// The request of `call`, to an LLM that can do what `spec` says. `None` if the run is none that asks.
    pub fn new(
        execution: &ExecutionId,
        call: &LlmCall,
        spec: LlmSpec,
        tools: &ToolSpecs,
        materials: &Materials,
    ) -> Option<Self> {
        let dialogue = call.run.progress.dialogue()?;
        let (llm, agent) = match &call.node.kind {
            NodeKind::Llm(llm) => (llm, None),
            NodeKind::Agent(agent) => (&agent.llm, Some(agent)),
            _ => return None,
        };
        let listed = agent.map_or(&[][..], |agent| &agent.tools);
        let subject = Subject {
            call,
            llm,
            tools: listed.iter().filter_map(|name| tools.get(name).cloned()).collect(),
            materials,
            tell_schema: !spec.capabilities.structured_output,
        };
        let stage = dialogue.question.stage;
        let format = match stage {
            Stage::Router => ReplyFormat::router(),
            Stage::Parameter => ReplyFormat::arguments(tools.get(dialogue.question.tool.as_ref()?)?.clone()),
            _ => ReplyFormat::output(
                llm.output_field.as_ref(),
                materials.schema.as_ref(),
                &choices(&call.node),
            ),
        };
        let run = RunId::new(execution.clone(), call.run.number);
        let messages = subject.messages(&run, stage, &format)?;
        let native = stage == Stage::Turn;
        let offers = subject.tools.iter().filter(|_| native).map(offer).collect();
        let request = LlmRequest {
            messages,
            schema: Some(format.schema().clone()),
            tools: offers,
            config: call.node.config.clone(),
            stage,
            key: format!("{run}/{}", dialogue.calls),
            ..LlmRequest::new("").by(call.node.name.clone(), stage)
        };
        Some(Self {
            request,
            format,
            native,
        })
    }

    /// The request.
    pub fn request(&self) -> &LlmRequest {
        &self.request
    }

    /// What a reply means.
    pub fn understand(&self, reply: LlmReply) -> AnswerContent {
        if self.native && !reply.tool_calls.is_empty() {
            return AnswerContent::ToolCalls {
                text: reply.text.into(),
                calls: reply.tool_calls,
            };
        }
        match self.format.parse(&reply.text) {
            Ok(Parsed::Output { value, signals }) => AnswerContent::Output { value, signals },
            Ok(Parsed::CallTool { name }) => AnswerContent::CallTool { name },
            Ok(Parsed::Finish) => AnswerContent::Finish,
            Ok(Parsed::Arguments(arguments)) => AnswerContent::Arguments(arguments),
            Err(invalid) => AnswerContent::Invalid {
                reply: Excerpt::of(&reply.text, MAX_REJECTED).to_string().into(),
                problem: invalid.to_string().into(),
            },
        }
    }
}

impl Subject<'_> {
    fn messages(&self, run: &RunId, stage: Stage, format: &ReplyFormat) -> Option<Vec<Message>> {
        let dialogue = self.call.run.progress.dialogue()?;
        let context = context_text(&self.call.context, self.llm.prompt.context_fields());
        let (task, history) = (self.call.prompt.as_ref(), self.history(run, stage != Stage::Turn));
        let (signatures, instructions);
        let fields: Vec<(&str, &str)> = match stage {
            Stage::Router => {
                signatures = tool_signatures(&self.tools);
                instructions = router_instructions(self.situation());
                vec![
                    ("instructions", instructions),
                    ("task_description", task),
                    ("context", &context),
                    ("available_tools", &signatures),
                    ("conversation_history", &history),
                ]
            }
            Stage::Parameter => vec![
                ("task_description", task),
                ("context", &context),
                ("tool_name", dialogue.question.tool.as_deref()?),
                ("conversation_history", &history),
            ],
            Stage::Response | Stage::Turn => vec![
                ("task_description", task),
                ("context", &context),
                ("conversation_history", &history),
            ],
            _ => vec![
                ("prompt", task),
                ("context", &context),
                ("conversation_history", &history),
            ],
        };
        let rejected = dialogue.rejected.iter().map(|rejected| Rejected {
            reply: &rejected.reply,
            problem: &rejected.problem,
        });
        if stage != Stage::Turn {
            let content = request_text(&fields, format, self.tell_schema, rejected).into();
            return Some(vec![Message::User { content }]);
        }
        let content = request_text(&fields, format, self.tell_schema, std::iter::empty()).into();
        let mut transcript = Transcript::default();
        self.entries().for_each(|entry| transcript.add(entry));
        transcript.end_turn();
        let mut messages = vec![Message::User { content }];
        messages.append(&mut transcript.messages);
        for rejected in rejected {
            messages.push(Message::Assistant {
                content: rejected.reply.into(),
                tool_calls: Vec::new(),
            });
            let problem = rejected.problem;
            let content =
                format!("Your reply could not be used:\n{problem}\nReply again, in the format that was asked for.");
            messages.push(Message::User {
                content: content.into(),
            });
        }
        Some(messages)
    }

    /// The lines of `conversation_history`: what the tree has stored, then what an agent has done in this run.
    fn history(&self, run: &RunId, with_entries: bool) -> String {
        let seen: Vec<Turn> = self
            .materials
            .turns
            .iter()
            .filter(|turn| self.sees(turn, run))
            .cloned()
            .collect();
        let text = history_text(self.materials.system.as_deref(), &seen, self.llm.history_window);
        let entries = self.entries().filter(|_| with_entries).filter_map(told);
        std::iter::once(text)
            .filter(|text| !text.is_empty())
            .chain(entries)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Whether a stored turn is of the time before the run was dispatched, as far as its own execution wrote it: what others
    /// have written meanwhile would make the request depend on who is faster.
    fn sees(&self, turn: &Turn, run: &RunId) -> bool {
        let Some((by, number)) = written_by(turn).filter(|(by, _)| by.execution == run.execution) else {
            return true;
        };
        let Some(dialogue) = self.call.run.progress.dialogue() else {
            return true;
        };
        let first = dialogue.unseen.get(&by.number);
        by.number < dialogue.unseen_from && first.is_none_or(|first| number < *first)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let dialogue = self.call.run.progress.dialogue();
        dialogue.into_iter().flat_map(|dialogue| dialogue.entries.iter())
    }

    fn situation(&self) -> AgentSituation {
        let dialogue = self.call.run.progress.dialogue();
        match dialogue.and_then(|dialogue| dialogue.entries.last()) {
            Some(Entry::Answered { .. }) => AgentSituation::ToolAnswered,
            Some(Entry::Failed { .. }) => AgentSituation::ToolFailed,
            Some(Entry::SystemError { .. }) => AgentSituation::UnknownTool,
            _ => AgentSituation::First,
        }
    }
}

/// Puts what an agent has done into messages: each turn's calls together, then their results in the order of the calls.
#[derive(Default)]
struct Transcript {
    messages: Vec<Message>,
    turn: u32,
    said: Arc<str>,
    calls: Vec<(u32, ToolRequest)>,
    results: Vec<(u32, Arc<str>)>,
    /// What the engine has to say about the turn.
    notes: Vec<Arc<str>>,
}

impl Transcript {
    fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Said { text } => {
                self.end_turn();
                self.said = text.clone();
            }
            Entry::Called {
                index,
                turn,
                id,
                tool,
                arguments,
                ..
            } => {
                if *turn != self.turn && !self.calls.is_empty() {
                    self.end_turn();
                }
                self.turn = *turn;
                let request = ToolRequest {
                    id: id.as_ref().map_or_else(|| format!("call_{index}"), |id| id.to_string()),
                    name: tool.to_string(),
                    arguments: arguments.to_string(),
                };
                self.calls.push((*index, request));
            }
            Entry::Answered { index, content, .. } => self.results.push((*index, content.clone())),
            Entry::Failed { index, error, .. } => {
                self.results.push((*index, format!("This call failed: {error}").into()));
            }
            Entry::SystemError { error } => self.notes.push(error.clone()),
            _ => {}
        }
    }

    fn end_turn(&mut self) {
        if self.said.is_empty() && self.calls.is_empty() {
            return;
        }
        let mut results: HashMap<u32, Arc<str>> = std::mem::take(&mut self.results).into_iter().collect();
        let calls = std::mem::take(&mut self.calls);
        self.messages.push(Message::Assistant {
            content: std::mem::take(&mut self.said),
            tool_calls: calls.iter().map(|(_, call)| call.clone()).collect(),
        });
        self.messages
            .extend(calls.into_iter().map(|(index, call)| Message::Tool {
                id: call.id,
                name: call.name.into(),
                content: results.remove(&index).unwrap_or_default(),
            }));
        let notes = std::mem::take(&mut self.notes).into_iter();
        self.messages.extend(notes.map(|content| Message::User { content }));
    }
}

/// An entry as a line of the history; calls show by their results.
fn told(entry: &Entry) -> Option<String> {
    match entry {
        Entry::Answered { tool, content, .. } => Some(entry_text("tool", Some(tool), content)),
        Entry::Failed { tool, error, .. } => Some(entry_text("tool_error", Some(tool), error)),
        Entry::SystemError { error } => Some(entry_text("system_error", None, error)),
        _ => None,
    }
}

/// The signals that an LLM chooses from, with what describes them.
fn choices(node: &Node) -> Vec<(Arc<str>, Option<Arc<str>>)> {
    let described = |emission: &crate::config::Emission| match &emission.condition {
        Condition::PlainText(text) => (emission.signal.clone(), Some(text.clone())),
        _ => (emission.signal.clone(), None),
    };
    match node.lets_llm_choose() {
        true => node.emissions.iter().map(described).collect(),
        false => Vec::new(),
    }
}

fn offer(spec: &Arc<ToolSpec>) -> ToolOffer {
    ToolOffer {
        name: spec.name.clone(),
        description: spec.description.as_str().into(),
        parameters: spec.shared_parameters().clone(),
    }
}
