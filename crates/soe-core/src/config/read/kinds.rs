//! What is particular to each type of node.

use std::sync::Arc;
use std::time::Duration;

use super::emissions::PlainText;
use super::fields::{NodeReader, has_tags};
use super::names::{closest, looks_like};
use crate::config::codes::{
    CONFLICTING_FIELDS, INVALID_VALUE, MISSING_FIELD, REMOVED_FIELD, UNKNOWN_CHILD_WORKFLOW, UNKNOWN_NODE_TYPE,
    UNKNOWN_TOOL, UNREGISTERED_NODE_TYPE,
};
use crate::config::diagnostic::Diagnostic;
use crate::config::yaml::{Content, Tree};
use crate::config::{AgentNode, Arguments, ChildNode, Emission, FanOut, LlmNode, NodeKind, Position, ToolNode};
use crate::llm::HistoryWindow;
use crate::template::Template;

const BUILT_IN: &[&str] = &["router", "llm", "agent", "tool", "child"];

const DEFAULT_RETRIES: u32 = 3;

/// So many decisions are more than a task takes that an agent will ever finish.
const DEFAULT_MAX_TURNS: u32 = 50;

/// Beyond this many errors, no names of workflows are suggested: each suggestion looks at all of them.
const MAX_SUGGESTED: usize = 20;

/// What a node's type says about it.
pub(super) struct Typed {
    pub(super) triggers: Vec<Arc<str>>,
    pub(super) emissions: Vec<Emission>,
    pub(super) kind: NodeKind,
}

