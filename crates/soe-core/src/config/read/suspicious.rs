//! What is valid, but probably not meant.

use super::fields::NodeReader;
use super::names::closest;
use crate::config::Position;
use crate::config::codes::{BOOLEAN_LIKE_NAME, MISPLACED_FIELD, MISSPELLED_FIELD, SHADOWING_NAME};
use crate::config::diagnostic::{Diagnostic, Problems};
use crate::config::yaml::{Content, Mapping, Tree};

const COMMON: &[&str] = &["node_type", "event_triggers", "event_emissions"];
const LLM: &[&str] = &[
    "prompt",
    "output_field",
    "identity",
    "retries",
    "llm_failure_signal",
    "input_fields",
    "llm",
    "history_window",
];
const AGENT: &[&str] = &[
    "prompt",
    "output_field",
    "identity",
    "retries",
    "llm_failure_signal",
    "input_fields",
    "llm",
    "history_window",
    "tools",
    "max_turns",
];
const TOOL: &[&str] = &[
    "tool_name",
    "parameters",
    "context_parameter_field",
    "output_field",
    "tools",
];
const CHILD: &[&str] = &[
    "child_workflow_name",
    "child_initial_signals",
    "input_fields",
    "signals_to_parent",
    "context_updates_to_parent",
    "fan_out_field",
    "child_input_field",
    "spawn_interval",
    "child_failure_signal",
];

/// Fields of llm and agent nodes that say how the LLM answers. Which of them there are depends on who calls it, so they are
/// only suggested.
const LLM_OPTIONS: &[&str] = &[
    "model",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "llm_options",
];

/// What authors write out of habit, and what it is called here.
const HABITS: &[(&str, &str)] = &[
    ("trigger", "event_triggers"),
    ("triggers", "event_triggers"),
    ("listens_to", "event_triggers"),
    ("on", "event_triggers"),
    ("emissions", "event_emissions"),
    ("emits", "event_emissions"),
    ("emit", "event_emissions"),
    ("type", "node_type"),
    ("output", "output_field"),
    ("tool", "tool_name"),
    ("params", "parameters"),
    ("args", "parameters"),
    ("arguments", "parameters"),
    ("workflow", "child_workflow_name"),
    ("workflow_name", "child_workflow_name"),
    ("child_workflow", "child_workflow_name"),
    ("initial_signals", "child_initial_signals"),
    ("child_signals", "child_initial_signals"),
    ("fan_out", "fan_out_field"),
    ("max_retries", "retries"),
    ("retry", "retries"),
    ("failure_signal", "llm_failure_signal"),
    ("window", "history_window"),
    ("max_history", "history_window"),
    ("max_iterations", "max_turns"),
    ("max_steps", "max_turns"),
    ("temp", "temperature"),
    ("top-p", "top_p"),
    ("max_output_tokens", "max_tokens"),
    ("model_name", "model"),
    ("stop_sequences", "stop"),
];

/// How many of the habits, the first ones, are about fields that all nodes have.
const COMMON_HABITS: usize = 8;

const EMISSION: &[&str] = &["signal_name", "condition"];

const EMISSION_HABITS: &[(&str, &str)] = &[
    ("when", "condition"),
    ("if", "condition"),
    ("cond", "condition"),
    ("conditions", "condition"),
    ("signal", "signal_name"),
    ("name", "signal_name"),
    ("event", "signal_name"),
];

