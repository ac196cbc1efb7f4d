//! Tools that read and change contexts.

use serde_json::json;

use super::{Builtin, changes, names_of, reads, text};

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
    ]
}
