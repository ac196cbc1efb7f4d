//! What the model knows of runs that ask an LLM.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use soe_backends::{Stage, Status, Usage, Value};
use soe_core::llm::ToolRequest;
use soe_core::machine::AnswerContent;

use super::answer::{answer, denial, tool_result};
use super::flow::{Kind, Name, Node};
use super::llm::{Agent, BROKEN, Identity, Llm, chooses};
use super::model::{InFlight, Model, Seen};
use super::task::Task;

/// How far a run is that asks an LLM.
#[derive(Clone, Debug, Default)]
pub struct Talk {
    /// Requests made.
    pub calls: u32,
    /// What it waits for.
    pub waits: Waits,
    /// What is asked for.
    pub stage: Stage,
    /// The tool whose arguments are asked for.
    pub tool: Option<Name>,
    /// Invalid replies since it asked for something else.
    pub rejected: u32,
    /// What its requests took.
    pub tokens: u64,
    /// Calls of tools.
    pub tool_calls: u32,
    /// Decisions.
    pub turns: u32,
    /// Tools that failed, and that there are none of.
    pub failures: u32,
    /// What was said, called and answered.
    pub entries: usize,
    /// The calls in flight: tools and arguments.
    pub open: BTreeMap<u32, (Name, Json)>,
}

/// What a run waits for that asks an LLM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waits {
    /// To be allowed to ask.
    #[default]
    Grant,
    /// A reply.
    Reply,
    /// Tools.
    Tools,
}

/// A turn of the conversation history. Texts that are the engine's own words are left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// Who said it.
    pub role: &'static str,
    /// The tool.
    pub tool: Option<Name>,
    /// What.
    pub content: Option<Name>,
    /// The run, and the number within it.
    pub key: (u64, usize),
}

impl Talk {
    /// A run of a node that is dispatched.
    pub(super) fn new(llm: &Llm) -> Self {
        let mut talk = Self::default();
        match &llm.agent {
            Some(agent) => talk.decide(agent),
            None => talk.ask(Stage::Llm, None),
        }
        talk
    }

    fn decide(&mut self, agent: &Agent) {
        self.turns += 1;
        let stage = if agent.native { Stage::Turn } else { Stage::Router };
        self.ask(stage, None);
    }

    fn ask(&mut self, stage: Stage, tool: Option<Name>) {
        (self.stage, self.tool, self.rejected) = (stage, tool, 0);
    }

    /// The request in flight is lost. Whether it was.
    pub(super) fn lost(&mut self) -> bool {
        let lost = self.waits == Waits::Reply;
        self.calls -= u32::from(lost);
        lost
    }

    /// What is in flight for it.
    pub(super) fn tasks(&self, run: u64) -> Vec<Task> {
        match self.waits {
            Waits::Grant => vec![Task::Grant(run, self.calls + 1)],
            Waits::Reply => vec![Task::Reply(run, self.calls)],
            Waits::Tools => self.open.keys().map(|index| Task::Tool(run, *index)).collect(),
        }
    }
}

impl InFlight {
    /// Whether a request of it is in flight.
    pub(super) fn awaits_reply(&self) -> bool {
        self.talk.as_ref().is_some_and(|talk| talk.waits == Waits::Reply)
    }
}

impl<'f> Model<'f> {
    fn talk(&mut self, run: u64) -> &mut Talk {
        let run = self.in_flight.get_mut(&run).and_then(|run| run.talk.as_mut());
        run.expect("only runs that ask an LLM come here")
    }

    fn asking(&self, run: u64) -> (&'f Node, &'f Llm) {
        let node = &self.flow.nodes[self.in_flight[&run].node];
        match &node.kind {
            Kind::Llm(llm) => (node, llm),
            other => panic!("{other:?} doesn't ask"),
        }
    }

    /// A request leaves, or waits to be allowed to.
    pub(super) fn ask(&mut self, run: u64) {
        let limits = &self.flow.limits;
        self.effects_now += 1;
        if limits.llm_calls.is_some() || limits.tokens.is_some() {
            self.talk(run).waits = Waits::Grant;
        } else {
            self.asked(run);
        }
    }

    /// A request that was lost in a crash is made again, and counts again.
    pub(super) fn ask_again(&mut self, run: u64) {
        let talk = self.in_flight.get_mut(&run).and_then(|run| run.talk.as_mut());
        if talk.is_some_and(Talk::lost) {
            self.ask(run);
            self.effects_now -= 1;
        }
    }

    fn asked(&mut self, run: u64) {
        self.llm_calls += 1;
        let talk = self.talk(run);
        talk.calls += 1;
        talk.waits = Waits::Reply;
    }