impl NodeReader<'_> {
    /// Warns about fields that are misspelled, or that belong to another type of node.
    pub(super) fn check_field_names(&mut self, node_type: &str) {
        let Some(own) = fields_of(node_type) else {
            self.check_names("", self.fields, COMMON, &HABITS[..COMMON_HABITS]);
            return;
        };
        let asks = node_type == "llm" || node_type == "agent";
        let options = if asks { LLM_OPTIONS } else { &[] };
        let names: Vec<_> = COMMON.iter().chain(own).chain(options).copied().collect();
        self.check_names("", self.fields, &names, HABITS);
        for name in ["condition", "when", "if"] {
            if let Some(entry) = self.fields.get(name) {
                let message = format!("'{name}' has no effect on a node: conditions belong to its emissions");
                let help = "move it into event_emissions, beside signal_name";
                let problem = Diagnostic::new(MISPLACED_FIELD, message).help(help);
                self.push(problem.field(name).at(entry.key_position));
            }
        }
        for (name, entry) in self.fields {
            let is_field = [LLM, AGENT, TOOL, CHILD]
                .iter()
                .any(|fields| fields.contains(&name.as_ref()));
            if is_field && !names.contains(&name.as_ref()) {
                let message = format!("'{name}' has no effect on a node of type {node_type}");
                let problem = Diagnostic::new(MISPLACED_FIELD, message);
                self.push(problem.field(name.as_ref()).at(entry.key_position));
            }
        }
    }

    /// Warns about misspelled fields of an emission.
    pub(super) fn check_emission_fields(&mut self, path: &str, emission: &Mapping) {
        if emission.len()
            > usize::from(emission.contains_key("signal_name")) + usize::from(emission.contains_key("condition"))
        {
            self.check_names(&format!("{path}."), emission, EMISSION, EMISSION_HABITS);
        }
    }

    fn check_names(&mut self, prefix: &str, map: &Mapping, fields: &[&str], habits: &[(&str, &str)]) {
        for (name, entry) in map {
            let name = name.as_ref();
            if fields.contains(&name) || is_any_field(name) {
                continue;
            }
            let habit = habits.iter().find(|(habit, _)| *habit == name).map(|(_, field)| *field);
            let habit = habit.filter(|field| fields.contains(field) && !map.contains_key(*field));
            if let Some(field) = habit.or_else(|| closest(name, fields.iter().copied())) {
                let message = format!("'{name}' has no meaning here and is ignored");
                let problem = Diagnostic::new(MISSPELLED_FIELD, message).help(format!("did you mean '{field}'?"));
                self.push(problem.field(format!("{prefix}{name}")).at(entry.key_position));
            }
        }
    }
}

/// Warns if the field `name` is called like a method of mappings.
pub(crate) fn check_shadowing(
    problems: &mut Problems,
    name: &str,
    position: Option<Position>,
    place: impl FnOnce(Diagnostic) -> Diagnostic,
) {
    if crate::template::shadows_method(name) {
        let message = format!(
            "the context field '{name}' is called like a method of mappings: templates read the field here, but the method in Jinja2"
        );
        let help = format!("another name, or context['{name}'], means the same everywhere");
        problems.push(place(Diagnostic::new(SHADOWING_NAME, message).help(help)).at(position));
    }
}

/// Warns if a name without quotes is a boolean to other readers of YAML.
pub(super) fn check_boolean_like(problems: &mut Problems, tree: &Tree, place: impl FnOnce(Diagnostic) -> Diagnostic) {
    if let (Content::Bool(value), Some(written)) = (&tree.content, &tree.written) {
        let message = format!("the name {written} is text here, but the boolean {value} to other readers of YAML 1.1");
        let help = format!("write \"{written}\" in quotes");
        problems.push(place(Diagnostic::new(BOOLEAN_LIKE_NAME, message).help(help)).at(tree.position));
    }
}

/// The fields of a built-in node type, beside those that all have.
fn fields_of(node_type: &str) -> Option<&'static [&'static str]> {
    match node_type {
        "router" => Some(&[]),
        "llm" => Some(LLM),
        "agent" => Some(AGENT),
        "tool" => Some(TOOL),
        "child" => Some(CHILD),
        _ => None,
    }
}

fn is_any_field(name: &str) -> bool {
    [COMMON, LLM, AGENT, TOOL, CHILD]
        .iter()
        .any(|fields| fields.contains(&name))
}
