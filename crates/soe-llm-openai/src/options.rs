//! What a node says about its request: the fields that this crate knows, and `llm_options`.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use soe_backends::Value;

use crate::Problem;

/// What a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Integer,
    TextOrTexts,
}

/// The fields of a node that go into the request as they are.
const FIELDS: &[(&str, Kind)] = &[
    ("model", Kind::Text),
    ("temperature", Kind::Number),
    ("top_p", Kind::Number),
    ("max_tokens", Kind::Integer),
    ("max_completion_tokens", Kind::Integer),
    ("seed", Kind::Integer),
    ("stop", Kind::TextOrTexts),
    ("presence_penalty", Kind::Number),
    ("frequency_penalty", Kind::Number),
    ("reasoning_effort", Kind::Text),
    ("verbosity", Kind::Text),
    ("service_tier", Kind::Text),
];

/// The field with everything else.
const OPTIONS: &str = "llm_options";

/// What options can't set, since the reply could not be understood otherwise.
const RESERVED: &[&str] = &["messages", "stream", "stream_options", "tools", "functions", "n"];

/// The fields of a request: those of the caller, then those of the node in place of them.
pub(crate) fn collect(
    defaults: &Map<String, Json>,
    config: &soe_backends::Map,
    node: &Arc<str>,
) -> Result<Map<String, Json>, Problem> {
    let wrong = |field: &str, reason: String| Problem::Field {
        node: node.clone(),
        field: field.to_owned(),
        reason,
    };
    let mut fields = defaults.clone();
    for &(name, kind) in FIELDS {
        let Some(value) = config.get(name).filter(|value| !value.is_null()) else {
            continue;
        };
        if !kind.fits(value) {
            return Err(wrong(
                name,
                format!("must be {}, and is {}", kind.words(), found(value)),
            ));
        }
        fields.insert(name.to_owned(), value.to_json());
    }
    let options = match config.get(OPTIONS) {
        None | Some(Value::Null) => return Ok(fields),
        Some(Value::Map(options)) => options,
        Some(other) => return Err(wrong(OPTIONS, format!("must be a mapping, and is {}", found(other)))),
    };
    for (name, value) in options.iter() {
        if is_reserved(name) {
            return Err(wrong(
                &format!("{OPTIONS}.{name}"),
                "can't be set: the caller sets it".to_owned(),
            ));
        }
        fields.insert(name.as_ref().to_owned(), value.to_json());
    }
    Ok(fields)
}

/// Whether only the caller itself sets this field of a request.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Kind::Text | Kind::TextOrTexts, Value::Text(_)) => true,
            (Kind::TextOrTexts, Value::List(items)) => items.iter().all(|item| matches!(item, Value::Text(_))),
            (Kind::Number | Kind::Integer, Value::Int(_) | Value::UInt(_)) => true,
            (Kind::Number, Value::Float(_)) => true,
            _ => false,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Number => "a number",
            Kind::Integer => "an integer",
            Kind::TextOrTexts => "text or a list of texts",
        }
    }
}

/// What a value is, with the value where it is short enough to help.
fn found(value: &Value) -> String {
    match value {
        Value::List(_) | Value::Map(_) => format!("an {}", value.type_name()),
        Value::Text(text) if text.chars().count() > 40 => "a longer text".to_owned(),
        short => format!("the {} {short}", value.type_name()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn collected(defaults: Json, config: Json) -> Result<Json, String> {
        let Value::Map(config) = Value::from(config) else {
            unreachable!()
        };
        let defaults = defaults.as_object().unwrap();
        collect(defaults, &config, &"Ask".into())
            .map(Json::Object)
            .map_err(|problem| problem.to_string())
    }

    #[test]
    fn known_fields_and_options_go_on_and_the_engines_fields_do_not() {
        let config = json!({
            "node_type": "agent", "event_triggers": ["START"], "event_emissions": [], "prompt": "p",
            "output_field": "o", "identity": "i", "retries": 3, "llm_failure_signal": "F", "tools": ["t"], "llm": "fast",
            "max_turns": 3, "history_window": 5, "something_else": 1,
            "model": "m", "temperature": 0, "top_p": 0.5, "max_tokens": 10, "seed": 7, "stop": ["a", "b"],
            "reasoning_effort": null,
            "llm_options": {"top_k": 40, "logit_bias": {"50256": -100}, "seed": 8},
        });
        assert_eq!(
            collected(json!({"temperature": 1, "user": "u"}), config).unwrap(),
            json!({
                "temperature": 0, "user": "u", "model": "m", "top_p": 0.5, "max_tokens": 10, "seed": 8,
                "stop": ["a", "b"], "top_k": 40, "logit_bias": {"50256": -100},
            })
        );
    }

    #[test]
    fn what_is_sent_is_recorded() {
        for field in FIELDS.iter().map(|(name, _)| *name).chain([OPTIONS]) {
            assert!(soe_core::testing::SELECTED_CONFIG.contains(&field), "{field}");
        }
    }

    #[test]
    fn wrong_types_are_named() {
        for (config, message) in [
            (
                json!({"temperature": "hot"}),
                r#"node 'Ask': `temperature` must be a number, and is the string "hot""#,
            ),
            (
                json!({"max_tokens": 1.5}),
                "node 'Ask': `max_tokens` must be an integer, and is the number 1.5",
            ),
            (
                json!({"seed": true}),
                "node 'Ask': `seed` must be an integer, and is the boolean true",
            ),
            (
                json!({"model": ["m"]}),
                "node 'Ask': `model` must be text, and is an array",
            ),
            (
                json!({"stop": ["a", 1]}),
                "node 'Ask': `stop` must be text or a list of texts, and is an array",
            ),
            (
                json!({"llm_options": 3}),
                "node 'Ask': `llm_options` must be a mapping, and is the integer 3",
            ),
            (
                json!({"llm_options": {"messages": []}}),
                "node 'Ask': `llm_options.messages` can't be set: the caller sets it",
            ),
            (
                json!({"llm_options": {"stream": true}}),
                "node 'Ask': `llm_options.stream` can't be set: the caller sets it",
            ),
        ] {
            assert_eq!(collected(json!({}), config).unwrap_err(), message);
        }
    }
}
