//! Whether the nodes of a workflow have what they ask for, before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use soe_core::config::{LlmNode, Node, NodeKind, Registry, Workflow};

use super::Choice;
use crate::args::LlmOptions;
use crate::output::shell_word;
use crate::workflows::reachable;

/// Checks that each node that asks an LLM has one, and a model where one is needed: in a workflow, and in those that its
/// children run.
///
/// # Errors
/// All LLMs that are missing in one, or else all models, and what to add.
pub(crate) fn check_nodes(registry: &Registry, workflow: &Arc<Workflow>, options: &LlmOptions) -> anyhow::Result<()> {
    let mut workflows = reachable(registry, workflow).into_iter();
    workflows.try_for_each(|workflow| check(workflow, options))
}

fn check(workflow: &Workflow, options: &LlmOptions) -> anyhow::Result<()> {
    let mut missing: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    let mut without_model = Vec::new();
    for node in workflow.nodes.values() {
        let Some(llm) = asking(node) else { continue };
        let wanted = llm.llm.as_deref();
        match options.choices.iter().find(|choice| choice.name.as_deref() == wanted) {
            None => missing.entry(wanted).or_default().push(&node.name),
            Some(Choice { kind, .. }) => {
                let is_open = options.model.is_none() && !node.config.contains_key("model");
                if kind.is_endpoint() && is_open {
                    without_model.push(node.name.as_ref());
                }
            }
        }
    }
    if !missing.is_empty() {
        let lines: Vec<String> = missing
            .iter()
            .map(|(wanted, nodes)| describe(*wanted, nodes, options))
            .collect();
        bail!("workflow '{}' can't run: {}", workflow.name, lines.join("\n"));
    }
    if !without_model.is_empty() {
        let nodes = listed(&without_model, "names", "name");
        bail!(
            "workflow '{}' can't run: {nodes} no model: add --model NAME, or a field `model` to the node",
            workflow.name
        );
    }
    Ok(())
}

fn asking(node: &Node) -> Option<&LlmNode> {
    match &node.kind {
        NodeKind::Llm(llm) => Some(llm),
        NodeKind::Agent(agent) => Some(&agent.llm),
        _ => None,
    }
}

fn describe(wanted: Option<&str>, nodes: &[&str], options: &LlmOptions) -> String {
    let nodes = listed(nodes, "asks", "ask");
    let Some(wanted) = wanted else {
        return format!(
            "{nodes} an LLM, and there is none: add --llm openai, or --llm mock:FILE to try it without a key"
        );
    };
    let named: Vec<&str> = options
        .choices
        .iter()
        .filter_map(|choice| choice.name.as_deref())
        .collect();
    let others = match named.as_slice() {
        [] => String::new(),
        names => format!(" (there are: {})", names.join(", ")),
    };
    if !super::choice::can_be_named(wanted) {
        return format!(
            "{nodes} the LLM '{wanted}', and no --llm can give one of that name: choose a name without '=' that doesn't \
             begin like mock:FILE"
        );
    }
    let option = shell_word(&format!("{wanted}=openai"));
    let mocked = shell_word(&format!("{wanted}=mock:FILE"));
    format!(
        "{nodes} the LLM '{wanted}', and there is none of that name{others}: add --llm {option}, or \
         --llm {mocked} to try it without a key"
    )
}

/// `node 'A' asks`, `nodes 'A', 'B' ask`
fn listed(nodes: &[&str], one: &str, many: &str) -> String {
    let names: Vec<String> = nodes.iter().map(|name| format!("'{name}'")).collect();
    match names.as_slice() {
        [name] => format!("node {name} {one}"),
        names => format!("nodes {} {many}", names.join(", ")),
    }
}
