//! Typed workflows: what the state machine runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use soe_backends::{Batch, Map, RegistryId, Value};

use crate::llm::HistoryWindow;
use crate::template::Template;

/// The workflows of an execution, compiled. Immutable, shared, and named by its content.
#[derive(Debug)]
pub struct Registry {
    /// The hash of [`Registry::document`].
    pub id: RegistryId,
    /// The workflows as they are stored: `workflow name -> node name -> node configuration`.
    pub document: Value,
    /// The compiled workflows by name, in the order of the document.
    pub workflows: IndexMap<Arc<str>, Arc<Workflow>>,
}

/// One workflow: nodes in the order of the file, which is the order of dispatch.
#[derive(Debug)]
pub struct Workflow {
    /// Its name in the registry.
    pub name: Arc<str>,
    /// Its nodes by name.
    pub nodes: IndexMap<Arc<str>, Arc<Node>>,
    listeners: hashbrown::HashMap<Arc<str>, Arc<[Arc<Node>]>>,
}

impl Workflow {
    /// Builds the index of listeners over `nodes`.
    pub fn new(name: Arc<str>, nodes: IndexMap<Arc<str>, Arc<Node>>) -> Self {
        let mut listeners: IndexMap<Arc<str>, Vec<Arc<Node>>> = IndexMap::new();
        for node in nodes.values() {
            for trigger in &node.triggers {
                let listeners = listeners.entry(trigger.clone()).or_default();
                // A trigger that a node repeats counts once.
                if listeners.last().is_none_or(|last| !Arc::ptr_eq(last, node)) {
                    listeners.push(node.clone());
                }
            }
        }
        let listeners = listeners
            .into_iter()
            .map(|(signal, nodes)| (signal, nodes.into()))
            .collect();
        Self { name, nodes, listeners }
    }

    /// The nodes that run when the batch `signals` is broadcast: each once, in the order of the file.
    pub fn listeners(&self, signals: &[Arc<str>]) -> Arc<[Arc<Node>]> {
        match signals {
            [] => Arc::default(),
            [signal] => self.listeners.get(signal).cloned().unwrap_or_default(),
            _ => {
                let listening = signals.iter().filter_map(|signal| self.listeners.get(signal));
                let places = listening
                    .flat_map(|nodes| nodes.iter())
                    .filter_map(|node| self.nodes.get_index_of(&node.name));
                let places: BTreeSet<usize> = places.collect();
                let nodes = places.into_iter().filter_map(|place| self.nodes.get_index(place));
                nodes.map(|(_, node)| node.clone()).collect()
            }
        }
    }
}

/// A node: its type, what it listens for, what it emits.
#[derive(Debug)]
pub struct Node {
    /// Its name in the workflow.
    pub name: Arc<str>,
    /// `node_type` as it is written.
    pub type_name: Arc<str>,
    /// The whole configuration as it was written, unknown fields included.
    pub config: Arc<Map>,
    /// `event_triggers`.
    pub triggers: Vec<Arc<str>>,
    /// `event_emissions`, in order.
    pub emissions: Vec<Emission>,
    /// What is particular to its type.
    pub kind: NodeKind,
}

impl Node {
    /// Whether an LLM chooses the signals that the node emits: there are several, and none has a template for condition.
    pub fn lets_llm_choose(&self) -> bool {
        let templated = |emission: &Emission| matches!(emission.condition, Condition::Jinja(_));
        self.emissions.len() > 1 && !self.emissions.iter().any(templated)
    }
}

/// One entry of `event_emissions`.
#[derive(Debug, Clone)]
pub struct Emission {
    /// `signal_name`.
    pub signal: Arc<str>,
    /// `condition`.
    pub condition: Condition,
    /// The batch of this signal alone: what most nodes emit, made once.
    pub batch: Batch,
}

/// When an emission is emitted.
#[derive(Debug, Clone)]
pub enum Condition {
    /// No condition, or an empty one: always.
    Always,
    /// Text without `{{` and `{%`: always on a router or tool; what an LLM chooses by on an llm or agent node.
    PlainText(Arc<str>),
    /// A template: when it passes.
    Jinja(Template),
}

/// What is particular to a node's type.
#[derive(Debug)]
pub enum NodeKind {
    /// `router`
    Router,
    /// `tool`
    Tool(ToolNode),
    /// `llm`
    Llm(LlmNode),
    /// `agent`
    Agent(AgentNode),
    /// `child`
    Child(ChildNode),
    /// A type that the application registers under this name.
    Custom(Arc<str>),
}

/// A tool node.
#[derive(Debug)]
pub struct ToolNode {
    /// `tool_name`
    pub tool: Arc<str>,
    /// `output_field`
    pub output_field: Option<Arc<str>>,
    /// Where the arguments come from.
    pub arguments: Arguments,
    /// `tools`: what the node may grant to nodes that it injects, or call by name.
    pub grant: Option<Vec<Arc<str>>>,
}

/// Where a tool node's arguments come from.
#[derive(Debug)]
pub enum Arguments {
    /// The tool is called without arguments.
    None,
    /// `parameters`
    Parameters(IndexMap<Arc<str>, Parameter>),
    /// `context_parameter_field`: the current value of this field.
    ContextField(Arc<str>),
}

/// A value in `parameters`, templates compiled.
#[derive(Debug, Clone)]
pub enum Parameter {
    /// A value without templates.
    Literal(Value),
    /// A string with a template.
    Template(Template),
    /// A list with a template somewhere in it.
    List(Vec<Parameter>),
    /// A mapping with a template somewhere in it.
    Map(IndexMap<Arc<str>, Parameter>),
}

/// An llm node.
#[derive(Debug)]
pub struct LlmNode {
    /// `prompt`
    pub prompt: Template,
    /// `output_field`
    pub output_field: Option<Arc<str>>,
    /// `identity`
    pub identity: Option<Template>,
    /// `retries`: extra attempts when a reply does not validate.
    pub retries: u32,
    /// `llm_failure_signal`
    pub failure_signal: Option<Arc<str>>,
    /// `llm`: the name of the LLM to ask, if it isn't the engine's default.
    pub llm: Option<Arc<str>>,
    /// `history_window`: how much of the conversation history is sent.
    pub history_window: HistoryWindow,
}

/// An agent node.
#[derive(Debug)]
pub struct AgentNode {
    /// What it shares with an llm node.
    pub llm: LlmNode,
    /// `tools`: the names that the agent may call.
    pub tools: Vec<Arc<str>>,
    /// `max_turns`: how many decisions it may take.
    pub max_turns: u32,
}

/// A child node.
#[derive(Debug)]
pub struct ChildNode {
    /// `child_workflow_name`
    pub workflow: Arc<str>,
    /// `child_initial_signals`
    pub initial_signals: Vec<Arc<str>>,
    /// `input_fields`
    pub input_fields: Vec<Arc<str>>,
    /// `signals_to_parent`
    pub signals_to_parent: Vec<Arc<str>>,
    /// `context_updates_to_parent`
    pub context_updates_to_parent: Vec<Arc<str>>,
    /// `fan_out_field` and `child_input_field`
    pub fan_out: Option<FanOut>,
    /// `spawn_interval`
    pub spawn_interval: Duration,
    /// `child_failure_signal`: what the parent broadcasts when a child has failed or was cancelled.
    pub failure_signal: Option<Arc<str>>,
}

/// One child for each item of a field.
#[derive(Debug)]
pub struct FanOut {
    /// `fan_out_field`
    pub field: Arc<str>,
    /// `child_input_field`
    pub child_input_field: Arc<str>,
}
