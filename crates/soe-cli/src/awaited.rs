//! The signals that a workflow listens to and that nothing in it sends: somebody has to.

use std::collections::HashSet;
use std::sync::Arc;

use soe_backends::ExecutionState;
use soe_core::config::{Node, NodeKind, Workflow};
use soe_core::tools::ToolSpecs;

/// Signals that have never been sent to an execution and that no node of its workflow can send.
#[derive(Default)]
pub(crate) struct Awaited {
    /// Those that a node listens to that hasn't run yet, in the order of the file.
    pub(crate) needed: Vec<Arc<str>>,
    /// Those that only nodes listen to that have run on other signals.
    pub(crate) possible: Vec<Arc<str>>,
}

impl Awaited {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<str>> {
        self.needed.iter().chain(&self.possible)
    }
}

/// What somebody else has to send to the execution, or can.
pub(crate) fn awaited(workflow: &Workflow, tools: &ToolSpecs, state: &ExecutionState) -> Awaited {
    let sent = sent_by_nodes(workflow, tools);
    let operational = &state.context.operational;
    let has_run = |node: &&Arc<Node>| operational.nodes.get(&node.name).is_some();
    let (run, waiting): (Vec<_>, Vec<_>) = workflow.nodes.values().partition(has_run);
    let mut awaited = Awaited::default();
    let open = |trigger: &Arc<str>| !sent.contains(trigger) && !operational.signals.contains(trigger);
    for trigger in waiting.iter().flat_map(|node| &node.triggers) {
        if open(trigger) && !awaited.needed.contains(trigger) {
            awaited.needed.push(trigger.clone());
        }
    }
    for trigger in run.iter().flat_map(|node| &node.triggers) {
        if open(trigger) && !awaited.all().any(|known| known == trigger) {
            awaited.possible.push(trigger.clone());
        }
    }
    awaited
}

/// Every signal that a node listens to, in the order of the file.
pub(crate) fn triggers(workflow: &Workflow) -> Vec<Arc<str>> {
    let mut triggers: Vec<Arc<str>> = Vec::new();
    for trigger in workflow.nodes.values().flat_map(|node| &node.triggers) {
        if !triggers.contains(trigger) {
            triggers.push(trigger.clone());
        }
    }
    triggers
}

fn sent_by_nodes(workflow: &Workflow, tools: &ToolSpecs) -> HashSet<Arc<str>> {
    let mut sent = HashSet::new();
    for node in workflow.nodes.values() {
        sent.extend(node.emissions.iter().map(|emission| emission.signal.clone()));
        match &node.kind {
            NodeKind::Tool(tool) => sent.extend(tools.get(&tool.tool).and_then(|spec| spec.failure_signal.clone())),
            NodeKind::Llm(llm) => sent.extend(llm.failure_signal.clone()),
            NodeKind::Agent(agent) => sent.extend(agent.llm.failure_signal.clone()),
            NodeKind::Child(child) => sent.extend(child.signals_to_parent.iter().cloned()),
            NodeKind::Router | NodeKind::Custom(_) => {}
        }
    }
    sent
}
