//! The tools that the engine brings: what they are called, what they take. What they do is in the state machine, where
//! they read or change an execution, and in the driver, where they need the stores.

mod calls;
mod context;
mod definitions;
pub(crate) mod docs;
mod workflows;

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::{ToolSpec, ToolSpecs};
use crate::policy::Policy;

pub(crate) use definitions::works_on_definitions;

/// A built-in tool.
struct Builtin {
    name: &'static str,
    /// Whether it can change anything, or call what does.
    changes: bool,
    spec: Arc<ToolSpec>,
}

static ALL: LazyLock<Vec<Builtin>> = LazyLock::new(|| {
    let groups = [
        workflows::all(),
        context::all(),
        calls::all(),
        definitions::all(),
        docs::all(),
    ];
    groups.into_iter().flatten().collect()
});

/// The names of all built-in tools.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|tool| tool.name)
}

/// The built-in tools that a policy leaves, as workflows and LLMs see them.
pub fn specs(policy: &Policy) -> ToolSpecs {
    let allowed = ALL.iter().filter(|tool| policy.allows(tool.name));
    allowed.map(|tool| tool.spec.clone()).collect()
}

/// Whether `name` is the name of a built-in tool.
pub fn is_builtin(name: &str) -> bool {
    ALL.iter().any(|tool| tool.name == name)
}

pub(crate) fn changes_something(name: &str) -> bool {
    ALL.iter().any(|tool| tool.name == name && tool.changes)
}

fn reads(name: &'static str, description: &str, required: &[&str], properties: Value) -> Builtin {
    builtin(name, description, required, properties, false)
}

fn changes(name: &'static str, description: &str, required: &[&str], properties: Value) -> Builtin {
    builtin(name, description, required, properties, true)
}

fn builtin(name: &'static str, description: &str, required: &[&str], properties: Value, changes: bool) -> Builtin {
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let spec = ToolSpec::new(name, description, schema).expect("a test makes all of them");
    Builtin {
        name,
        changes,
        spec: Arc::new(spec),
    }
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn name(description: &str) -> Value {
    json!({"type": "string", "minLength": 1, "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn names_of(description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "description": description})
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn they_have_distinct_reserved_names_and_say_what_they_do() {
        let mut seen = HashSet::new();
        for tool in ALL.iter() {
            assert!(tool.name.starts_with("soe_") && seen.insert(tool.name), "{}", tool.name);
            assert!(tool.spec.description.len() > 20, "{}", tool.name);
            let properties = tool.spec.parameters()["properties"].as_object().unwrap();
            assert!(
                properties.values().all(|property| property["description"].is_string()),
                "{}",
                tool.name
            );
        }
    }

    #[test]
    fn a_policy_chooses_among_them() {
        let specs = specs(&Policy::default().only(["soe_get_context"]));
        assert_eq!(
            specs.names().map(AsRef::as_ref).collect::<Vec<_>>(),
            ["soe_get_context"]
        );
        assert!(is_builtin("soe_inject_node") && !is_builtin("soe_sing"));
    }
}
