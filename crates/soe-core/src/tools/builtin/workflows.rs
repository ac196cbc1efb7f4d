//! Tools that read and change the workflows of the execution that calls them.

use serde_json::{Value, json};

use super::{Builtin, changes, flag, name, reads, text};

pub(super) fn all() -> Vec<Builtin> {
    vec![
        reads(
            "soe_get_workflows",
            "Shows the workflows of this execution: all of them, one by its name, or the names alone.",
            &[],
            json!({
                "workflow_name": text("Show this workflow only."),
                "list_only": flag("List the names of the workflows, without their nodes."),
            }),
        ),
        changes(
            "soe_inject_workflow",
            "Adds a workflow to this execution, or replaces the one of that name. It is validated first; what is wrong \
             with it is reported with its place. It takes part from the next signal on.",
            &["workflow_name", "workflow_data"],
            json!({
                "workflow_name": name("The name of the workflow."),
                "workflow_data": definition("Its nodes by name, as an object or as YAML or JSON text."),
            }),
        ),
        changes(
            "soe_inject_node",
            "Adds a node to a workflow of this execution, or replaces the one of that name. It is validated first; what \
             is wrong with it is reported with its place. It takes part from the next signal on.",
            &["workflow_name", "node_name", "node_config_data"],
            json!({
                "workflow_name": name("The workflow that gets the node."),
                "node_name": name("The name of the node."),
                "node_config_data": definition("The node's configuration (node_type, event_triggers, ...), as an object or as YAML or JSON text."),
            }),
        ),
        changes(
            "soe_remove_workflow",
            "Removes a workflow from this execution. Runs in flight end as they began.",
            &["workflow_name"],
            json!({"workflow_name": name("The workflow to remove.")}),
        ),
        changes(
            "soe_remove_node",
            "Removes a node from a workflow of this execution. Runs of it that are in flight end as they began.",
            &["workflow_name", "node_name"],
            json!({
                "workflow_name": name("The workflow that has the node."),
                "node_name": name("The node to remove."),
            }),
        ),
        changes(
            "soe_add_signal",
            "Lets a node emit a signal, or changes the condition under which it does.",
            &["workflow_name", "node_name", "signal_name"],
            json!({
                "workflow_name": name("The workflow that has the node."),
                "node_name": name("The node that is to emit the signal."),
                "signal_name": name("The signal."),
                "condition": text("A template ('{{ context.score > 5 }}'), or words for an LLM to choose by. Without it the signal is always emitted."),
            }),
        ),
        reads(
            "soe_get_available_tools",
            "Lists the tools that nodes can use: built-in ones and those of the application.",
            &[],
            json!({}),
        ),
    ]
}

fn definition(description: &str) -> Value {
    json!({"type": ["object", "string"], "description": description})
}
