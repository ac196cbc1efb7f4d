//! Context schemas on replies: as JSON Schema, and as a check that makes the changes that lose nothing.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json, json};
use soe_backends::{Map, Value};

use crate::config::{FieldSchema, FieldType};

use super::problems::{Problem, Problems, shown};

/// The integers up to here are floats without a change.
const EXACT: u64 = 1 << 53;

/// The schema as JSON Schema, for the LLM and for endpoints that enforce it.
pub(super) fn to_json_schema(schema: &FieldSchema) -> Json {
    let mut entries = JsonMap::new();
    let mut set = |key: &str, value: Json| _ = entries.insert(key.to_owned(), value);
    match &schema.kind {
        FieldType::String => set("type", "string".into()),
        FieldType::Integer => set("type", "integer".into()),
        FieldType::Number => set("type", "number".into()),
        FieldType::Boolean => set("type", "boolean".into()),
        FieldType::Any => {}
        FieldType::List(items) => {
            set("type", "array".into());
            if let Some(items) = items {
                set("items", to_json_schema(items));
            }
        }
        FieldType::Object(properties) => {
            set("type", "object".into());
            if !properties.is_empty() {
                let schemas = properties
                    .iter()
                    .map(|(name, schema)| (name.as_ref().to_owned(), to_json_schema(schema)));
                set("properties", Json::Object(schemas.collect()));
                let required = properties.iter().filter(|(_, schema)| schema.required);
                set("required", required.map(|(name, _)| name.as_ref()).collect());
            }
        }
    }
    if let Some(description) = &schema.description {
        set("description", description.as_ref().into());
    }
    if let Some(default) = &schema.default {
        set("default", default.to_json());
    }
    Json::Object(entries)
}

/// `value` as `schema` wants it; what doesn't match goes to `problems`, with paths that begin with `name`.
///
/// - Changes are made where nothing is lost: the text `"5"` and `5.0` are integers, the text `"1.5"` and `5` are numbers
///   (5.0), the text `"true"` is a boolean.
/// - An optional property that is missing gets its default; without one it stays missing. Null is taken for an optional
///   property, and stays null.
/// - Properties that the schema doesn't name are kept, after those that it names.
/// - Defaults are used as they are written, whatever their type.
pub(super) fn check(value: Json, schema: &FieldSchema, name: &str, problems: &mut Problems) -> Value {
    if nests_deeper(&value, Value::MAX_DEPTH) {
        let message = format!("is nested more than {} levels deep", Value::MAX_DEPTH);
        problems.push(|| Problem {
            path: name.to_owned(),
            message,
        });
        return Value::Null;
    }
    Checker { problems }.value(value, schema, &Path::Root(name))
}

/// Whether lists and objects nest in each other more than `levels` deep. JSON that was parsed has an end that is near.
pub(super) fn nests_deeper(json: &Json, levels: usize) -> bool {
    match (json, levels.checked_sub(1)) {
        (Json::Array(_) | Json::Object(_), None) => true,
        (Json::Array(items), Some(left)) => items.iter().any(|item| nests_deeper(item, left)),
        (Json::Object(entries), Some(left)) => entries.values().any(|item| nests_deeper(item, left)),
        _ => false,
    }
}

/// Makes the changes that lose nothing to what a JSON Schema describes plainly: by `type`, `properties` and `items`.
pub(super) fn adapt(json: &mut Json, schema: &Json) {
    match json {
        Json::Object(entries) => {
            if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
                for (name, value) in entries {
                    if let Some(schema) = properties.get(name) {
                        adapt(value, schema);
                    }
                }
            }
        }
        Json::Array(items) => {
            if let Some(schema) = schema.get("items").filter(|items| items.is_object()) {
                items.iter_mut().for_each(|item| adapt(item, schema));
            }
        }
        Json::String(_) | Json::Number(_) => {
            if let Some(adapted) = adapted(json, schema.get("type")) {
                *json = adapted;
            }
        }
        _ => {}
    }
}

/// Text or a number as a value of the first type that takes it; `None` if it is of one of the types as it is.
fn adapted(json: &Json, types: Option<&Json>) -> Option<Json> {
    let types = match types? {
        Json::Array(types) => types.as_slice(),
        one => std::slice::from_ref(one),
    };
    let as_is = |name: &Json| match json {
        Json::String(_) => name == "string",
        Json::Number(number) => name == "number" || name == "integer" && !number.is_f64(),
        _ => false,
    };
    if types.iter().any(as_is) {
        return None;
    }
    let value = types.iter().find_map(|name| match name.as_str()? {
        "integer" => as_integer(json),
        "number" => as_number(json),
        "boolean" => as_boolean(json),
        _ => None,
    });
    value.map(|value| value.to_json())
}