    /// The first request tells what is wrong with the node's templates.
    pub(super) fn warn_at_first_request(&mut self, run: u64) {
        let Some(talk) = &self.in_flight[&run].talk else {
            return;
        };
        if (talk.waits, talk.calls) != (Waits::Reply, 1) {
            return;
        }
        let (_, llm) = self.asking(run);
        self.warnings += u64::from(llm.identity == Identity::Broken);
        let lacks = |value: Option<&Value>| match value {
            None | Some(Value::Null) => true,
            Some(Value::Text(text)) => text.is_empty(),
            Some(Value::List(items)) => items.is_empty(),
            Some(Value::Map(entries)) => entries.is_empty(),
            Some(_) => false,
        };
        self.warnings += match &llm.prompt {
            None => 1,
            Some(field) => {
                let history = self.in_flight[&run].seen.fields.get(field);
                u64::from(lacks(history.and_then(|history| history.last())))
            }
        };
    }

    /// The driver's answer to a run that waits to be allowed to ask.
    pub(super) fn granted(&mut self, run: u64, call: u32) {
        let (calls, tokens) = (self.llm_calls, self.tokens);
        match denial(&self.flow.limits, self.seed, run, call, calls, tokens) {
            None => {
                self.asked(run);
                self.effects_now += 1;
                self.warn_at_first_request(run);
            }
            Some(denial) => {
                self.gave_up += 1;
                self.give_up(run, Some(denial.limit));
            }
        }
    }

    pub(super) fn replied(&mut self, run: u64, call: u32) {
        let (node, llm) = self.asking(run);
        let stage = self.talk(run).stage;
        let answer = answer(self.seed, node, llm, run, call, stage);
        self.replies += 1;
        if let Some(usage) = answer.as_ref().ok().and_then(|answer| answer.usage) {
            self.talk(run).tokens += usage.total();
            self.take_usage(&node.name, usage);
        }
        let Ok(answer) = answer else {
            self.errors += 1;
            return self.give_up(run, None);
        };
        self.warnings += answer.warnings.len() as u64;
        match answer.content {
            AnswerContent::Invalid { .. } if self.talk(run).rejected < llm.retries => {
                self.errors += 1;
                self.talk(run).rejected += 1;
                self.ask(run);
            }
            AnswerContent::Invalid { .. } => {
                self.errors += 1;
                self.give_up(run, None);
            }
            AnswerContent::Output { value, signals } => self.output(run, node, llm, &value, &signals),
            content => match &llm.agent {
                Some(agent) => self.decided(run, agent, content),
                None => self.give_up(run, None),
            },
        }
    }

    /// Tokens that a request of a node took.
    pub(super) fn take_usage(&mut self, node: &Name, usage: Usage) {
        self.tokens += usage.total();
        *self.node_tokens.entry(node.clone()).or_default() += usage.total();
    }

    fn decided(&mut self, run: u64, agent: &'f Agent, content: AnswerContent) {
        let last = self.talk(run).turns >= agent.max_turns;
        match content {
            AnswerContent::CallTool { .. } | AnswerContent::ToolCalls { .. } if last => {
                self.gave_up += 1;
                self.give_up(run, None);
            }
            AnswerContent::Finish => {
                self.talk(run).ask(Stage::Response, None);
                self.ask(run);
            }
            AnswerContent::CallTool { name } if self.has(agent, &name) => {
                self.talk(run).ask(Stage::Parameter, Some(name));
                self.ask(run);
            }
            AnswerContent::CallTool { .. } => {
                self.not_found += 1;
                self.failed(run, "system_error", None, None);
                self.decide_again(run, agent);
            }
            AnswerContent::Arguments(arguments) => {
                let tool = self.talk(run).tool.clone();
                self.call(run, tool.expect("it was asked for its arguments"), arguments);
            }
            AnswerContent::ToolCalls { text, calls } => {
                self.talk(run).entries += usize::from(!text.is_empty());
                for call in calls {
                    self.native_call(run, agent, &call);
                }
                self.go_on(run, agent);
            }
            _ => self.give_up(run, None),
        }
    }

    fn has(&self, agent: &Agent, tool: &str) -> bool {
        agent.tools.iter().any(|listed| **listed == *tool) && self.flow.tool(tool).is_some()
    }

    fn call(&mut self, run: u64, tool: Name, arguments: Json) -> u32 {
        self.effects_now += 1;
        self.tool_calls += 1;
        self.agent_calls += 1;
        let talk = self.talk(run);
        let index = talk.tool_calls;
        talk.tool_calls += 1;
        talk.entries += 1;
        talk.waits = Waits::Tools;
        talk.open.insert(index, (tool, arguments));
        index
    }

