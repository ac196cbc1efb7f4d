//! What is valid as configuration, but not for this command: nodes that it can't run, and files that are something else.

use serde_json::{Map, Value};
use soe_core::config::{Severity, parse_yaml};

use crate::problems::{Problem, Source};
use crate::tools::{Positions, join};

/// The node types that can be written, but not run yet.
const NOT_RUNNABLE: &[&str] = &["child"];

/// A warning for each node of a workflow file that this version doesn't run, in the order of the file.
pub(crate) fn not_runnable(file: &Source) -> Vec<Problem> {
    let Some(root) = mapping_in(file) else {
        return Vec::new();
    };
    let (workflows, prefix) = match root.get("workflows") {
        Some(section) => (section.as_object(), "workflows"),
        None => (Some(&root), ""),
    };
    let mut positions = None;
    let mut problems = Vec::new();
    for (workflow, nodes) in workflows.into_iter().flatten() {
        for (node, fields) in nodes.as_object().into_iter().flatten() {
            let node_type = fields.get("node_type").and_then(Value::as_str);
            let Some(node_type) = node_type.filter(|name| NOT_RUNNABLE.contains(name)) else {
                continue;
            };
            let positions = positions.get_or_insert_with(|| Positions::of(&file.text));
            let path = [workflow, node, "node_type"]
                .iter()
                .fold(prefix.to_owned(), |path, key| join(&path, key));
            let message = format!("this version doesn't run nodes of type '{node_type}' yet");
            problems.push(Problem {
                severity: Severity::Warning,
                workflow: Some(workflow.clone()),
                node: Some(node.clone()),
                field: Some("node_type".to_owned()),
                ..Problem::error("not-runnable-yet", message).at(positions.get(&path))
            });
        }
    }
    problems
}

/// What is wrong with a file that is taken for workflows by its name, but has tools in it.
pub(crate) fn misnamed_tools(file: &Source) -> Option<Problem> {
    let root = mapping_in(file).filter(|root| root.len() == 1)?;
    let tools = root.get("tools")?.as_object()?;
    let is_tool = |entry: &Value| {
        let has = |key| entry.get(key).is_some();
        !has("node_type") && (has("command") || has("type"))
    };
    let all = !tools.is_empty() && tools.values().all(is_tool);
    all.then(|| {
        let message = "this looks like a tools file: name it tools.yaml or *.tools.yaml, or pass it with --tools";
        Problem::error("misnamed-tools-file", message).at(Positions::of(&file.text).get("tools"))
    })
}

fn mapping_in(file: &Source) -> Option<Map<String, Value>> {
    match parse_yaml(&file.text).ok()?.to_json() {
        Value::Object(map) => Some(map),
        _ => None,
    }
}
