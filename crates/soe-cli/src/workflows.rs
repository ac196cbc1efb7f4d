//! The workflows that an execution can come to.

use std::collections::BTreeSet;
use std::sync::Arc;

use soe_core::config::{NodeKind, Registry, Workflow};

/// A workflow and all that its children run, each once. One that there isn't may be injected until it is needed.
pub(crate) fn reachable<'r>(registry: &'r Registry, workflow: &'r Arc<Workflow>) -> Vec<&'r Arc<Workflow>> {
    let (mut seen, mut left, mut found) = (BTreeSet::from([&workflow.name]), vec![workflow], Vec::new());
    while let Some(workflow) = left.pop() {
        found.push(workflow);
        let started = workflow.nodes.values().filter_map(|node| match &node.kind {
            NodeKind::Child(child) => registry.workflows.get(&child.workflow),
            _ => None,
        });
        left.extend(started.filter(|child| seen.insert(&child.name)));
    }
    found
}
