//! Who emits and who listens: a workflow as a graph of nodes and signals.

use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use soe_backends::Value;

use crate::config::{ChildNode, Condition, Node, NodeKind, Workflow};

/// A workflow as a graph. Nodes and signals are numbered in the order of the file.
pub(super) struct SignalGraph<'w> {
    pub(super) nodes: Vec<&'w Node>,
    pub(super) signals: IndexSet<&'w str>,
    /// The nodes that listen for each signal.
    pub(super) listeners: Vec<Vec<usize>>,
    /// What each node can emit.
    pub(super) outputs: Vec<Vec<Output>>,
}

/// A signal that a node can emit.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) signal: usize,
    pub(super) when: When,
}

/// When a node emits a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Each time it has run.
    Always,
    /// It depends on a condition, or on the choice of an LLM.
    Sometimes,
    /// When it fails.
    Failure,
    /// A child that it started sends it, later.
    Delivered,
}

impl<'w> SignalGraph<'w> {
    pub(super) fn new(workflow: &'w Workflow) -> Self {
        let mut graph = Self {
            nodes: workflow.nodes.values().map(AsRef::as_ref).collect(),
            signals: IndexSet::new(),
            listeners: Vec::new(),
            outputs: Vec::new(),
        };
        for i in 0..graph.nodes.len() {
            let node = graph.nodes[i];
            for trigger in &node.triggers {
                let signal = graph.signal(trigger);
                if graph.listeners[signal].last() != Some(&i) {
                    graph.listeners[signal].push(i);
                }
            }
            let outputs = outputs(node)
                .map(|(signal, when)| Output {
                    signal: graph.signal(signal),
                    when,
                })
                .collect();
            graph.outputs.push(outputs);
        }
        graph
    }

    /// The number of `signal`, if the workflow names it.
    pub(super) fn number(&self, signal: &str) -> Option<usize> {
        self.signals.get_index_of(signal)
    }

    /// Whether each signal can be emitted inside the workflow.
    pub(super) fn emitted(&self) -> Vec<bool> {
        let mut emitted = vec![false; self.signals.len()];
        for output in self.outputs.iter().flatten() {
            emitted[output.signal] = true;
        }
        emitted
    }

    fn signal(&mut self, name: &'w str) -> usize {
        let (number, is_new) = self.signals.insert_full(name);
        if is_new {
            self.listeners.push(Vec::new());
        }
        number
    }
}

/// The child node that `node` is, if it is one.
pub(super) fn as_child(node: &Node) -> Option<&ChildNode> {
    match &node.kind {
        NodeKind::Child(child) => Some(child),
        _ => None,
    }
}

/// All child nodes of `workflows` by the name of the workflow that they start.
pub(super) fn children_by_workflow(workflows: &IndexMap<Arc<str>, Arc<Workflow>>) -> IndexMap<&str, Vec<&ChildNode>> {
    let mut children: IndexMap<&str, Vec<&ChildNode>> = IndexMap::new();
    let nodes = workflows.values().flat_map(|workflow| workflow.nodes.values());
    for child in nodes.filter_map(|node| as_child(node)) {
        children.entry(&child.workflow).or_default().push(child);
    }
    children
}

fn outputs(node: &Node) -> impl Iterator<Item = (&Arc<str>, When)> {
    let has_template = || {
        node.emissions
            .iter()
            .any(|e| matches!(e.condition, Condition::Jinja(_)))
    };
    let llm_chooses = match node.kind {
        NodeKind::Llm(_) | NodeKind::Agent(_) => node.emissions.len() > 1 && !has_template(),
        NodeKind::Custom(_) => true,
        _ => false,
    };
    let emitted = node.emissions.iter().map(move |emission| {
        let when = match emission.condition {
            Condition::Jinja(_) => When::Sometimes,
            _ if llm_chooses => When::Sometimes,
            _ => When::Always,
        };
        (&emission.signal, when)
    });
    let failure = match &node.kind {
        NodeKind::Llm(llm) => llm.failure_signal.as_ref(),
        NodeKind::Agent(agent) => agent.llm.failure_signal.as_ref(),
        NodeKind::Child(child) => child.failure_signal.as_ref(),
        NodeKind::Custom(_) => match node.config.get("failure_signal") {
            Some(Value::Text(signal)) => Some(signal),
            _ => None,
        },
        _ => None,
    };
    let delivered = as_child(node).map_or(&[][..], |child| &child.signals_to_parent);
    emitted
        .chain(failure.map(|signal| (signal, When::Failure)))
        .chain(delivered.iter().map(|signal| (signal, When::Delivered)))
}
