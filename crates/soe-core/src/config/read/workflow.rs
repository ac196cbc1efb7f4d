//! Reading workflows and their nodes.

use std::sync::Arc;

use indexmap::IndexMap;
use soe_backends::{Map, Value};

use super::Known;
use super::fields::NodeReader;
use super::stored::stored_node;
use crate::config::codes::{EMPTY_WORKFLOW, INVALID_NODE, INVALID_WORKFLOW, RESERVED_NAME};
use crate::config::diagnostic::{Diagnostic, Problems};
use crate::config::yaml::{Entry, Tree};
use crate::config::{Node, Position, Workflow};

/// Reads the workflow `name`. `None` only after a problem was reported.
pub(crate) fn read_workflow(
    name: &Arc<str>,
    tree: &Tree,
    position: Option<Position>,
    known: Known<'_>,
    problems: &mut Problems,
) -> Option<Workflow> {
    let push = |problems: &mut Problems, problem: Diagnostic| problems.push(problem.workflow(name).at(position));
    let is_empty = tree.is_null() || tree.as_map().is_some_and(|map| map.is_empty());
    if is_empty && !known.stored {
        let message = format!("Workflow '{name}' is empty: it needs at least one node");
        push(problems, Diagnostic::new(EMPTY_WORKFLOW, message));
        return None;
    }
    let Some(map) = tree.as_map() else {
        let found = tree.type_name();
        let message = format!("Workflow '{name}' must be an object containing node definitions, not {found}");
        push(problems, Diagnostic::new(INVALID_WORKFLOW, message));
        return None;
    };
    let mut nodes = IndexMap::with_capacity(map.len());
    let errors = problems.errors();
    for (node, entry) in map.iter() {
        if let Some(read) = read_node(name, node, entry, known, problems) {
            nodes.insert(node.clone(), Arc::new(read));
        }
    }
    (problems.errors() == errors).then(|| Workflow::new(name.clone(), nodes))
}

/// Reads the node `name`. `None` only after a problem was reported.
pub(crate) fn read_node(
    workflow: &str,
    name: &Arc<str>,
    entry: &Entry,
    known: Known<'_>,
    problems: &mut Problems,
) -> Option<Node> {
    let tree = &entry.value;
    let position = entry.key_position;
    let place = |d: Diagnostic| d.workflow(workflow).node(name).at(position);
    let errors = problems.errors();
    if name.starts_with("__") {
        let message = format!("node name '{name}' is reserved: names that begin with '__' are");
        problems.push(place(Diagnostic::new(RESERVED_NAME, message)));
    }
    let Some(fields) = tree.as_map() else {
        let message = format!("a node must be an object with a 'node_type', not {}", tree.type_name());
        let mut problem = Diagnostic::new(INVALID_NODE, message);
        if &**name == "node_type" {
            problem = problem.help("this seems to be a node without a workflow: write a workflow's name above it");
        }
        problems.push(place(problem));
        return None;
    };
    let mut reader = NodeReader {
        problems,
        known,
        workflow,
        node: name,
        fields,
        position,
    };
    let typed = reader.typed();
    let config = reader.stored();
    let typed = typed.filter(|_| problems.errors() == errors)?;
    let type_name = match config.get("node_type") {
        Some(Value::Text(text)) => text.clone(),
        _ => Arc::default(),
    };
    Some(Node {
        name: name.clone(),
        type_name,
        config: Arc::new(config),
        triggers: typed.triggers,
        emissions: typed.emissions,
        kind: typed.kind,
    })
}

impl NodeReader<'_> {
    /// The node as it is stored.
    fn stored(&mut self) -> Map {
        let mut found = Problems::default();
        let config = stored_node(self.fields, &mut found);
        for problem in found.into_report().diagnostics {
            self.push(problem);
        }
        config
    }
}
