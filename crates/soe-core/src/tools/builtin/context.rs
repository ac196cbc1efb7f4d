//! Tools that read and change contexts.

use serde_json::json;

use super::{Builtin, changes, flag, names_of, reads, text};

pub(super) fn all() -> Vec<Builtin> {
    vec![
        reads(
            "soe_get_context",
            "Reads the context of this execution: for each field the list of all values that it has had, oldest first.",
            &[],
            json!({
                "field": text("Read this field only."),
                "fields": names_of("Read these fields only."),
            }),
        ),
        changes(
            "soe_update_context",
            "Writes fields of this execution's context: each value is appended to its field's history.",
            &["updates"],
            json!({"updates": {"type": "object", "description": "Field name to new value."}}),
        ),
        changes(
            "soe_copy_context",
            "Copies fields with all their values from one execution to another, or within one. What the target has under \
             such a name is replaced.",
            &[],
            json!({
                "source_execution_id": text("The execution to copy from; by default this one."),
                "target_execution_id": text("The execution to copy to; by default this one."),
                "fields": {
                    "type": "object",
                    "additionalProperties": {"type": "string", "minLength": 1},
                    "description": "Name of the field in the source to its name in the target.",
                },
                "all_fields": flag("Copy all fields under their names."),
            }),
        ),
        reads(
            "soe_list_contexts",
            "Lists the executions whose contexts can be read and copied, with what happened in them last.",
            &[],
            json!({"include_current": flag("Whether this execution is in the list; by default it is.")}),
        ),
    ]
}
