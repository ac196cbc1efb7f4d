//! How far a run of an llm or agent node is: what it has asked, what was answered, what comes next.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::collections::Vector;
use crate::{Usage, Value};

/// The progress of a run that asks an LLM. Replies and tool results that have arrived are in it, so they are not asked for
/// again after a crash. Changed by [`DialogueStep`]s alone; a clone shares the entries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dialogue {
    /// Requests made so far.
    pub calls: u32,
    /// What the run waits for.
    pub awaits: Awaits,
    /// Of a run with a conversation history: the first run of the event that dispatched it. It sees no turns of this one and
    /// later ones: what it is told depends on the event that triggered it, not on who is faster.
    #[serde(default)]
    pub unseen_from: u64,
    /// The earlier runs that were in flight then, with the number of their first turn that it doesn't see.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unseen: BTreeMap<u64, usize>,
    /// What is asked for.
    pub question: Question,
    /// The replies to this question that were not valid, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// Tokens that its requests took.
    #[serde(default)]
    pub tokens: u64,
    /// Calls of tools that an agent has made: the index of the next one.
    #[serde(default)]
    pub tool_calls: u32,
    /// Decisions that an agent was asked for.
    #[serde(default)]
    pub turns: u32,
    /// An agent's failures so far: tool errors and names of tools that it doesn't have.
    #[serde(default)]
    pub failures: u32,
    /// What an agent has done.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub entries: Entries,
    /// The size of the entries in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// The calls of tools in flight, by index, with the attempt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub open: BTreeMap<u32, u32>,
}

/// What a run that asks an LLM waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Awaits {
    /// To be allowed to make a request.
    #[default]
    Grant,
    /// The reply to its last request.
    Reply,
    /// The results of tools.
    Tools,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The stage.
    pub stage: Stage,
    /// The tool whose arguments are wanted, at [`Stage::Parameter`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Arc<str>>,
}

impl From<Stage> for Question {
    fn from(stage: Stage) -> Self {
        Self { stage, tool: None }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// The output of an llm node, or whatever a custom node asks for.
    #[default]
    Llm,
    /// An agent's decision: call a tool, or finish.
    Router,
    /// The arguments of a tool that an agent wants to call.
    Parameter,
    /// An agent's output.
    Response,
    /// An agent's turn on a caller with native tool calls: calls, or the output.
    Turn,
}

impl Stage {
    /// Whether an agent decides what to do next.
    fn is_turn(self) -> bool {
        matches!(self, Stage::Router | Stage::Turn)
    }

    /// The stage as it is written in files and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Llm => "llm",
            Stage::Router => "router",
            Stage::Parameter => "parameter",
            Stage::Response => "response",
            Stage::Turn => "turn",
        }
    }
}

/// A reply that was not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The reply, clipped.
    pub reply: Arc<str>,
    /// What is wrong with it.
    pub problem: Arc<str>,
}

/// One thing that an agent has done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Entry {
    /// It said something besides calling tools.
    Said {
        /// What it said.
        text: Arc<str>,
    },
    /// It called a tool.
    Called {
        /// The call's number in the run, from 0.
        index: u32,
        /// The decision in which it was made: calls of the same turn run in parallel.
        turn: u32,
        /// The endpoint's name for the call, on callers with native tool calls.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<Arc<str>>,
        /// The tool.
        tool: Arc<str>,
        /// The arguments.
        arguments: Value,
        /// Whether the call can't be made: what is wrong follows as its failure.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        refused: bool,
    },
    /// A tool answered.
    Answered {
        /// The call's number.
        index: u32,
        /// The tool.
        tool: Arc<str>,
        /// The result as text, clipped.
        content: Arc<str>,
    },
    /// A call failed.
    Failed {
        /// The call's number.
        index: u32,
        /// The tool.
        tool: Arc<str>,
        /// Why.
        error: Arc<str>,
    },
    /// It did something that can't be done.
    SystemError {
        /// What is wrong.
        error: Arc<str>,
    },
}

impl Entry {
    fn size(&self) -> u64 {
        let text = |text: &str| text.len() as u64;
        match self {
            Entry::Said { text: said } => text(said),
            Entry::Called { tool, arguments, .. } => text(tool) + arguments.size(),
            Entry::Answered { content, .. } => text(content),
            Entry::Failed { error, .. } | Entry::SystemError { error } => text(error),
        }
    }
}

/// What an agent has done, oldest first. A clone is O(1).
#[derive(Clone, Default)]
pub struct Entries(Vector<Entry>);

impl Entries {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest.
    pub fn last(&self) -> Option<&Entry> {
        self.0.last()
    }

    /// All entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Vec::<Entry>::deserialize(deserializer)?.into_iter().collect()))
    }
}

/// One change to a [`Dialogue`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DialogueStep {
    /// It waits to be allowed to make a request.
    Waits,
    /// A request is made: it counts from here on.
    Asked,
    /// There was an answer, and what it took.
    Replied {
        /// Tokens, if the endpoint reports them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// A reply was not what was asked for.
    Rejected(Rejected),
    /// Something else is asked for.
    Question(Question),
    /// An agent did something, or a tool answered it.
    Entry(Entry),
    /// A failure that counts against an agent's retries.
    Failure,
    /// A call of a tool is tried again.
    Retried {
        /// The call's number.
        index: u32,
    },
    /// The run has failed its execution, which is resumed: what counted against it counts no more.
    Resumed,
    /// The request in flight was lost with the process that made it. It will be made again, under the same number.
    Lost,
}

impl Dialogue {
    /// A dialogue that begins with a question at `stage`.
    pub fn new(stage: Stage) -> Self {
        let mut dialogue = Self::default();
        dialogue.ask(stage.into());
        dialogue
    }

    pub(crate) fn change(&mut self, step: &DialogueStep) {
        match step {
            DialogueStep::Waits => self.awaits = Awaits::Grant,
            DialogueStep::Asked => {
                self.calls = self.calls.saturating_add(1);
                self.awaits = Awaits::Reply;
            }
            DialogueStep::Replied { usage } => {
                self.tokens = self.tokens.saturating_add(usage.map_or(0, Usage::total));
            }
            DialogueStep::Rejected(rejected) => self.rejected.push(rejected.clone()),
            DialogueStep::Question(question) => self.ask(question.clone()),
            DialogueStep::Entry(entry) => {
                self.bytes = self.bytes.saturating_add(entry.size());
                match entry {
                    Entry::Called { index, refused, .. } => {
                        self.tool_calls = index.saturating_add(1);
                        self.awaits = Awaits::Tools;
                        if !refused {
                            self.open.insert(*index, 1);
                        }
                    }
                    Entry::Answered { index, .. } | Entry::Failed { index, .. } => {
                        self.open.remove(index);
                    }
                    Entry::Said { .. } | Entry::SystemError { .. } => {}
                }
                self.entries.0.push(entry.clone());
            }
            DialogueStep::Failure => self.failures = self.failures.saturating_add(1),
            DialogueStep::Retried { index } => {
                if let Some(attempt) = self.open.get_mut(index) {
                    *attempt = attempt.saturating_add(1);
                }
            }
            DialogueStep::Resumed => {
                self.failures = 0;
                self.turns = self.question.stage.is_turn().into();
                self.rejected.clear();
            }
            DialogueStep::Lost => {
                self.calls = self.calls.saturating_sub(1);
                self.awaits = Awaits::Grant;
            }
        }
    }

    fn ask(&mut self, question: Question) {
        if question.stage.is_turn() {
            self.turns = self.turns.saturating_add(1);
        }
        self.question = question;
        self.rejected.clear();
    }
}
