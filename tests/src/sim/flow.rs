//! A workflow as plain data: the engine gets it as configuration, the model reads it as it is.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use soe_backends::{Limits, Value};
use soe_core::config::{Config, ConfigError, Registry};
use soe_core::machine::Specs;
use soe_core::tools::{InvalidSchema, ToolSpec};

use super::llm::{self, Llm};

/// The name of a node, a signal, a field or a tool.
pub type Name = Arc<str>;

/// The name of the workflow in the configuration.
pub const WORKFLOW: &str = "flow";

/// A workflow, its tools, and what happens to it from outside.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// The nodes, in the order of the file.
    pub nodes: Vec<Node>,
    /// The tools that are registered.
    pub tools: Vec<Tool>,
    /// The initial context.
    pub fields: Vec<(Name, Vec<Value>)>,
    /// The first batch.
    pub start: Vec<Name>,
    /// Batches that are broadcast from outside, in this order, at any time.
    pub external: Vec<Vec<Name>>,
    /// Signals that are recorded exactly once when everything has come to rest, whatever the order of completions.
    pub exactly_once: Vec<Name>,
    /// What the execution may use.
    pub limits: Limits,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// What it listens for.
    pub triggers: Vec<Name>,
    /// What it emits, and when.
    pub emissions: Vec<(Name, Cond)>,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// It evaluates conditions only.
    Router,
    /// It calls a tool.
    Tool {
        /// The tool's name; it may be one that isn't registered.
        tool: Name,
        /// Where the result goes.
        output: Option<Name>,
        /// The arguments.
        parameters: Vec<(Name, Expr)>,
    },
    /// It is of a type that the application registers.
    Custom(Custom),
    /// It asks an LLM.
    Llm(Llm),
}

/// What a custom node does.
#[derive(Clone, Debug, Default)]
pub struct Custom {
    /// What it writes.
    pub writes: Vec<(Name, Kept)>,
    /// What it emits; `None`: what its conditions say.
    pub signals: Option<Vec<Name>>,
    /// Whether it fails.
    pub fails: Fails,
    /// What it emits then; without it the execution fails.
    pub failure_signal: Option<Name>,
}

/// A tool.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Its name.
    pub name: Name,
    /// How often it is tried again.
    pub max_retries: u32,
    /// What its node emits when it has failed for good.
    pub failure_signal: Option<Name>,
    /// Whether it fails.
    pub fails: Fails,
    /// Whether its failures are worth another attempt.
    pub retryable: bool,
    /// What it returns.
    pub returns: Kept,
}

/// When something fails.
#[derive(Clone, Copy, Debug, Default)]
pub enum Fails {
    /// Never.
    #[default]
    Never,
    /// In its first attempts, so many.
    First(u32),
    /// Always.
    Always,
    /// Sometimes.
    Sometimes,
}

/// What kind of value something gives.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    /// 0, 1 or 2.
    Choice,
    /// A value that is no list, no object and not null.
    Scalar,
    /// Any value but null.
    Any,
    /// Any value.
    AnyOrNull,
    /// A list of so many numbers.
    List(usize),
}

/// A condition.
#[derive(Clone, Debug)]
pub enum Cond {
    /// There is none.
    Always,
    /// Text that is no template: it passes.
    PlainText,
    /// A template that doesn't pass.
    Never,
    /// A template that can't be evaluated.
    Broken,
    /// As many values in the first field as items in the second, both as `accumulated` gives them.
    SameCount(Name, Name),
    /// The history of a field has exactly so many values.
    Count(Name, usize),
    /// The history of a field has less values.
    Fewer(Name, usize),
    /// All of these signals were broadcast.
    Seen(Vec<Name>),
    /// A tool returned this number.
    Result(i64),
}

/// An argument of a tool.
#[derive(Clone, Debug)]
pub enum Expr {
    /// The current value of a field that is there from the start.
    Last(Name),
    /// The number of values in the history of a field.
    Count(Name),
    /// The number of signals that were broadcast.
    Signals,
    /// A number.
    Literal(i64),
}

