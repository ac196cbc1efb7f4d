//! Random trees of workflows with nodes of every kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use fastrand::Rng;
use serde_json::{Map, Value as Json, json};
use soe_backends::{Limits, Value};
use soe_core::config::{Config, Registry};
use soe_core::machine::Specs;

use crate::sim::answer::GENEROUS;
use crate::sim::flow::{Cond, Custom, Fails, Flow, Kept, Kind, Name, Tool, WORKFLOW};
use crate::sim::parts::Builder;

/// The workflow of the root.
pub const ROOT: &str = "w";

/// A tree of workflows, compiled.
#[derive(Debug)]
pub struct Grove {
    /// The workflows.
    pub registry: Arc<Registry>,
    /// Their tools and LLMs.
    pub specs: Specs,
    /// Each workflow without the nodes that start children.
    pub flows: BTreeMap<Name, Flow>,
    /// The root's fields. Children get theirs from it.
    pub fields: Vec<(Name, Value)>,
    /// What the tree may use.
    pub limits: Arc<Limits>,
    /// The same, as text for people.
    pub text: String,
}

/// What a grove may have in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Levels below the root.
    pub levels: usize,
    /// A node somewhere fails in its first attempts, so many; 0 for none.
    pub fails: u32,
    /// Whether nodes have a signal for failed children.
    pub handled: bool,
}

struct Planter<'r> {
    rng: &'r mut Rng,
    shape: Shape,
    flows: BTreeMap<Name, Flow>,
    configs: Map<String, Json>,
    fields: BTreeMap<Name, Value>,
    failing: bool,
}

/// Makes random workflows.
///
/// # Errors
/// The engine refuses them.
pub fn grove(rng: &mut Rng, shape: Shape) -> Result<Grove> {
    let mut planter = Planter {
        rng,
        shape,
        flows: BTreeMap::new(),
        configs: Map::new(),
        fields: BTreeMap::new(),
        failing: shape.fails == 0,
    };
    planter.workflow(ROOT, 0);
    let Planter {
        flows, configs, fields, ..
    } = planter;
    let lines = configs.iter().flat_map(|(workflow, nodes)| {
        let nodes = nodes.as_object().into_iter().flatten();
        nodes.map(move |(name, node)| format!("  {workflow}.{name}: {node}\n"))
    });
    let text = lines.collect();
    let tools: Vec<Tool> = flows.values().flat_map(|flow| flow.tools.clone()).collect();
    let limited = flows.values().any(|flow| flow.limits.llm_calls.is_some());
    let all = Flow {
        tools,
        ..Flow::default()
    };
    Ok(Grove {
        registry: Config::from_value(Json::Object(configs))?.registry().clone(),
        specs: all.specs()?,
        flows,
        fields: fields.into_iter().collect(),
        limits: Arc::new(Limits {
            llm_calls: limited.then_some(GENEROUS),
            ..Limits::default()
        }),
        text,
    })
}

impl Planter<'_> {
    fn workflow(&mut self, name: &str, level: usize) -> Vec<Name> {
        let mut builder = Builder::prefixed(self.rng.fork(), name);
        let mut nodes = Map::new();
        let mut needed = Vec::new();
        let children = match self.shape.levels - level {
            0 => 0,
            _ if level > 0 => 1,
            _ => self.rng.usize(1..=2),
        };
        let parts = if level == 0 {
            self.rng.usize(1..=2)
        } else {
            usize::from(self.rng.bool())
        };
        for number in 0..children.max(parts) {
            if number < parts {
                builder.part();
            }
            if number < children {
                self.child(&mut builder, &mut nodes, &mut needed, name, number, level);
            }
        }
        let lowest = level == self.shape.levels;
        if !self.failing && (lowest || self.rng.u8(..3) == 0) {
            self.failing = true;
            let custom = Custom {
                signals: Some(Vec::new()),
                fails: Fails::First(self.shape.fails),
                ..Custom::default()
            };
            let triggers = [builder.open[self.rng.usize(..builder.open.len())].clone()];
            builder.node(&triggers, &[], Kind::Custom(custom));
        }
        self.finish(builder, nodes, &mut needed, name);
        needed
    }

    /// What the parent of an execution waits for, and what it starts with.
    fn finish(&mut self, mut builder: Builder, nodes: Map<String, Json>, needed: &mut Vec<Name>, name: &str) {
        let worked: Name = format!("WORKED_{name}").into();
        let last = builder.open.last().cloned().unwrap_or_else(|| "START".into());
        builder.any_worker(&[last], &worked, Kept::Any, format!("result_{name}").into());
        builder.flow.exactly_once.push(worked);
        let mut flow = builder.flow;
        self.rng.shuffle(&mut flow.nodes);
        for (field, history) in &flow.fields {
            // A child gets the last value only; a list that is the only one counts like its items.
            let value = match history.as_slice() {
                [only] => only.clone(),
                many => Value::list(many.iter().cloned()),
            };
            self.fields.insert(field.clone(), value);
            needed.push(field.clone());
        }
        let mut config = nodes;
        if let Json::Object(mut own) = flow.config()
            && let Some(Json::Object(own)) = own.remove(WORKFLOW)
        {
            config.extend(own);
        }
        self.configs.insert(name.to_owned(), Json::Object(config));
        self.flows.insert(name.into(), flow);
    }

    /// A node that starts children, and the router that counts what they deliver.
    fn child(
        &mut self,
        builder: &mut Builder,
        nodes: &mut Map<String, Json>,
        needed: &mut Vec<Name>,
        of: &str,
        number: usize,
        level: usize,
    ) {
        let name = format!("{of}{number}");
        let failing = self.failing;
        let mut below = self.workflow(&name, level + 1);
        let fails = self.failing != failing;
        let (worked, result): (Name, Name) = (format!("WORKED_{name}").into(), format!("result_{name}").into());
        let start = builder.open[self.rng.usize(..builder.open.len())].clone();
        let told = &self.flows[name.as_str()].exactly_once;
        let told = &told[self.rng.usize(..told.len())];
        let mut node = json!({
            "node_type": "child",
            "event_triggers": [start.as_ref()],
            "child_workflow_name": name,
            "child_initial_signals": ["START"],
            "signals_to_parent": [worked.as_ref(), told.as_ref()],
            "context_updates_to_parent": [result.as_ref(), "shared", "own"],
            "event_emissions": [{"signal_name": format!("STARTED_{name}")}],
        });
        builder.flow.exactly_once.push(format!("STARTED_{name}").into());
        let mut joined = Cond::Count(result.clone(), 1);
        if self.rng.bool() {
            let (items, count): (Name, usize) = (format!("items_{name}").into(), self.rng.usize(1..=3));
            self.fields
                .insert(items.clone(), Value::list((0..count).map(Value::from)));
            needed.push(items.clone());
            node["fan_out_field"] = items.as_ref().into();
            node["child_input_field"] = "given".into();
            joined = Cond::Count(result.clone(), count);
            if self.rng.u8(..4) == 0 {
                node["spawn_interval"] = json!(0.01);
            }
        }
        below.sort();
        below.dedup();
        node["input_fields"] = json!(below.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
        needed.append(&mut below);
        if self.shape.handled {
            node["child_failure_signal"] = format!("FAILED_{name}").into();
        }
        nodes.insert(format!("c{number}"), node);
        if !(fails && self.shape.handled) {
            let all: Name = format!("ALL_{name}").into();
            builder.router(&worked, &all, joined);
            builder.flow.exactly_once.push(all.clone());
            builder.open.push(all);
        }
    }
}
