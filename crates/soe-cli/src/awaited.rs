//! The signals that a workflow listens to and that nothing in it sends: somebody has to.

use std::collections::HashSet;
use std::sync::Arc;

use soe_backends::ExecutionState;
use soe_core::config::{NodeKind, Workflow};
use soe_core::tools::ToolSpecs;

/// The signals that have never been sent to the execution and that no node of its workflow can send, in the order of the
/// file.
pub(crate) fn awaited(workflow: &Workflow, tools: &ToolSpecs, state: &ExecutionState) -> Vec<Arc<str>> {
    let sent = sent_by_nodes(workflow, tools);
    let signals = &state.context.operational.signals;
    let mut awaited: Vec<Arc<str>> = Vec::new();
    for trigger in workflow.nodes.values().flat_map(|node| &node.triggers) {
        if !sent.contains(trigger) && !signals.contains(trigger) && !awaited.contains(trigger) {
            awaited.push(trigger.clone());
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
