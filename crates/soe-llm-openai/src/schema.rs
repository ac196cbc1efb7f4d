//! Reply schemas, in the form that endpoints take.

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

/// The property that holds a reply that is no object.
const WRAPPER: &str = "value";

/// What the text of a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Any text.
    Free,
    /// JSON: the request has a schema.
    Json,
    /// JSON inside an object that was put around the schema.
    Wrapped,
}

/// The schema to send, and whether replies are wrapped: endpoints want an object at the root.
pub(crate) fn for_endpoint(schema: &Value) -> (Value, bool) {
    if schema.get("type").and_then(Value::as_str) == Some("object") {
        return (schema.clone(), false);
    }
    let mut inner = schema.clone();
    let mut outer = Map::new();
    if let Value::Object(inner) = &mut inner {
        for shared in ["$schema", "$defs", "definitions"] {
            if let Some(mut value) = inner.shift_remove(shared) {
                move_references(&mut value);
                outer.insert(shared.to_owned(), value);
            }
        }
    }
    move_references(&mut inner);
    outer.insert("type".to_owned(), json!("object"));
    outer.insert("properties".to_owned(), json!({ WRAPPER: inner }));
    outer.insert("required".to_owned(), json!([WRAPPER]));
    outer.insert("additionalProperties".to_owned(), json!(false));
    (Value::Object(outer), true)
}

/// The reply inside its wrapper. A text that has none stays as it is: the engine says what is wrong with it.
///
/// # Errors
/// The wrapper is broken, mostly cut off. The engine could take it for a text that was meant.
pub(crate) fn unwrapped(text: String) -> Result<String, serde_json::Error> {
    let mut wrapper = match serde_json::from_str(&text) {
        Ok(Value::Object(wrapper)) => wrapper,
        Err(error) if text.trim_start().starts_with('{') => return Err(error),
        _ => return Ok(text),
    };
    Ok(match wrapper.shift_remove(WRAPPER) {
        Some(value) if wrapper.is_empty() => value.to_string(),
        _ => text,
    })
}

/// Whether the text is one JSON value from its beginning to its end.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Lets references within the schema point to where things are in the wrapper.
fn move_references(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(target) if key == "$ref" => *target = moved(target),
                    value => move_references(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(move_references),
        _ => {}
    }
}

fn moved(target: &str) -> String {
    match target.strip_prefix('#') {
        Some("") => format!("#/properties/{WRAPPER}"),
        Some(path) if path.starts_with("/$defs/") || path.starts_with("/definitions/") => target.to_owned(),
        Some(path) if path.starts_with('/') => format!("#/properties/{WRAPPER}{path}"),
        _ => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_sent_as_it_is() {
        let schema = json!({"type": "object", "properties": {"a": {}}});
        assert_eq!(for_endpoint(&schema), (schema, false));
    }

    #[test]
    fn anything_else_is_wrapped_and_its_references_still_lead_somewhere() {
        let schema = json!({
            "type": "array",
            "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/Name"}, {"$ref": "#/items"}, {"$ref": "https://x.example/#/a"}]},
            "$defs": {"Name": {"type": "string"}, "All": {"$ref": "#"}},
        });
        let (sent, wrapped) = for_endpoint(&schema);
        assert!(wrapped);
        assert_eq!(
            sent,
            json!({
                "$defs": {"Name": {"type": "string"}, "All": {"$ref": "#/properties/value"}},
                "type": "object",
                "properties": {"value": {
                    "type": "array",
                    "items": {"anyOf": [
                        {"$ref": "#/properties/value"},
                        {"$ref": "#/$defs/Name"},
                        {"$ref": "#/properties/value/items"},
                        {"$ref": "https://x.example/#/a"},
                    ]},
                }},
                "required": ["value"],
                "additionalProperties": false,
            })
        );
        assert!(for_endpoint(&json!(true)).1);
    }

    #[test]
    fn replies_are_unwrapped_if_they_are_wrapped() {
        let unwrapped = |text: &str| unwrapped(text.to_owned()).ok();
        assert_eq!(unwrapped(r#" {"value": [1, "a"]} "#).unwrap(), r#"[1,"a"]"#);
        assert_eq!(unwrapped(r#"{"value": "a"}"#).unwrap(), r#""a""#);
        for other in ["[1]", "plain", r#"{"value": 1, "more": 2}"#, r#"{"other": 1}"#, ""] {
            assert_eq!(unwrapped(other).unwrap(), other);
        }
        for broken in [r#"{"value": "half a sen"#, " {", r#"{"value": 1}}"#] {
            assert_eq!(unwrapped(broken), None);
        }
    }
}
