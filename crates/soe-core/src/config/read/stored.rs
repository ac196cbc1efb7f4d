//! Between documents and values: what is stored, and what was never text.

use std::sync::Arc;

use soe_backends::{Map, Value};

use super::MAX_DEPTH;
use crate::config::codes::{NON_FINITE_NUMBER, TOO_DEEP};
use crate::config::diagnostic::{ConfigError, Diagnostic, Problems};
use crate::config::yaml::{Content, Mapping, Step, Tree};

/// Fields whose value is a name, so that it is stored as the text that was written.
const NAMES: &[&str] = &[
    "node_type",
    "output_field",
    "identity",
    "llm_failure_signal",
    "tool_name",
    "context_parameter_field",
    "child_workflow_name",
    "fan_out_field",
    "child_input_field",
];

/// Fields whose value is a list of names.
const NAME_LISTS: &[&str] = &[
    "event_triggers",
    "tools",
    "child_initial_signals",
    "input_fields",
    "signals_to_parent",
    "context_updates_to_parent",
];

/// The tree of a value that was never text.
pub(crate) fn tree_of_value(value: &Value) -> Result<Tree, ConfigError> {
    Tree::from_value(value, MAX_DEPTH).map_err(|_| too_deep())
}

/// The tree of a document that was accepted before. It may be a little deeper than each part that went into it.
pub(crate) fn tree_of_stored(document: &Value) -> Result<Tree, ConfigError> {
    Tree::from_value(document, MAX_DEPTH + 8).map_err(|_| too_deep())
}

/// The tree of a value that was never text.
pub(crate) fn tree_of_json(json: serde_json::Value) -> Result<Tree, ConfigError> {
    // Converting first makes JSON of any depth safe to walk and to drop.
    tree_of_value(&Value::from(json))
}

fn too_deep() -> ConfigError {
    Diagnostic::new(
        TOO_DEEP,
        format!("the configuration is nested more deeply than {MAX_DEPTH} levels"),
    )
    .into()
}

/// The value of `tree`, or null and a problem if a number in it is none that can be stored.
pub(crate) fn value_or_problem(tree: &Tree, path: &str, problems: &mut Problems) -> Value {
    tree.to_value().unwrap_or_else(|number| {
        let mut path = path.to_owned();
        for step in &number.path {
            extend_path(&mut path, step);
        }
        let message = format!("the number {} is not finite", number.written);
        let problem = Diagnostic::new(NON_FINITE_NUMBER, message).help("put it in quotes if text is meant");
        problems.push(problem.at(number.position).field(path));
        Value::Null
    })
}

/// A node's configuration as it is stored, with every name as it was written: `signal_name: NO` is the text `NO`.
///
/// `report` gets the problems, whose field is a path inside the node.
pub(crate) fn stored_node(fields: &Mapping, problems: &mut Problems) -> Map {
    fields
        .iter()
        .map(|(key, entry)| {
            let tree = &entry.value;
            let value = match key.as_ref() {
                "event_emissions" => emissions(tree, problems),
                name if NAMES.contains(&name) => name_value(tree, name, problems),
                name if NAME_LISTS.contains(&name) => list(tree, name, problems, name_value),
                name => value_or_problem(tree, name, problems),
            };
            (key.clone(), value)
        })
        .collect()
}

fn emissions(tree: &Tree, problems: &mut Problems) -> Value {
    list(tree, "event_emissions", problems, |item, path, problems| {
        let Some(map) = item.as_map() else {
            return value_or_problem(item, path, problems);
        };
        let entries = map.iter().map(|(key, entry)| {
            let path = format!("{path}.{key}");
            let value = match key.as_ref() {
                "signal_name" => name_value(&entry.value, &path, problems),
                _ => value_or_problem(&entry.value, &path, problems),
            };
            (key.clone(), value)
        });
        Value::Map(Arc::new(entries.collect()))
    })
}

fn list(tree: &Tree, path: &str, problems: &mut Problems, item: impl Fn(&Tree, &str, &mut Problems) -> Value) -> Value {
    match &tree.content {
        Content::List(items) => {
            let items = items.iter().enumerate();
            Value::list(items.map(|(i, tree)| item(tree, &format!("{path}[{i}]"), problems)))
        }
        _ => value_or_problem(tree, path, problems),
    }
}

fn name_value(tree: &Tree, path: &str, problems: &mut Problems) -> Value {
    match tree.as_name() {
        Some(name) => Value::Text(name.clone()),
        None => value_or_problem(tree, path, problems),
    }
}

/// The text of a path: `steps`, and then `key`.
pub(crate) fn path_of(steps: &[Step], key: &str) -> String {
    let mut path = String::new();
    steps.iter().for_each(|step| extend_path(&mut path, step));
    extend_path(&mut path, &Step::Key(key.into()));
    path
}

fn extend_path(path: &mut String, step: &Step) {
    use std::fmt::Write as _;
    // Writing to a String can't fail.
    let _ = match step {
        Step::Index(i) => write!(path, "[{i}]"),
        Step::Key(key) if path.is_empty() => write!(path, "{key}"),
        Step::Key(key) => write!(path, ".{key}"),
    };
}
