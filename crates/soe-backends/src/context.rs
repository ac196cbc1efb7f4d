//! The context of an execution: fields that keep their history, and the engine's own counters.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::collections::Vector;
use crate::{ExecutionId, OrderedMap, SignalLog, Value};

/// Every value that a context field ever had, oldest first. Persistent: cloning is O(1), appending O(log n).
#[derive(Clone, Default)]
pub struct History(Values);

/// Most fields are written once: a single value needs no vector.
#[derive(Clone, Default)]
enum Values {
    #[default]
    None,
    One(Value),
    Many(Vector<Value>),
}

impl History {
    /// The number of values.
    pub fn len(&self) -> usize {
        match &self.0 {
            Values::None => 0,
            Values::One(_) => 1,
            Values::Many(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The current value: the last one written.
    pub fn last(&self) -> Option<&Value> {
        match &self.0 {
            Values::None => None,
            Values::One(value) => Some(value),
            Values::Many(values) => values.last(),
        }
    }

    /// The value at `position`, counted from the oldest.
    pub fn get(&self, position: usize) -> Option<&Value> {
        match &self.0 {
            Values::One(value) if position == 0 => Some(value),
            Values::Many(values) => values.get(position),
            _ => None,
        }
    }

    /// All values, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        let (one, many) = match &self.0 {
            Values::None => (None, None),
            Values::One(value) => (Some(value), None),
            Values::Many(values) => (None, Some(values.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Appends a value.
    pub fn push(&mut self, value: Value) {
        match &mut self.0 {
            Values::None => self.0 = Values::One(value),
            Values::One(first) => self.0 = Values::Many([std::mem::take(first), value].into_iter().collect()),
            Values::Many(values) => values.push(value),
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for History {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl FromIterator<Value> for History {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        let mut history = Self::default();
        values.into_iter().for_each(|value| history.push(value));
        history
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Value>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// What templates and nodes read: the fields with their histories, `__operational__` and `__parent__`.
///
/// Persistent: a clone is a snapshot, costs O(1), and is not touched by later writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// The fields in the order in which they were first written. No name begins with `__`.
    pub fields: OrderedMap<History>,
    /// `__operational__`: what the engine counts.
    pub operational: Operational,
    /// `__parent__`: set in the context of a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Arc<ParentInfo>>,
}

impl Context {
    /// The history of `field`; `None` if it was never written.
    pub fn history(&self, field: &str) -> Option<&History> {
        self.fields.get(field)
    }

    /// The current value of `field`; `None` if it was never written.
    pub fn value(&self, field: &str) -> Option<&Value> {
        self.history(field)?.last()
    }

    /// Appends `value` to the history of `field`.
    pub fn append(&mut self, field: &Arc<str>, value: Value) {
        self.fields.entry(field).push(value);
    }
}

/// `__operational__`: written by the engine alone, readable in templates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct Operational {
    /// Every signal broadcast in this execution, in order.
    pub signals: SignalLog,
    /// Node name to the number of its runs, counted when a run is dispatched.
    pub nodes: OrderedMap<u64>,
    /// LLM requests made, retries and agent turns included.
    pub llm_calls: u64,
    /// Tool runs, and calls of tools by agents; retries not counted.
    pub tool_calls: u64,
    /// Failed attempts of any kind.
    pub errors: u64,
    /// Tokens that LLM requests took, as the endpoints report them.
    #[serde(default)]
    pub tokens: u64,
    /// The same, by node; nodes that took none are left out.
    #[serde(default)]
    pub node_tokens: OrderedMap<u64>,
    /// The root of the execution tree; `None` only before an execution is created.
    pub main_execution_id: Option<ExecutionId>,
    /// Totals of the whole execution tree, as last known.
    #[serde(default)]
    pub tree: TreeTotals,
}

/// Totals over an execution tree, as last known to one of its executions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeTotals {
    /// LLM requests.
    pub llm_calls: u64,
    /// Tool calls.
    pub tool_calls: u64,
    /// Tokens, as the endpoints report them.
    pub tokens: u64,
    /// Child executions started.
    pub children: u64,
}

impl TreeTotals {
    /// What was used since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            llm_calls: self.llm_calls.saturating_sub(before.llm_calls),
            tool_calls: self.tool_calls.saturating_sub(before.tool_calls),
            tokens: self.tokens.saturating_sub(before.tokens),
            children: self.children.saturating_sub(before.children),
        }
    }

    pub(crate) fn add(&mut self, more: Self) {
        let add = |total: &mut u64, more: u64| *total = total.saturating_add(more);
        add(&mut self.llm_calls, more.llm_calls);
        add(&mut self.tool_calls, more.tool_calls);
        add(&mut self.tokens, more.tokens);
        add(&mut self.children, more.children);
    }
}

/// `__parent__`: where a child's signals and results go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentInfo {
    /// The execution that started this one.
    pub parent_execution_id: ExecutionId,
    /// The root of the execution tree.
    pub main_execution_id: ExecutionId,
    /// Signals that are passed on to the parent.
    pub signals_to_parent: Vec<Arc<str>>,
    /// Fields whose new values are passed on to the parent.
    pub context_updates_to_parent: Vec<Arc<str>>,
    /// How deep it is in its tree; a child of the root has depth 1.
    #[serde(default)]
    pub depth: u32,
}

/// Tokens that a call took, as the endpoint reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the request.
    pub prompt_tokens: u64,
    /// Tokens of the reply.
    pub completion_tokens: u64,
}

impl Usage {
    /// All tokens.
    pub fn total(self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}
