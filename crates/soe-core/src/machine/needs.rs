//! What workflows need of an engine: tools, LLMs, node types.

use std::sync::Arc;

use super::Specs;
use crate::config::{LlmNode, Node, NodeKind, Registry};

impl Specs {
    /// What a workflow needs and the engine doesn't have; `None` if it can run.
    pub fn missing_for(&self, registry: &Registry, workflow: &str) -> Option<String> {
        let Some(found) = registry.workflows.get(workflow) else {
            let names: Vec<&str> = registry.workflows.keys().map(AsRef::as_ref).collect();
            let known = match names.as_slice() {
                [] => "are no workflows".to_owned(),
                names => format!("are: {}", names.join(", ")),
            };
            return Some(format!("workflow '{workflow}' not found in config; there {known}"));
        };
        let missing: Vec<String> = found
            .nodes
            .values()
            .filter_map(|node| self.missing_for_node(node))
            .collect();
        (!missing.is_empty()).then(|| format!("workflow '{workflow}' can't run on this engine: {}", missing.join("; ")))
    }

    /// What a node needs and the engine doesn't have.
    pub fn missing_for_node(&self, node: &Node) -> Option<String> {
        let name = &node.name;
        match &node.kind {
            NodeKind::Router => None,
            NodeKind::Tool(tool) => self.missing_tool(name, &tool.tool),
            NodeKind::Llm(llm) => self.missing_llm(name, llm),
            NodeKind::Agent(agent) => {
                let missing = agent.tools.iter().find_map(|tool| self.missing_tool(name, tool));
                missing.or_else(|| self.missing_llm(name, &agent.llm))
            }
            NodeKind::Custom(kind) => (!self.node_types.contains(kind))
                .then(|| format!("node '{name}' has node_type '{kind}', which is not registered with this engine")),
            // Its workflow is checked when a child is created: it may be injected until then.
            NodeKind::Child(_) => None,
        }
    }

    fn missing_tool(&self, node: &str, tool: &str) -> Option<String> {
        if self.tools.contains(tool) {
            return None;
        }
        let known = listed(self.tools.names());
        Some(format!(
            "node '{node}' uses tool '{tool}', which is not registered ({known})"
        ))
    }

    fn missing_llm(&self, node: &str, llm: &LlmNode) -> Option<String> {
        match &llm.llm {
            _ if self.llms.get(llm.llm.as_deref()).is_some() => None,
            None => Some(format!("node '{node}' asks the default LLM, and none is registered")),
            Some(name) => {
                let known = listed(self.llms.names());
                Some(format!(
                    "node '{node}' asks LLM '{name}', which is not registered ({known})"
                ))
            }
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> String {
    let known: Vec<&str> = names.map(AsRef::as_ref).collect();
    match known.as_slice() {
        [] => "none are".to_owned(),
        known => format!("there are: {}", known.join(", ")),
    }
}
