//! What the policy lets a node do to its execution.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::transaction::Transaction;
use super::{Caller, Refused, listed};
use crate::config::{Node, NodeKind, Registry, ValidateOptions};

impl Transaction<'_> {
    /// What injected configuration is checked against.
    pub(super) fn validation(&self) -> ValidateOptions {
        let names = |names: &mut dyn Iterator<Item = &Arc<str>>| Some(names.map(|name| name.to_string()).collect());
        ValidateOptions {
            tools: names(&mut self.machine.specs.tools.names()),
            node_types: names(&mut self.machine.specs.node_types.iter()),
            ..ValidateOptions::default()
        }
    }

    /// Whether something of this size may be injected, as far as it can be said before it is read.
    pub(super) fn check_injection(&self, what: &str, bytes: usize) -> Result<(), Refused> {
        let most = self.machine.specs.policy.injected_bytes();
        if bytes > most {
            let reason = format!("{what} has {bytes} bytes, {most} may be injected at a time");
            return Err(Refused::Denied(reason));
        }
        Ok(())
    }

    /// Whether the workflows may be changed once more.
    pub(super) fn check_changes(&self) -> Result<(), Refused> {
        let (made, most) = (self.state().workflow_changes, self.machine.specs.policy.changes());
        if made >= most {
            let reason = format!("the workflows of this execution were changed {made} times, {most} are allowed");
            return Err(Refused::Denied(reason));
        }
        Ok(())
    }

    /// Whether `caller` may inject these nodes into `registry`, which has them already.
    pub(super) fn check_nodes<'n>(
        &self,
        caller: &Caller<'_>,
        nodes: impl Iterator<Item = &'n Arc<Node>>,
        registry: &Registry,
    ) -> Result<(), Refused> {
        for node in nodes {
            self.check_plugged_in(node)?;
            if !self.machine.specs.policy.allows_escalation() {
                check_node(node, registry, &granted(&caller.node), &mut BTreeSet::new())?;
            }
        }
        Ok(())
    }

    /// What the engine doesn't have would fail the execution when the node runs.
    fn check_plugged_in(&self, node: &Node) -> Result<(), Refused> {
        let llm = match &node.kind {
            NodeKind::Llm(llm) => llm,
            NodeKind::Agent(agent) => &agent.llm,
            NodeKind::Custom(kind) if !self.machine.specs.node_types.contains(kind) => {
                let known = listed(self.machine.specs.node_types.iter());
                let message = format!(
                    "node '{}' has node_type '{kind}', which is not registered; {known}",
                    node.name
                );
                return Err(Refused::Failed(message));
            }
            _ => return Ok(()),
        };
        if self.machine.specs.llms.get(llm.llm.as_deref()).is_some() {
            return Ok(());
        }
        let name = &node.name;
        Err(Refused::Failed(match &llm.llm {
            None => format!("node '{name}' asks the default LLM, and there is none"),
            Some(llm) => {
                let known = listed(self.machine.specs.llms.names());
                format!("node '{name}' asks LLM '{llm}', which is not registered; {known}")
            }
        }))
    }
}

/// The tools that a node may use, and so what it injects.
pub(super) fn granted(node: &Node) -> Vec<Arc<str>> {
    match &node.kind {
        NodeKind::Agent(agent) => agent.tools.clone(),
        NodeKind::Tool(tool) => tool.grant.iter().flatten().chain([&tool.tool]).cloned().collect(),
        _ => Vec::new(),
    }
}

/// Whether an injected node uses only what is granted; one that starts a workflow uses what that does.
fn check_node(
    node: &Node,
    registry: &Registry,
    granted: &[Arc<str>],
    visited: &mut BTreeSet<Arc<str>>,
) -> Result<(), Refused> {
    let mut tools: Vec<&Arc<str>> = Vec::new();
    match &node.kind {
        NodeKind::Tool(tool) => tools.extend(tool.grant.iter().flatten().chain([&tool.tool])),
        NodeKind::Agent(agent) => tools.extend(&agent.tools),
        NodeKind::Custom(kind) => {
            let reason = format!(
                "node '{}' is of the application's type '{kind}', which can use any tool",
                node.name
            );
            return Err(Refused::Denied(reason));
        }
        NodeKind::Child(child) => return check_workflow(&child.workflow, registry, granted, visited),
        NodeKind::Router | NodeKind::Llm(_) => {}
    }
    match tools.into_iter().find(|tool| !granted.contains(tool)) {
        None => Ok(()),
        Some(tool) => Err(Refused::Denied(format!(
            "node '{}' uses tool '{tool}', which the node that injects it may not use: its author can grant it under 'tools'; it may use: {}",
            node.name,
            granted.join(", ")
        ))),
    }
}

fn check_workflow(
    name: &Arc<str>,
    registry: &Registry,
    granted: &[Arc<str>],
    visited: &mut BTreeSet<Arc<str>>,
) -> Result<(), Refused> {
    let mut left = vec![name.clone()];
    while let Some(name) = left.pop() {
        if !visited.insert(name.clone()) {
            continue;
        }
        let workflow = registry.workflows.get(&name);
        for node in workflow.into_iter().flat_map(|workflow| workflow.nodes.values()) {
            match &node.kind {
                NodeKind::Child(child) => left.push(child.workflow.clone()),
                _ => check_node(node, registry, granted, visited)?,
            }
        }
    }
    Ok(())
}
