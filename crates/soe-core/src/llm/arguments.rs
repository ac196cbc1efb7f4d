//! The arguments that an LLM writes for a tool.

use serde_json::Value as Json;
use soe_backends::Value;

use crate::tools::ToolSpec;

use super::format::MAX_REPLY_BYTES;
use super::problems::{InvalidReply, Problems, looks_like_schema};
use super::{check, extract};

/// The arguments of a native call of the tool: read as leniently as a reply is, with the changes that lose nothing, and
/// checked. Nothing, and `null`, are no arguments: some LLMs write that where a tool takes none.
///
/// # Errors
/// They are too long, no JSON, nested too deeply, or not what the tool takes; in words for the LLM.
pub(crate) fn lenient_arguments(text: &str, spec: &ToolSpec) -> Result<Json, String> {
    if text.len() > MAX_REPLY_BYTES {
        let bytes = text.len();
        return Err(format!(
            "the arguments have {bytes} bytes, more than the {MAX_REPLY_BYTES} that are read"
        ));
    }
    let mut json = match text.trim() {
        "" | "null" => Json::Object(serde_json::Map::new()),
        text => extract::parse(text)
            .map_err(|error| format!("the arguments are no JSON: {}", extract::explained(&error)))?,
    };
    if check::nests_deeper(&json, Value::MAX_DEPTH) {
        return Err(format!("the arguments nest deeper than {} levels", Value::MAX_DEPTH));
    }
    check::adapt(&mut json, spec.parameters());
    match spec.check_json(&json) {
        Ok(()) => Ok(json),
        Err(error) => Err(error.to_string()),
    }
}

/// The arguments that were found in a reply, with the changes that lose nothing, and checked.
pub(super) fn checked(mut json: Json, spec: &ToolSpec) -> Result<Json, InvalidReply> {
    if check::nests_deeper(&json, Value::MAX_DEPTH) {
        let mut problems = Problems::default();
        problems.push(|| check::too_deep(""));
        return Err(problems.of(false));
    }
    check::adapt(&mut json, spec.parameters());
    match spec.check_json(&json) {
        Ok(()) => Ok(json),
        Err(error) => Err(Problems::from(error).of(looks_like_schema(&Value::from(&json)))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool() -> ToolSpec {
        let parameters = json!({
            "type": "object",
            "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}, "exact": {"type": "boolean"}},
            "required": ["query"],
        });
        ToolSpec::new("search", "", parameters).unwrap()
    }

    #[test]
    fn arguments_of_native_calls_are_read_as_replies_are() {
        for (text, expected) in [
            ("{\"query\": \"a\nb\"}", json!({"query": "a\nb"})),
            (
                " {\"query\": \"x\", \"limit\": \"5\", \"exact\": \"True\"}\n",
                json!({"query": "x", "limit": 5, "exact": true}),
            ),
            ("{\"query\": \"x\", \"limit\": 5.0}", json!({"query": "x", "limit": 5})),
        ] {
            assert_eq!(lenient_arguments(text, &tool()), Ok(expected), "{text}");
        }
        let none = ToolSpec::new("now", "", json!({"type": "object", "properties": {}})).unwrap();
        for text in ["", " \n", "null", " null ", "{}"] {
            assert_eq!(lenient_arguments(text, &none), Ok(json!({})), "{text:?}");
        }
    }

    #[test]
    fn arguments_that_are_wrong_say_why() {
        let nested = |levels: usize| format!("{{\"query\": {}{}}}", "[".repeat(levels), "]".repeat(levels));
        let long = " ".repeat(MAX_REPLY_BYTES + 1);
        for (text, expected) in [
            ("", "Tool 'search': "),
            ("{\"query\": 5}", "Tool 'search': "),
            ("{\"query\": \"x\", \"limit\": \"five\"}", "Tool 'search': "),
            ("[]", "Tool 'search': "),
            ("{\"query\"", "the arguments are no JSON: it ends before it is complete"),
            ("query", "the arguments are no JSON: "),
            (&nested(Value::MAX_DEPTH), "the arguments nest deeper than "),
            (&nested(1_000), "the arguments are no JSON: it is nested too deeply"),
            (&long, "the arguments have 8388609 bytes"),
        ] {
            let error = lenient_arguments(text, &tool()).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(error.len() < 500, "{error}");
        }
    }
}