    fn native_call(&mut self, run: u64, agent: &Agent, call: &ToolRequest) {
        let arguments: Option<Json> = match call.arguments.trim() {
            "" => Some(json!({})),
            text => serde_json::from_str(text).ok(),
        };
        let found = self.has(agent, &call.name);
        self.not_found += u64::from(!found);
        let works = found && arguments.is_some();
        let tool: Name = call.name.as_str().into();
        let index = self.call(run, tool.clone(), arguments.unwrap_or_default());
        if !works {
            self.effects_now -= 1;
            self.tool_calls -= 1;
            self.talk(run).open.remove(&index);
            self.failed(run, "tool_error", Some(tool), None);
        }
    }

    /// A tool that an agent called is done.
    pub(super) fn tool_answered(&mut self, run: u64, index: u32) {
        let (_, llm) = self.asking(run);
        let tool = self.talk(run).open.remove(&index).map(|(tool, _)| tool);
        match tool_result(self.seed, run, index) {
            Ok(Value::Text(text)) => self.say(run, "tool", tool, Some(text)),
            Ok(value) => self.say(run, "tool", tool, Some(value.to_string().into())),
            Err(failure) => self.failed(run, "tool_error", tool, Some(failure.message)),
        }
        if let Some(agent) = &llm.agent {
            self.go_on(run, agent);
        }
    }

    fn failed(&mut self, run: u64, role: &'static str, tool: Option<Name>, content: Option<Name>) {
        self.errors += 1;
        self.talk(run).failures += 1;
        self.say(run, role, tool, content);
    }

    fn say(&mut self, run: u64, role: &'static str, tool: Option<Name>, content: Option<Name>) {
        let (_, llm) = self.asking(run);
        let number = self.talk(run).entries;
        self.talk(run).entries += 1;
        self.keep(run, llm, number, role, tool, content);
    }

    fn keep(&mut self, run: u64, llm: &Llm, n: usize, role: &'static str, tool: Option<Name>, content: Option<Name>) {
        if llm.identity == Identity::Named {
            let key = (run, n);
            self.said.push(Said {
                role,
                tool,
                content,
                key,
            });
        }
    }

    fn go_on(&mut self, run: u64, agent: &Agent) {
        if self.talk(run).open.is_empty() {
            self.decide_again(run, agent);
        }
    }

    fn decide_again(&mut self, run: u64, agent: &Agent) {
        let (_, llm) = self.asking(run);
        let talk = self.talk(run);
        if talk.failures > llm.retries || talk.turns == agent.max_turns {
            self.gave_up += 1;
            return self.give_up(run, None);
        }
        talk.decide(agent);
        self.ask(run);
    }

    fn output(&mut self, run: u64, node: &Node, llm: &Llm, value: &Value, chosen: &[Name]) {
        if llm.agent.is_none() {
            let prompt = prompt(llm, &self.in_flight[&run].seen);
            self.keep(run, llm, 0, "user", None, Some(prompt));
            let text = match value {
                Value::Text(text) => text.clone(),
                other => other.to_string().into(),
            };
            self.keep(run, llm, 1, "assistant", None, Some(text));
        }
        self.in_flight.remove(&run);
        self.write(llm.output.as_ref(), value);
        let signals = match chooses(node) {
            true => chosen.to_vec(),
            false => self.passing(node, None),
        };
        self.emit(&signals);
    }

    fn give_up(&mut self, run: u64, limit: Option<&'static str>) {
        match &self.asking(run).1.failure_signal {
            Some(signal) => {
                self.in_flight.remove(&run);
                self.emit(std::slice::from_ref(signal));
            }
            None => {
                self.status = Status::Failed;
                self.exceeded = limit;
            }
        }
    }

    /// A request that a custom node makes by itself, or the answer to one. False if nobody counts it.
    pub(super) fn custom_talked(&mut self, run: u64, usage: Option<Option<Usage>>) -> bool {
        let node = self
            .in_flight
            .get(&run)
            .map(|run| self.flow.nodes[run.node].name.clone());
        let Some(node) = node.filter(|_| self.status == Status::Running) else {
            return false;
        };
        match usage {
            None => self.llm_calls += 1,
            Some(usage) => {
                self.replies += 1;
                if let Some(usage) = usage {
                    self.take_usage(&node, usage);
                }
            }
        }
        true
    }
}

/// The prompt of a node, rendered.
pub(super) fn prompt(llm: &Llm, seen: &Seen) -> Arc<str> {
    let Some(field) = &llm.prompt else {
        return BROKEN.into();
    };
    let count = seen.fields.get(field).map_or(0, Vec::len);
    format!("{count} of {}, {} asked", seen.signals.len(), seen.llm_calls).into()
}