struct Checker<'p> {
    problems: &'p mut Problems,
}

impl Checker<'_> {
    fn value(&mut self, value: Json, schema: &FieldSchema, path: &Path<'_>) -> Value {
        let (expected, checked) = match (&schema.kind, value) {
            (FieldType::Any, value) => return value.into(),
            (FieldType::String, Json::String(text)) => return text.into(),
            (FieldType::List(items), Json::Array(values)) => return self.list(values, items.as_deref(), path),
            (FieldType::Object(properties), Json::Object(entries)) => return self.object(entries, properties, path),
            (FieldType::Integer, value) => ("an integer", as_integer(&value).ok_or(value)),
            (FieldType::Number, value) => ("a number", as_number(&value).ok_or(value)),
            (FieldType::Boolean, value) => ("true or false", as_boolean(&value).ok_or(value)),
            (FieldType::String, value) => ("a string", Err(value)),
            (FieldType::List(_), value) => ("a list", Err(value)),
            (FieldType::Object(_), value) => ("an object", Err(value)),
        };
        checked.unwrap_or_else(|value| {
            self.report(path, || format!("should be {expected}, not {}", shown(&value)));
            Value::Null
        })
    }

    fn list(&mut self, values: Vec<Json>, schema: Option<&FieldSchema>, path: &Path<'_>) -> Value {
        let Some(schema) = schema else {
            return Json::Array(values).into();
        };
        let mut checked = Vec::with_capacity(values.len());
        for (index, value) in values.into_iter().enumerate() {
            checked.push(self.value(value, schema, &Path::Index(path, index)));
        }
        Value::List(checked.into())
    }

    fn object(
        &mut self,
        mut entries: JsonMap<String, Json>,
        properties: &indexmap::IndexMap<Arc<str>, FieldSchema>,
        path: &Path<'_>,
    ) -> Value {
        let mut checked = Map::with_capacity(entries.len().max(properties.len()));
        for (name, schema) in properties {
            let value = match entries.get_mut(name.as_ref()).map(Json::take) {
                Some(Json::Null) if !schema.required => Some(Value::Null),
                Some(value) => Some(self.value(value, schema, &Path::Key(path, name))),
                None if schema.required => {
                    self.report(&Path::Key(path, name), || "is missing".to_owned());
                    None
                }
                None => schema.default.clone(),
            };
            checked.extend(value.map(|value| (name.clone(), value)));
        }
        let others = entries
            .into_iter()
            .filter(|(name, _)| !properties.contains_key(name.as_str()));
        checked.extend(others.map(|(name, value)| (name.into(), value.into())));
        Value::Map(Arc::new(checked))
    }

    fn report(&mut self, path: &Path<'_>, message: impl FnOnce() -> String) {
        self.problems.push(|| Problem {
            path: path.to_string(),
            message: message(),
        });
    }
}

/// Where a value is; written out only where there is a problem.
enum Path<'a> {
    Root(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(name) => f.write_str(name),
            Path::Key(Path::Root(""), name) => f.write_str(name),
            Path::Key(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

fn as_integer(json: &Json) -> Option<Value> {
    match json {
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => Some(value.into()),
            (_, Some(value), _) => Some(value.into()),
            (_, _, Some(value)) if value.fract() == 0.0 && value.abs() <= EXACT as f64 => Some((value as i64).into()),
            _ => None,
        },
        Json::String(text) => {
            let text = text.trim();
            let whole = match text.split_once('.') {
                Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|digit| digit == b'0') => whole,
                _ => text,
            };
            let signed = whole.parse().map(|value: i64| value.into());
            signed.or_else(|_| whole.parse().map(|value: u64| value.into())).ok()
        }
        _ => None,
    }
}

fn as_number(json: &Json) -> Option<Value> {
    match as_integer(json) {
        // As a float it would be another number.
        Some(Value::Int(value)) if value.unsigned_abs() > EXACT => return Some(value.into()),
        Some(value @ Value::UInt(_)) => return Some(value),
        _ => {}
    }
    let value: f64 = match json {
        Json::Number(number) => number.as_f64()?,
        Json::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    value.is_finite().then_some(Value::Float(value))
}

fn as_boolean(json: &Json) -> Option<Value> {
    match json {
        Json::Bool(value) => Some((*value).into()),
        Json::String(text) if text.eq_ignore_ascii_case("true") => Some(true.into()),
        Json::String(text) if text.eq_ignore_ascii_case("false") => Some(false.into()),
        _ => None,
    }
}

/// A JSON Schema of an object with these properties.
pub(super) fn object_schema(properties: JsonMap<String, Json>, required: &[&str]) -> Json {
    json!({"type": "object", "properties": properties, "required": required})
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
