//! Context schemas on replies: as JSON Schema, and as a check that makes the changes that lose nothing.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
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
pub(super) fn check(mut value: Value, schema: &FieldSchema, name: &str, problems: &mut Problems) -> Value {
    if value.is_too_deep() {
        problems.push(|| too_deep(name));
    } else {
        Checker { problems }.value(&mut value, schema, &Path::Root(name));
    }
    value
}

pub(super) fn too_deep(path: &str) -> Problem {
    Problem {
        path: path.to_owned(),
        message: format!("is nested more than {} levels deep", Value::MAX_DEPTH),
    }
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
    let scalar = Scalar::of_json(json)?;
    let value = types.iter().find_map(|name| match name.as_str()? {
        "integer" => scalar.integer(),
        "number" => scalar.number(),
        "boolean" => scalar.boolean(),
        _ => None,
    });
    value.map(|value| value.to_json())
}

type Properties = IndexMap<Arc<str>, FieldSchema>;

struct Checker<'p> {
    problems: &'p mut Problems,
}

impl Checker<'_> {
    fn value(&mut self, value: &mut Value, schema: &FieldSchema, path: &Path<'_>) {
        let (expected, changed) = match (&schema.kind, &mut *value) {
            (FieldType::Any, _) | (FieldType::String, Value::Text(_)) => return,
            (FieldType::List(items), Value::List(values)) => return self.list(values, items.as_deref(), path),
            (FieldType::Object(properties), Value::Map(entries)) => return self.object(entries, properties, path),
            (FieldType::Integer, value) => ("an integer", Scalar::of(value).and_then(Scalar::integer)),
            (FieldType::Number, value) => ("a number", Scalar::of(value).and_then(Scalar::number)),
            (FieldType::Boolean, value) => ("true or false", Scalar::of(value).and_then(Scalar::boolean)),
            (FieldType::String, _) => ("a string", None),
            (FieldType::List(_), _) => ("a list", None),
            (FieldType::Object(_), _) => ("an object", None),
        };
        match changed {
            Some(changed) => *value = changed,
            None => self.report(path, || format!("should be {expected}, not {}", shown(value))),
        }
    }

    // Nobody else has the value, so nothing is copied here.
    fn list(&mut self, values: &mut Arc<[Value]>, schema: Option<&FieldSchema>, path: &Path<'_>) {
        if let Some(schema) = schema {
            for (index, value) in Arc::make_mut(values).iter_mut().enumerate() {
                self.value(value, schema, &Path::Index(path, index));
            }
        }
    }

    fn object(&mut self, entries: &mut Arc<Map>, properties: &Properties, path: &Path<'_>) {
        let entries = Arc::make_mut(entries);
        let (mut known, mut in_order) = (0, true);
        for (name, schema) in properties {
            let index = match (entries.get_full_mut(name), &schema.default) {
                (Some((index, _, Value::Null)), _) if !schema.required => index,
                (Some((index, _, value)), _) => {
                    self.value(value, schema, &Path::Key(path, name));
                    index
                }
                (None, _) if schema.required => {
                    self.report(&Path::Key(path, name), || "is missing".to_owned());
                    continue;
                }
                (None, Some(default)) => entries.insert_full(name.clone(), default.clone()).0,
                (None, None) => continue,
            };
            in_order &= index == known;
            known += 1;
        }
        if !in_order {
            let mut left = std::mem::take(entries);
            let named = properties.keys().filter_map(|name| {
                let value = left.get_mut(name)?;
                Some((name.clone(), std::mem::take(value)))
            });
            entries.extend(named);
            entries.extend(left.into_iter().filter(|(name, _)| !properties.contains_key(name)));
        }
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

/// What may be of another type without a loss.
#[derive(Clone, Copy)]
enum Scalar<'a> {
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(&'a str),
    Bool(bool),
}

impl<'a> Scalar<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        Some(match value {
            Value::Int(value) => Self::Int(*value),
            Value::UInt(value) => Self::UInt(*value),
            Value::Float(value) => Self::Float(*value),
            Value::Text(text) => Self::Text(text),
            Value::Bool(value) => Self::Bool(*value),
            _ => return None,
        })
    }

    fn of_json(json: &'a Json) -> Option<Self> {
        Some(match json {
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::UInt(value),
                (None, None) => Self::Float(number.as_f64()?),
            },
            Json::String(text) => Self::Text(text),
            Json::Bool(value) => Self::Bool(*value),
            _ => return None,
        })
    }

    fn integer(self) -> Option<Value> {
        match self {
            Self::Int(value) => Some(value.into()),
            Self::UInt(value) => Some(value.into()),
            Self::Float(value) if value.fract() == 0.0 && value.abs() <= EXACT as f64 => Some((value as i64).into()),
            Self::Text(text) => {
                let text = text.trim();
                let whole = match text.split_once('.') {
                    Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|digit| digit == b'0') => whole,
                    _ => text,
                };
                let signed = whole.parse().map(|value: i64| value.into());
                signed.or_else(|_| whole.parse().map(|value: u64| value.into())).ok()
            }
            Self::Float(_) | Self::Bool(_) => None,
        }
    }

    fn number(self) -> Option<Value> {
        match self.integer() {
            // As a float it would be another number.
            Some(Value::Int(value)) if value.unsigned_abs() > EXACT => return Some(value.into()),
            Some(value @ Value::UInt(_)) => return Some(value),
            _ => {}
        }
        let value: f64 = match self {
            Self::Int(value) => value as f64,
            Self::UInt(value) => value as f64,
            Self::Float(value) => value,
            Self::Text(text) => text.trim().parse().ok()?,
            Self::Bool(_) => return None,
        };
        value.is_finite().then_some(Value::Float(value))
    }

    fn boolean(self) -> Option<Value> {
        match self {
            Self::Bool(value) => Some(value.into()),
            Self::Text(text) if text.eq_ignore_ascii_case("true") => Some(true.into()),
            Self::Text(text) if text.eq_ignore_ascii_case("false") => Some(false.into()),
            _ => None,
        }
    }
}

/// A JSON Schema of an object with these properties.
pub(super) fn object_schema(properties: JsonMap<String, Json>, required: &[&str]) -> Json {
    json!({"type": "object", "properties": properties, "required": required})
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