impl Flow {
    /// The configuration, as JSON.
    pub fn config(&self) -> Json {
        let nodes: serde_json::Map<_, _> = self
            .nodes
            .iter()
            .map(|node| (node.name.to_string(), node.config()))
            .collect();
        json!({ WORKFLOW: nodes })
    }

    /// The compiled configuration.
    ///
    /// # Errors
    /// The generator made something that the engine refuses.
    pub fn registry(&self) -> Result<Arc<Registry>, ConfigError> {
        Ok(Config::from_value(self.config())?.registry().clone())
    }

    /// The tools and LLMs as the engine knows them.
    ///
    /// # Errors
    /// The schema was refused.
    pub fn specs(&self) -> Result<Specs, InvalidSchema> {
        let base = ToolSpec::new("base", "", json!({}))?;
        let spec = |tool: &Tool| {
            let mut spec = base.clone();
            spec.name = tool.name.clone();
            spec.max_retries = tool.max_retries;
            spec.failure_signal = tool.failure_signal.clone();
            spec
        };
        let tools = self.tools.iter().map(spec).collect();
        let llms = llm::specs();
        Ok(Specs {
            tools,
            llms,
            ..Specs::default()
        })
    }

    /// The tool called `name`, if it is registered.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| *tool.name == *name)
    }
}

impl Node {
    fn config(&self) -> Json {
        let mut config = json!({"event_triggers": names(&self.triggers)});
        let emissions: Vec<_> = self.emissions.iter().map(emission).collect();
        if !emissions.is_empty() {
            config["event_emissions"] = emissions.into();
        }
        match &self.kind {
            Kind::Router => config["node_type"] = "router".into(),
            Kind::Tool {
                tool,
                output,
                parameters,
            } => {
                config["node_type"] = "tool".into();
                config["tool_name"] = tool.as_ref().into();
                if let Some(field) = output {
                    config["output_field"] = field.as_ref().into();
                }
                let parameters: serde_json::Map<_, _> = parameters
                    .iter()
                    .map(|(name, expr)| (name.to_string(), expr.written()))
                    .collect();
                if !parameters.is_empty() {
                    config["parameters"] = parameters.into();
                }
            }
            Kind::Custom(custom) => {
                config["node_type"] = "worker".into();
                if let Some(signal) = &custom.failure_signal {
                    config["failure_signal"] = signal.as_ref().into();
                }
            }
            Kind::Llm(llm) => llm.configure(&mut config),
        }
        config
    }
}

fn emission((signal, condition): &(Name, Cond)) -> Json {
    match condition.written() {
        Some(text) => json!({"signal_name": signal.as_ref(), "condition": text}),
        None => json!({"signal_name": signal.as_ref()}),
    }
}

impl Cond {
    fn written(&self) -> Option<String> {
        Some(match self {
            Cond::Always => return None,
            Cond::PlainText => "whenever it seems right".to_owned(),
            Cond::Never => "{{ false }}".to_owned(),
            Cond::Broken => "{{ 1 / 0 }}".to_owned(),
            Cond::SameCount(a, b) => {
                format!("{{{{ context.{a} | accumulated | length == context.{b} | accumulated | length }}}}")
            }
            Cond::Count(field, count) => format!("{{{{ context.{field} | history | length == {count} }}}}"),
            Cond::Fewer(field, count) => format!("{{{{ context.{field} | history | length < {count} }}}}"),
            Cond::Seen(signals) => {
                let seen = signals
                    .iter()
                    .map(|signal| format!("'{signal}' in context.__operational__.signals"));
                format!("{{{{ {} }}}}", seen.collect::<Vec<_>>().join(" and "))
            }
            Cond::Result(number) => format!("{{{{ result == {number} }}}}"),
        })
    }
}

impl Expr {
    fn written(&self) -> Json {
        match self {
            Expr::Last(field) => format!("{{{{ context.{field} }}}}").into(),
            Expr::Count(field) => format!("{{{{ context.{field} | history | length }}}}").into(),
            Expr::Signals => "{{ context.__operational__.signals | length }}".into(),
            Expr::Literal(number) => (*number).into(),
        }
    }
}

fn names(names: &[Name]) -> Vec<&str> {
    names.iter().map(AsRef::as_ref).collect()
}