impl NodeReader<'_> {
    /// Reads the fields of a node of any type. `None` only after a problem was reported.
    pub(super) fn typed(&mut self) -> Option<Typed> {
        let purpose = "the type of the node: router, llm, agent, tool or child";
        let Some(node_type) = self.required_name("node_type", purpose) else {
            // Whatever type was meant, these fields mean the same.
            self.triggers("node");
            self.emissions(PlainText::Unknown);
            self.check_field_names("");
            return None;
        };
        self.check_field_names(&node_type);
        match node_type.as_ref() {
            "router" => Some(Typed {
                triggers: self.triggers("router"),
                emissions: self.required_emissions(PlainText::Passes),
                kind: NodeKind::Router,
            }),
            "llm" => self.with_kind("llm node", PlainText::Chosen, |r| Some(NodeKind::Llm(r.llm("LLM")?))),
            "agent" => self.with_kind("agent", PlainText::Chosen, |r| Some(NodeKind::Agent(r.agent()?))),
            "tool" => self.with_kind("tool node", PlainText::Passes, |r| Some(NodeKind::Tool(r.tool()?))),
            "child" => self.with_kind("child node", PlainText::Passes, |r| Some(NodeKind::Child(r.child()?))),
            _ => self.custom(node_type),
        }
    }

    fn with_kind(
        &mut self,
        what: &str,
        plain_text: PlainText,
        read: impl FnOnce(&mut Self) -> Option<NodeKind>,
    ) -> Option<Typed> {
        let triggers = self.triggers(what);
        let emissions = self.emissions(plain_text);
        let kind = read(self)?;
        Some(Typed {
            triggers,
            emissions,
            kind,
        })
    }

    fn triggers(&mut self, what: &str) -> Vec<Arc<str>> {
        let purpose = format!("name the signals that start this {what}");
        self.required_names("event_triggers", "signal names", &purpose)
    }

    fn custom(&mut self, node_type: Arc<str>) -> Option<Typed> {
        let position = self.get("node_type").and_then(|tree| tree.position);
        let registered = self.known.options.node_types.as_ref();
        let is_registered = registered.is_some_and(|types| types.contains(node_type.as_ref()));
        if !is_registered && !self.known.stored {
            let registered = registered.into_iter().flatten().map(String::as_str);
            let names = BUILT_IN.iter().copied().chain(registered);
            let lower = node_type.to_lowercase();
            let meant = closest(&node_type, names).or_else(|| BUILT_IN.iter().copied().find(|name| *name == lower));
            if let Some(meant) = meant.filter(|_| !node_type.starts_with('_')) {
                let message = format!("unknown node_type '{node_type}'");
                let help = format!(
                    "did you mean '{meant}'? Types are router, llm, agent, tool, child, and what the application registers"
                );
                let problem = Diagnostic::new(UNKNOWN_NODE_TYPE, message).help(help);
                self.push(problem.field("node_type").at(position));
            } else if self.known.options.node_types.is_some() || !node_type.starts_with('_') {
                let message =
                    format!("unknown node_type '{node_type}': it is neither built in nor known to be registered");
                let help = "the application must register it before a workflow with it is started";
                let problem = Diagnostic::new(UNREGISTERED_NODE_TYPE, message).help(help);
                self.push(problem.field("node_type").at(position));
            }
        }
        Some(Typed {
            triggers: self.names("event_triggers", "signal names"),
            emissions: self.emissions(PlainText::Unknown),
            kind: NodeKind::Custom(node_type),
        })
    }

    fn llm(&mut self, what: &str) -> Option<LlmNode> {
        self.check_input_fields(what);
        let prompt = self.prompt();
        let output_field = self.written_field("output_field");
        let identity = self.identity();
        let retries = self.retries();
        let failure_signal = self.name("llm_failure_signal");
        let llm = self.name("llm");
        let history_window = self.history_window();
        Some(LlmNode {
            prompt: prompt?,
            output_field,
            identity,
            retries,
            failure_signal,
            llm,
            history_window,
        })
    }

    fn agent(&mut self) -> Option<AgentNode> {
        let mut tools = self.names("tools", "tool names");
        let mut listed = std::collections::BTreeSet::new();
        tools.retain(|tool| listed.insert(tool.clone()));
        if let Some(Content::List(items)) = self.get("tools").map(|tree| &tree.content) {
            for (i, item) in items.iter().enumerate() {
                if let Some(tool) = item.as_name() {
                    self.check_tool(&format!("tools[{i}]"), item.position, tool);
                }
            }
        }
        let max_turns = self
            .count("max_turns", self.get("max_turns"))
            .unwrap_or(DEFAULT_MAX_TURNS);
        let llm = self.llm("Agent")?;
        Some(AgentNode { llm, tools, max_turns })
    }

    fn check_input_fields(&mut self, what: &str) {
        if let Some(tree) = self.get("input_fields") {
            let message = format!("'input_fields' is no longer supported for {what} nodes");
            let help = "name the fields in the prompt: {{ context.field_name }}";
            let problem = Diagnostic::new(REMOVED_FIELD, message).help(help);
            self.push(problem.field("input_fields").at(tree.position));
        }
    }

    fn prompt(&mut self) -> Option<Template> {
        if let Some(tree) = self.get("prompt") {
            match &tree.content {
                Content::Text(text) if !text.is_empty() => return self.template("prompt", text, tree),
                Content::Text(_) => {}
                _ => {
                    let message = format!("'prompt' must be a string, not {}", tree.type_name());
                    self.report(INVALID_VALUE, "prompt", tree.position, message);
                    return None;
                }
            }
        }
        self.missing("prompt", "the text that the LLM gets");
        None
    }

    fn identity(&mut self) -> Option<Template> {
        let identity = self.name("identity")?;
        let tree = self.get("identity")?;
        self.template("identity", &identity, tree)
    }

    fn retries(&mut self) -> u32 {
        let Some(tree) = self.get("retries") else {
            return DEFAULT_RETRIES;
        };
        let retries = match tree.content {
            Content::Int(value) => u32::try_from(value).ok(),
            _ => None,
        };
        retries.unwrap_or_else(|| {
            let message = format!("'retries' must be a positive integer or 0 (default is {DEFAULT_RETRIES})");
            self.report(INVALID_VALUE, "retries", tree.position, message);
            DEFAULT_RETRIES
        })
    }

    /// `history_window: 20`, or `{turns: 20, characters: 8000}`.
    fn history_window(&mut self) -> HistoryWindow {
        const FIELD: &str = "history_window";
        let Some(tree) = self.get(FIELD) else {
            return HistoryWindow::default();
        };
        let size = |count: Option<u32>| count.and_then(|count| usize::try_from(count).ok());
        let Some(map) = tree.as_map() else {
            return HistoryWindow {
                turns: size(self.count(FIELD, Some(tree))),
                characters: None,
            };
        };
        for (name, entry) in map
            .iter()
            .filter(|(name, _)| !["turns", "characters"].contains(&name.as_ref()))
        {
            let message = format!("'{FIELD}' has no part '{name}'; it has turns and characters");
            self.report(INVALID_VALUE, &format!("{FIELD}.{name}"), entry.key_position, message);
        }
        let mut part = |name: &str| {
            let tree = map.get(name).map(|entry| &entry.value).filter(|value| !value.is_null());
            size(self.count(&format!("{FIELD}.{name}"), tree))
        };
        HistoryWindow {
            turns: part("turns"),
            characters: part("characters"),
        }
    }

    /// A number from 1 on; `None` if it is missing, or after a problem was reported.
    fn count(&mut self, path: &str, tree: Option<&Tree>) -> Option<u32> {
        let tree = tree?;
        let count = match tree.content {
            Content::Int(value) => u32::try_from(value).ok().filter(|count| *count > 0),
            _ => None,
        };
        if count.is_none() {
            let message = format!("'{path}' must be an integer from 1 on");
            self.report(INVALID_VALUE, path, tree.position, message);
        }
        count
    }

    fn tool(&mut self) -> Option<ToolNode> {
        let tool = self.required_name("tool_name", "the tool to call");
        if let Some(tool) = &tool {
            let position = self.get("tool_name").and_then(|tree| tree.position);
            self.check_tool("tool_name", position, tool);
        }
        let output_field = self.written_field("output_field");
        let arguments = self.arguments();
        let grant = self.get("tools").is_some().then(|| self.names("tools", "tool names"));
        Some(ToolNode {
            tool: tool?,
            output_field,
            arguments: arguments?,
            grant,
        })
    }

    fn arguments(&mut self) -> Option<Arguments> {
        let parameters = self.get("parameters");
        let field = self.name("context_parameter_field");
        if let (Some(tree), Some(_)) = (parameters, &field) {
            let message = "Cannot specify both 'parameters' and 'context_parameter_field'";
            let problem = Diagnostic::new(CONFLICTING_FIELDS, message).help("remove one of them");
            self.push(problem.field("parameters").at(tree.position));
        }
        match (parameters, field) {
            (Some(tree), _) => match tree.as_map() {
                Some(map) => self.parameters("parameters", map).map(Arguments::Parameters),
                None => {
                    let message = format!(
                        "'parameters' must be a dict of arguments by name, not {}",
                        tree.type_name()
                    );
                    self.report(INVALID_VALUE, "parameters", tree.position, message);
                    None
                }
            },
            (None, Some(field)) => Some(Arguments::ContextField(field)),
            (None, None) => Some(Arguments::None),
        }
    }

    fn check_tool(&mut self, path: &str, position: Option<Position>, tool: &str) {
        let Some(tools) = self.known.options.tools.as_ref() else {
            return;
        };
        if tools.contains(tool) || has_tags(tool) {
            return;
        }
        let message = format!("Tool '{tool}' not found: it is neither registered nor built in");
        let mut problem = Diagnostic::new(UNKNOWN_TOOL, message).field(path).at(position);
        if self.problems.lists_errors()
            && let Some(meant) = closest(tool, tools.iter().map(String::as_str))
        {
            problem = problem.help(format!("did you mean '{meant}'?"));
        }
        self.push(problem);
    }

    fn child(&mut self) -> Option<ChildNode> {
        let workflow = self.required_name("child_workflow_name", "the workflow to start as a child");
        if let Some(workflow) = &workflow {
            self.check_child_workflow(workflow);
        }
        let purpose = "the signals that start the child";
        let initial_signals = self.required_names("child_initial_signals", "signal names", purpose);
        let input_fields = self.field_names("input_fields");
        let signals_to_parent = self.names("signals_to_parent", "signal names");
        let context_updates_to_parent = self.field_names("context_updates_to_parent");
        let fan_out = self.fan_out();
        let spawn_interval = self.spawn_interval();
        let failure_signal = self.name("child_failure_signal");
        Some(ChildNode {
            workflow: workflow?,
            initial_signals,
            input_fields,
            signals_to_parent,
            context_updates_to_parent,
            fan_out,
            spawn_interval,
            failure_signal,
        })
    }

    fn check_child_workflow(&mut self, name: &Arc<str>) {
        let Some(workflows) = self.known.workflows else {
            return;
        };
        if workflows.contains(name) {
            return;
        }
        let position = self.get("child_workflow_name").and_then(|tree| tree.position);
        let message = format!("'child_workflow_name' is '{name}', but no workflow has that name");
        let mut problem = Diagnostic::new(UNKNOWN_CHILD_WORKFLOW, message)
            .field("child_workflow_name")
            .at(position);
        let suggest = self.problems.errors() < MAX_SUGGESTED;
        // The set has no order of its own, and messages shouldn't depend on it.
        let meant = workflows
            .iter()
            .filter(|workflow| suggest && looks_like(name, workflow))
            .min();
        if let Some(meant) = meant {
            problem = problem.help(format!("did you mean '{meant}'?"));
        }
        self.push(problem);
    }

    fn fan_out(&mut self) -> Option<FanOut> {
        let field = self.name("fan_out_field");
        if field.is_none() {
            self.written_field("child_input_field");
            return None;
        }
        let missing = match self.get("child_input_field") {
            None => true,
            Some(tree) => tree.as_name().is_some_and(|name| name.is_empty()),
        };
        if missing {
            let message =
                "'child_input_field' is required when 'fan_out_field' is set: the child's field that receives its item";
            let position = self.get("fan_out_field").and_then(|tree| tree.position);
            self.report(MISSING_FIELD, "child_input_field", position, message);
            return None;
        }
        let child_input_field = self.written_field("child_input_field")?;
        Some(FanOut {
            field: field?,
            child_input_field,
        })
    }

    fn spawn_interval(&mut self) -> Duration {
        let Some(tree) = self.get("spawn_interval") else {
            return Duration::ZERO;
        };
        let seconds = match tree.content {
            Content::Int(value) => Some(value as f64),
            Content::UInt(value) => Some(value as f64),
            Content::Float(value) if !value.is_nan() => Some(value),
            _ => None,
        };
        let message = match seconds.map(|seconds| (seconds, Duration::try_from_secs_f64(seconds))) {
            Some((_, Ok(duration))) => return duration,
            Some((seconds, Err(_))) if seconds < 0.0 => "'spawn_interval' must be non-negative",
            Some(_) => "'spawn_interval' is too long",
            None => "'spawn_interval' must be a number of seconds",
        };
        self.report(INVALID_VALUE, "spawn_interval", tree.position, message);
        Duration::ZERO
    }
}
