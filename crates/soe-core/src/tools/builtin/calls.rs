//! The tool that calls other tools.

use serde_json::json;

use super::{Builtin, changes, name};

pub(super) fn all() -> Vec<Builtin> {
    vec![changes(
        "soe_call_tool",
        "Calls a tool of the application by its name.",
        &["tool_name"],
        json!({
            "tool_name": name("The tool to call."),
            "arguments": {
                "type": ["object", "string"],
                "description": "Its arguments, as an object or as JSON text.",
            },
        }),
    )]
}
