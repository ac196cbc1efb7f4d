//! Trees of workflows as plain data, and what they are in the engine's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use serde_json::{Map, Value as Json, json};
use soe_backends::Value;
use soe_core::config::{Config, Registry};
use soe_core::llm::Llms;
use soe_core::machine::Specs;
use soe_core::testing::MockLlm;
use soe_core::tools::ToolSpec;

/// A name of a node, a signal, a field or a workflow.
pub type Name = Arc<str>;

/// The workflow of the root.
pub const ROOT: &str = "w";

/// The type of custom nodes.
pub const CUSTOM: &str = "worker";

/// The tool of all nodes whose tool works in the end.
pub const TOOL: &str = "t";

/// A tree of workflows, compiled.
#[derive(Debug)]
pub struct Grove {
    /// The workflows as data.
    pub flows: BTreeMap<Name, Flow>,
    /// The workflows, compiled.
    pub registry: Arc<Registry>,
    /// Their tools and LLMs.
    pub specs: Specs,
    /// The root's fields. Children are given them.
    pub fields: Vec<(Name, Value)>,
    /// The same, as text for people.
    pub text: String,
}

/// A workflow.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// Its nodes, in the order of the file.
    pub nodes: Vec<Node>,
    /// Signals that are recorded exactly once in each of its executions, if nothing ends early.
    pub once: Vec<Name>,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// The signals that it listens for.
    pub triggers: Vec<Name>,
    /// What it emits, and when.
    pub emits: Vec<(Name, Cond)>,
    /// What it does.
    pub kind: Kind,
}

/// When a signal is emitted.
#[derive(Clone, Debug)]
pub enum Cond {
    /// In any case.
    Always,
    /// When all of these are recorded.
    Seen(Vec<Name>),
    /// When a field has so many values.
    Count(Name, usize),
    /// While a field has fewer values.
    Fewer(Name, usize),
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing but emitting.
    Router,
    /// Calls a tool.
    Tool {
        /// Where the result goes.
        output: Option<Name>,
        /// How often it fails.
        fails: Fails,
        /// The field whose length it is told, with the number of signals.
        reads: Option<Name>,
    },
    /// Asks an LLM.
    Llm(Llm),
    /// Runs code of the application.
    Custom {
        /// Where the result goes.
        output: Option<Name>,
        /// A run fails so often before it succeeds.
        fails: u32,
        /// What is emitted then; without it the execution fails.
        failure: Option<Name>,
    },
    /// Starts children.
    Child(Child),
}

/// How often a tool fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// Never.
    Never,
    /// In its first attempts.
    First(u32),
    /// For good. Its failure signal is what the node emits otherwise.
    Always,
}

/// A node that asks an LLM.
#[derive(Clone, Debug, Default)]
pub struct Llm {
    /// Where the output goes.
    pub output: Option<Name>,
    /// So many requests fail before one is answered.
    pub fails: u32,
    /// So many replies are not valid, of a node that is no agent.
    pub invalid: u32,
    /// What is emitted when a request fails; without it the execution fails.
    pub failure: Option<Name>,
    /// Whether it keeps a conversation.
    pub identity: bool,
    /// What an agent has besides.
    pub agent: Option<Agent>,
}

/// An agent.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    /// So many times it calls tools.
    pub rounds: u32,
    /// So many at a time; only one, where its LLM doesn't call tools natively.
    pub width: u32,
    /// Whether its LLM calls tools natively.
    pub native: bool,
    /// Whether the first attempt of each call fails.
    pub flaky: bool,
}

/// A node that starts children.
#[derive(Clone, Debug)]
pub struct Child {
    /// What they run.
    pub workflow: Name,
    /// Their first signals; none to create them only.
    pub initial: Vec<Name>,
    /// The signals that they pass on.
    pub signals: Vec<Name>,
    /// The fields that they pass on.
    pub updates: Vec<Name>,
    /// The fields that they are given.
    pub given: Vec<Name>,
    /// The field over which they are fanned out.
    pub fan_out: Option<Name>,
    /// What is broadcast when one has failed or was cancelled.
    pub failure: Option<Name>,
    /// Whether there is time between one and the next.
    pub spaced: bool,
}

impl Grove {
    /// Compiles workflows.
    ///
    /// # Errors
    /// The engine refuses them.
    pub fn new(flows: BTreeMap<Name, Flow>, fields: Vec<(Name, Value)>) -> Result<Self> {
        let mut configs = Map::new();
        let mut text = String::new();
        for (name, flow) in &flows {
            let nodes: Map<String, Json> = flow
                .nodes
                .iter()
                .map(|node| (node.name.to_string(), node.config()))
                .collect();
            nodes
                .iter()
                .for_each(|(node, config)| text += &format!("  {name}.{node}: {config}\n"));
            configs.insert(name.to_string(), Json::Object(nodes));
        }
        let config =
            Config::from_yaml(&Json::Object(configs).to_string()).map_err(|error| anyhow!("{error}\n{text}"))?;
        Ok(Self {
            registry: config.registry().clone(),
            specs: specs(&flows)?,
            flows,
            fields,
            text,
        })
    }

