//! Tools that read and change what the executions of a tree share: identities and the context schema.

use serde_json::json;

use super::{Builtin, changes, flag, name, reads, text};

/// Whether a built-in tool works on what the tree shares.
pub(crate) fn works_on_definitions(name: &str) -> bool {
    matches!(
        name,
        "soe_get_identities"
            | "soe_inject_identity"
            | "soe_remove_identity"
            | "soe_get_context_schema"
            | "soe_inject_context_schema_field"
            | "soe_remove_context_schema_field"
    )
}

pub(super) fn all() -> Vec<Builtin> {
    vec![
        reads(
            "soe_get_identities",
            "Shows the identities (system prompts) of this execution's tree: all, one by its name, or the names alone.",
            &[],
            json!({
                "identity_name": text("Show this identity only."),
                "list_only": flag("List the names of the identities, without their prompts."),
            }),
        ),
        changes(
            "soe_inject_identity",
            "Adds an identity to this execution's tree, or replaces its system prompt. Requests made from then on use it.",
            &["identity_name", "system_prompt"],
            json!({
                "identity_name": name("The name of the identity."),
                "system_prompt": text("The system prompt."),
            }),
        ),
        changes(
            "soe_remove_identity",
            "Removes an identity from this execution's tree.",
            &["identity_name"],
            json!({"identity_name": name("The identity to remove.")}),
        ),
        reads(
            "soe_get_context_schema",
            "Shows what values the fields of the context must have: the schema of all fields, or of one.",
            &[],
            json!({"field_name": text("Show the schema of this field only.")}),
        ),
        changes(
            "soe_inject_context_schema_field",
            "Says what values a field of the context must have. Replies of LLMs to that field are checked against it.",
            &["field_name", "field_definition"],
            json!({
                "field_name": name("The field."),
                "field_definition": {
                    "type": ["object", "string"],
                    "description": "A type name (string, integer, number, boolean, list, object, any), or an object with \
                                    type, description, items, properties; as a value, or as YAML or JSON text.",
                },
            }),
        ),
        changes(
            "soe_remove_context_schema_field",
            "Removes the schema of a field of the context. The field's values stay.",
            &["field_name"],
            json!({"field_name": name("The field.")}),
        ),
    ]
}

#[cfg(all(test, feature = "runtime"))]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_work_on_definitions() {
        assert!(all().iter().all(|tool| works_on_definitions(tool.name)));
        assert!(!works_on_definitions("soe_get_context"));
    }
}
