//! What is valid YAML, but not what this command is given: files that are something else.

use serde_json::{Map, Value};
use soe_core::config::parse_yaml;

use crate::problems::{Problem, Source};
use crate::tools::Positions;

/// What is wrong with a file that is taken for workflows by its name, but has tools in it.
pub(crate) fn misnamed_tools(file: &Source) -> Option<Problem> {
    let root = mapping_in(file).filter(|root| root.len() == 1)?;
    let tools = root.get("tools")?.as_object()?;
    let is_tool = |entry: &Value| {
        let has = |key| entry.get(key).is_some();
        !has("node_type") && (has("command") || has("type"))
    };
    let all = !tools.is_empty() && tools.values().all(is_tool);
    all.then(|| {
        let message = "this looks like a tools file: name it tools.yaml or *.tools.yaml, or pass it with --tools";
        Problem::error("misnamed-tools-file", message).at(Positions::of(&file.text).get("tools"))
    })
}

fn mapping_in(file: &Source) -> Option<Map<String, Value>> {
    match parse_yaml(&file.text).ok()?.to_json() {
        Value::Object(map) => Some(map),
        _ => None,
    }
}
