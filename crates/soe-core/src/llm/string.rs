//! Replies that have to be a string, and need not be JSON.

use soe_backends::Value;

use super::extract::{self, Found, NoJson, Place};
use super::format::OUTPUT;
use super::problems::{InvalidReply, Problems, looks_like_schema, shown};

/// The string that a reply is: a JSON string, also a fenced one or one that is wrapped in an object under its field's name,
/// or else the text as it is.
///
/// # Errors
/// There is no text, or it was meant as JSON and is not: it is cut off, or a schema.
pub(super) fn string(found: Found<'_, Value>, field: &str) -> Result<Value, InvalidReply> {
    if found.place != Place::Whole
        && let Some(text) = extract::fenced_string(&found.text)
    {
        return Ok(text.into());
    }
    match found.json {
        Ok(text @ Value::Text(_)) => return Ok(text),
        Ok(json) if found.place != Place::Within => {
            if is_echo(&json, field) {
                return Err(Problems::one("", format!("should be a string, not {}", shown(&json))).of(true));
            }
            if let Some((name, value)) = wrapped(&json, field) {
                return match value {
                    Value::Text(_) => Ok(value.clone()),
                    other => Err(Problems::one(name, format!("should be a string, not {}", shown(other))).of(false)),
                };
            }
        }
        Err(NoJson::Empty) => return Err(InvalidReply::Empty),
        Err(NoJson::OnlyThoughts) => return Err(InvalidReply::OnlyThoughts),
        Ok(_) | Err(_) => {}
    }
    if found.text.is_empty() {
        return Err(InvalidReply::OnlyThoughts);
    }
    match extract::meant_as_json(&found.text) {
        Some(why) => Err(InvalidReply::BrokenJson(why)),
        None => Ok(found.text.into_owned().into()),
    }
}

/// Whether the schema came back: that of a string, or that of an object with nothing but the field.
///
/// Other schemas may well be the text that was asked for.
fn is_echo(json: &Value, field: &str) -> bool {
    let properties = json.get("properties").and_then(Value::as_map);
    looks_like_schema(json)
        && match properties {
            Some(properties) => properties.keys().all(|name| is_name(name, field)),
            None => json.get("type").and_then(Value::as_str) == Some("string"),
        }
}

/// What an object holds that has nothing else in it.
fn wrapped<'a>(json: &'a Value, field: &str) -> Option<(&'a str, &'a Value)> {
    let entries = json.as_map().filter(|entries| entries.len() == 1)?;
    let (name, value) = entries.first()?;
    is_name(name, field).then_some((name, value))
}

fn is_name(name: &str, field: &str) -> bool {
    name == field || name == OUTPUT
}
