//! Outputs in the form that a request asks for.

use serde_json::{Map, Value, json};

const SIGNALS: &str = "selected_signals";

/// `value` in the form of `schema`, with the chosen signals if there are any.
///
/// # Errors
/// The schema has no place for signals.
pub(super) fn output(value: &Value, signals: Option<&[String]>, schema: Option<&Value>) -> Result<Value, String> {
    let wrapper = match schema {
        Some(schema) => wrapper(schema),
        None => signals.map(|_| "output"),
    };
    let mut fitted = match wrapper {
        Some(name) if !is_wrapped(value, name, schema) => json!({ name: value }),
        _ => value.clone(),
    };
    if let Some(signals) = signals {
        select(&mut fitted, signals, schema)?;
    }
    Ok(fitted)
}

/// Adds the chosen signals to a reply.
///
/// # Errors
/// The reply is no object, or the schema has no place for signals.
pub(super) fn select(reply: &mut Value, signals: &[String], schema: Option<&Value>) -> Result<(), String> {
    let offered = schema.is_none_or(|schema| schema["properties"].get(SIGNALS).is_some());
    match reply {
        Value::Object(reply) if offered => {
            reply.insert(SIGNALS.to_owned(), json!(signals));
            Ok(())
        }
        _ if !offered => Err(format!(
            "it selects signals, but the reply schema has no '{SIGNALS}': the LLM chooses only among several emissions \
             whose conditions are plain text"
        )),
        _ => Err(format!("it selects signals, but its value is no object: {reply}")),
    }
}

/// The one property that an object schema is about.
fn wrapper(schema: &Value) -> Option<&str> {
    let properties = schema["properties"].as_object()?;
    let required = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let mut names: Vec<&str> = required.filter(|name| *name != SIGNALS).collect();
    if names.is_empty() {
        names = properties
            .keys()
            .map(String::as_str)
            .filter(|name| *name != SIGNALS)
            .collect();
    }
    match names.as_slice() {
        [name] => Some(name),
        _ => None,
    }
}

/// Whether `value` already is an object with that property, and nothing that the schema doesn't know.
fn is_wrapped(value: &Value, name: &str, schema: Option<&Value>) -> bool {
    let known = |object: &Map<String, Value>| {
        let properties = schema.map(|schema| &schema["properties"]);
        let is_known = |key: &String| key == SIGNALS || properties.is_none_or(|known| known.get(key).is_some());
        object.keys().all(is_known)
    };
    value
        .as_object()
        .is_some_and(|object| object.contains_key(name) && known(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(value: Value, schema: Value) -> Value {
        output(&value, None, Some(&schema)).unwrap()
    }

    #[test]
    fn values_are_wrapped_where_the_schema_has_one_property() {
        let one = json!({"type": "object", "properties": {"score": {}}, "required": ["score"]});
        assert_eq!(fitted(json!(0.9), one.clone()), json!({"score": 0.9}));
        assert_eq!(fitted(json!({"score": 1}), one.clone()), json!({"score": 1}));
        assert_eq!(
            fitted(json!({"score": 1, "x": 2}), one.clone()),
            json!({"score": {"score": 1, "x": 2}})
        );
        assert_eq!(fitted(json!({"x": 2}), one), json!({"score": {"x": 2}}));

        let two = json!({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]});
        assert_eq!(fitted(json!({"a": 1, "b": 2}), two), json!({"a": 1, "b": 2}));
        assert_eq!(fitted(json!("x"), json!({"type": "string"})), json!("x"));
        assert_eq!(
            fitted(json!([1]), json!({"properties": {"list": {}}})),
            json!({"list": [1]})
        );
        assert_eq!(output(&json!("x"), None, None).unwrap(), json!("x"));
    }

    #[test]
    fn signals_go_beside_the_output() {
        let signals = ["A".to_owned()];
        let schema =
            json!({"properties": {"output": {}, "selected_signals": {}}, "required": ["output", "selected_signals"]});
        let selected = json!({"output": "x", "selected_signals": ["A"]});
        assert_eq!(output(&json!("x"), Some(&signals), Some(&schema)).unwrap(), selected);
        assert_eq!(output(&json!("x"), Some(&signals), None).unwrap(), selected);
        let plain = json!({"properties": {"output": {}}, "required": ["output"]});
        let error = output(&json!("x"), Some(&signals), Some(&plain)).unwrap_err();
        assert!(error.contains("has no 'selected_signals'"), "{error}");
    }
}
