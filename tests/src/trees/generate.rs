//! Random trees of workflows: children that work, parents that join what they deliver.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use fastrand::Rng;
use serde_json::{Map, Value as Json, json};
use soe_core::config::{Config, Registry};

/// The workflow of the root.
pub const ROOT: &str = "r";

/// A tree of workflows: the node `cN` of workflow `w` starts children that run the workflow `wN`.
#[derive(Debug)]
pub struct Forest {
    /// The workflows.
    pub registry: Arc<Registry>,
    /// The root's fields: lists to fan out over.
    pub fields: Vec<(&'static str, usize)>,
    /// By workflow, the signals that one of its executions must record exactly once if nothing fails.
    pub once: Vec<(String, String)>,
    /// The same, as text for people.
    pub text: String,
}

/// What a forest may have in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Levels below the root.
    pub levels: usize,
    /// Whether children of one node fail.
    pub fails: bool,
    /// Whether nodes have a signal for failed children.
    pub handled: bool,
}

struct Builder<'r> {
    rng: &'r mut Rng,
    shape: Shape,
    fields: Vec<(&'static str, usize)>,
    workflows: Map<String, Json>,
    once: Vec<(String, String)>,
    failing: bool,
}

/// Makes a random forest.
///
/// # Errors
/// The engine refuses it.
pub fn forest(rng: &mut Rng, shape: Shape) -> Result<Forest> {
    let fields = vec![("some", rng.usize(1..=3)), ("few", rng.usize(1..=2)), ("none", 0)];
    let mut builder = Builder {
        rng,
        shape,
        fields,
        workflows: Map::new(),
        once: Vec::new(),
        failing: false,
    };
    builder.workflow(ROOT, 0, false);
    let Builder {
        fields,
        workflows,
        once,
        ..
    } = builder;
    let written = workflows.iter().flat_map(|(workflow, nodes)| {
        let nodes = nodes.as_object().into_iter().flatten();
        nodes.map(move |(name, node)| format!("  {workflow}.{name}: {node}\n"))
    });
    let text = written.collect();
    let config = Config::from_yaml(&Json::Object(workflows).to_string()).map_err(|error| anyhow!("{error}"))?;
    Ok(Forest {
        registry: config.registry().clone(),
        fields,
        once,
        text,
    })
}

impl Builder<'_> {
    fn workflow(&mut self, name: &str, level: usize, fails: bool) {
        let go = if level == 0 { "START" } else { "GO" };
        let mut nodes = Map::new();
        let mut joined = Vec::new();
        let children = match self.shape.levels - level {
            0 => 0,
            _ if self.shape.levels > 2 && level > 0 => 1,
            _ => self.rng.usize(1..=2),
        };
        for number in 0..children {
            self.child(&mut nodes, &mut joined, name, number, level);
        }
        let ready = match joined.as_slice() {
            [] => go.to_owned(),
            all => {
                let conditions: Vec<String> = all
                    .iter()
                    .map(|signal| format!("'{signal}' in context.__operational__.signals"))
                    .collect();
                let condition = format!("{{{{ {} }}}}", conditions.join(" and "));
                nodes.insert("join".into(), router(&joined, "READY", Some(&condition)));
                self.once(name, "READY");
                "READY".to_owned()
            }
        };
        let worked = format!("WORKED_{name}");
        self.once(name, &worked);
        nodes.insert(
            "finish".into(),
            tool(&[&ready], &format!("result_{name}"), Some(&worked)),
        );
        nodes.insert("note".into(), router(&[go.to_owned()], "NOTE", None));
        nodes.insert("trace".into(), tool(&[go, "PING"], "trace", None));
        if self.rng.bool() {
            nodes.insert("silent".into(), tool(&["NOTE"], "silent", Some("NOBODY")));
        }
        if fails {
            nodes.insert("boom".into(), json!({"node_type": "boom", "event_triggers": [go]}));
        }
        self.workflows.insert(name.to_owned(), Json::Object(nodes));
    }

    /// A node that starts children, and the router that counts what they deliver.
    fn child(
        &mut self,
        nodes: &mut Map<String, Json>,
        joined: &mut Vec<String>,
        of: &str,
        number: usize,
        level: usize,
    ) {
        let name = format!("{of}{number}");
        let fails = self.shape.fails && !self.failing && (level + 1 == self.shape.levels || self.rng.bool());
        self.failing |= fails;
        self.workflow(&name, level + 1, fails);
        let joins = !fails && self.rng.u8(..4) > 0;
        let mut node = json!({
            "node_type": "child",
            "event_triggers": [if level == 0 { "START" } else { "GO" }],
            "child_workflow_name": name,
            "child_initial_signals": ["GO"],
            "input_fields": ["some", "few", "none"],
            "signals_to_parent": [format!("WORKED_{name}"), "NOTE"],
            "context_updates_to_parent": [format!("result_{name}"), "trace", "silent"],
            "event_emissions": [{"signal_name": format!("STARTED_{name}")}],
        });
        self.once(of, &format!("STARTED_{name}"));
        let mut count = "1".to_owned();
        if self.rng.bool() {
            let field = self.fields[self.rng.usize(..if joins || fails { 2 } else { 3 })].0;
            node["fan_out_field"] = field.into();
            node["child_input_field"] = "item".into();
            count = format!("context.{field} | accumulated | length");
            if self.rng.u8(..4) == 0 {
                node["spawn_interval"] = json!(0.01);
            }
        }
        if self.shape.handled {
            node["child_failure_signal"] = format!("FAILED_{name}").into();
        }
        nodes.insert(format!("c{number}"), node);
        if joins {
            let all = format!("ALL_{name}");
            let condition = format!("{{{{ context.result_{name} | history | length == {count} }}}}");
            let worked = [format!("WORKED_{name}")];
            nodes.insert(format!("count{number}"), router(&worked, &all, Some(&condition)));
            self.once(of, &all);
            joined.push(all);
        }
    }

    fn once(&mut self, workflow: &str, signal: &str) {
        self.once.push((workflow.to_owned(), signal.to_owned()));
    }
}

fn router(triggers: &[String], signal: &str, condition: Option<&str>) -> Json {
    let mut emission = json!({"signal_name": signal});
    if let Some(condition) = condition {
        emission["condition"] = condition.into();
    }
    json!({"node_type": "router", "event_triggers": triggers, "event_emissions": [emission]})
}

fn tool(triggers: &[&str], field: &str, signal: Option<&str>) -> Json {
    let emissions: Vec<Json> = signal.iter().map(|signal| json!({"signal_name": signal})).collect();
    json!({
        "node_type": "tool", "event_triggers": triggers, "tool_name": "t", "output_field": field,
        "event_emissions": emissions,
    })
}