    /// A node of a workflow.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn node(&self, workflow: &str, name: &str) -> Result<&Node> {
        let flow = self.flows.get(workflow);
        let node = flow.and_then(|flow| flow.nodes.iter().find(|node| *node.name == *name));
        node.ok_or_else(|| anyhow!("there is no node {name} in {workflow}"))
    }
}

fn specs(flows: &BTreeMap<Name, Flow>) -> Result<Specs> {
    let base = ToolSpec::new(TOOL, "", json!({}))?;
    let mut tools = vec![base.clone()];
    tools[0].max_retries = 2;
    for node in flows.values().flat_map(|flow| &flow.nodes) {
        if matches!(
            node.kind,
            Kind::Tool {
                fails: Fails::Always,
                ..
            }
        ) {
            let mut tool = base.clone();
            tool.failure_signal = node.emits.first().map(|(signal, _)| signal.clone());
            tool.name = bad_tool(node);
            tools.push(tool);
        }
    }
    let mut llms = Llms::new();
    llms.set_default(MockLlm::new());
    llms.register("native", MockLlm::new().with_native_tools())
        .map_err(|error| anyhow!("{error}"))?;
    Ok(Specs {
        tools: tools.into_iter().collect(),
        llms: llms.specs(),
        node_types: [Name::from(CUSTOM)].into(),
        ..Specs::default()
    })
}

/// A tool that always fails. Nodes share it only if it emits the same signal for them.
fn bad_tool(node: &Node) -> Name {
    let signal = node.emits.first().map_or("", |(signal, _)| signal);
    format!("bad_{signal}").into()
}

impl Node {
    /// Whether it runs for a batch.
    pub fn listens(&self, batch: &[Name]) -> bool {
        self.triggers.iter().any(|trigger| batch.contains(trigger))
    }

    fn config(&self) -> Json {
        let mut config = json!({"event_triggers": self.triggers});
        let emits: Vec<Json> = self.emits.iter().map(emission).collect();
        if !emits.is_empty() {
            config["event_emissions"] = emits.into();
        }
        let output = |config: &mut Json, output: &Option<Name>| {
            if let Some(field) = output {
                config["output_field"] = json!(field);
            }
        };
        match &self.kind {
            Kind::Router => config["node_type"] = "router".into(),
            Kind::Tool {
                output: field,
                fails,
                reads,
            } => {
                config["node_type"] = "tool".into();
                config["tool_name"] = match fails {
                    Fails::Always => json!(bad_tool(self)),
                    _ => TOOL.into(),
                };
                output(&mut config, field);
                if let Some(field) = reads {
                    config["parameters"] = json!({
                        "values": format!("{{{{ context.{field} | history | length }}}}"),
                        "signals": "{{ context.__operational__.signals | length }}",
                    });
                }
            }
            Kind::Custom { failure, .. } => {
                config["node_type"] = CUSTOM.into();
                if let Some(signal) = failure {
                    config["failure_signal"] = json!(signal);
                }
            }
            Kind::Llm(llm) => {
                output(&mut config, &llm.output);
                llm.configure(&mut config);
            }
            Kind::Child(child) => child.configure(&mut config),
        }
        config
    }
}

impl Llm {
    fn configure(&self, config: &mut Json) {
        config["node_type"] = "llm".into();
        config["prompt"] = "{{ context.__operational__.signals | length }}".into();
        config["retries"] = 5.into();
        if let Some(signal) = &self.failure {
            config["llm_failure_signal"] = json!(signal);
        }
        if self.identity {
            config["identity"] = "sage".into();
        }
        if let Some(agent) = &self.agent {
            config["node_type"] = "agent".into();
            config["max_turns"] = 20.into();
            config["tools"] = json!([TOOL]);
            if agent.native {
                config["llm"] = "native".into();
            }
        }
    }
}

impl Child {
    fn configure(&self, config: &mut Json) {
        config["node_type"] = "child".into();
        config["child_workflow_name"] = json!(self.workflow);
        config["child_initial_signals"] = json!(self.initial);
        config["input_fields"] = json!(self.given);
        config["signals_to_parent"] = json!(self.signals);
        config["context_updates_to_parent"] = json!(self.updates);
        if let Some(field) = &self.fan_out {
            config["fan_out_field"] = json!(field);
            config["child_input_field"] = "item".into();
        }
        if let Some(signal) = &self.failure {
            config["child_failure_signal"] = json!(signal);
        }
        if self.spaced {
            config["spawn_interval"] = json!(0.01);
        }
    }
}

fn emission((signal, cond): &(Name, Cond)) -> Json {
    let condition = match cond {
        Cond::Always => return json!({"signal_name": signal}),
        Cond::Seen(signals) => {
            let seen = signals
                .iter()
                .map(|signal| format!("'{signal}' in context.__operational__.signals"));
            seen.collect::<Vec<_>>().join(" and ")
        }
        Cond::Count(field, count) => format!("context.{field} | history | length == {count}"),
        Cond::Fewer(field, count) => format!("context.{field} | history | length < {count}"),
    };
    json!({"signal_name": signal, "condition": format!("{{{{ {condition} }}}}")})
}
