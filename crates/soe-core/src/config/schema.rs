//! The context schema: what the values of context fields look like.

use std::sync::Arc;

use indexmap::IndexMap;
use soe_backends::Value;

use super::codes::{IGNORED_SCHEMA_PART, INVALID_SCHEMA, UNKNOWN_SCHEMA_TYPE};
use super::diagnostic::{Diagnostic, Problems};
use super::yaml::{Content, Mapping, Tree};
use super::{ConfigError, Position, read};

/// What the values of a context field look like.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSchema {
    /// `type`, with `items` and `properties`.
    pub kind: FieldType,
    /// `description`: told to the LLM.
    pub description: Option<Arc<str>>,
    /// Whether an object must have this property. False as soon as there is a default.
    pub required: bool,
    /// `default`: the value of a property that is missing.
    pub default: Option<Value>,
}

/// The type of a context field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldType {
    /// `string`, `text`, `str`
    String,
    /// `integer`, `int`
    Integer,
    /// `number`, `float`
    Number,
    /// `boolean`, `bool`
    Boolean,
    /// `list`, `array`; the schema of its items, if it is given.
    List(Option<Box<FieldSchema>>),
    /// `object`, `dict`; its properties. Others are kept as they are.
    Object(IndexMap<Arc<str>, FieldSchema>),
    /// `any`
    Any,
}

/// The `context_schema` section of a configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContextSchema {
    /// The section as it is stored: field name to its definition as written.
    pub document: Value,
    /// The same, typed.
    pub fields: IndexMap<Arc<str>, FieldSchema>,
}

impl ContextSchema {
    /// Reads a stored section.
    ///
    /// # Errors
    /// All problems, if one of them is an error.
    pub fn from_document(document: &Value) -> Result<Self, ConfigError> {
        let tree = read::tree_of_value(document)?;
        let mut problems = Problems::default();
        let schema = read_context_schema(&tree, &mut problems);
        problems.into_result()?;
        Ok(schema)
    }
}

impl FieldSchema {
    /// Reads the definition of the field `name`: a type name, or an object with a `type`.
    ///
    /// # Errors
    /// All problems, if one of them is an error.
    pub fn from_definition(name: &str, definition: &Value) -> Result<Self, ConfigError> {
        let tree = read::tree_of_value(definition)?;
        let mut problems = Problems::default();
        let schema = SchemaReader {
            problems: &mut problems,
        }
        .field(&tree, &format!("context_schema.{name}"));
        problems.into_result()?;
        Ok(schema)
    }

    fn any() -> Self {
        Self {
            kind: FieldType::Any,
            description: None,
            required: true,
            default: None,
        }
    }
}

/// Reads the section; what is wrong with it goes to `problems`.
pub(crate) fn read_context_schema(tree: &Tree, problems: &mut Problems) -> ContextSchema {
    let Some(map) = tree.as_map() else {
        let message = "'context_schema' section must be an object: field name to its schema";
        problems.push(
            Diagnostic::new(super::codes::INVALID_SECTION, message)
                .at(tree.position)
                .field("context_schema"),
        );
        return ContextSchema::default();
    };
    let mut reader = SchemaReader { problems };
    let mut fields = IndexMap::new();
    for (name, entry) in map.iter() {
        let path = format!("context_schema.{name}");
        read::check_shadowing(reader.problems, name, entry.key_position, |d| d.field(path.clone()));
        fields.insert(name.clone(), reader.field(&entry.value, &path));
    }
    let document = read::value_or_problem(tree, "context_schema", reader.problems);
    ContextSchema { document, fields }
}

/// The keys of a definition.
const KEYS: &[&str] = &["type", "description", "items", "properties", "required", "default"];

/// What authors write out of habit, and what it is called here.
const HABITS: &[(&str, &str)] = &[
    ("desc", "description"),
    ("fields", "properties"),
    ("item", "items"),
    ("kind", "type"),
];

/// What JSON Schema checks and a context schema doesn't.
const UNCHECKED: &[&str] = &[
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "min",
    "max",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "additionalProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "$ref",
];

struct SchemaReader<'p> {
    problems: &'p mut Problems,
}

impl SchemaReader<'_> {
    fn field(&mut self, tree: &Tree, path: &str) -> FieldSchema {
        match &tree.content {
            Content::Text(name) => FieldSchema {
                kind: self.kind(name, None, path, tree.position),
                ..FieldSchema::any()
            },
            Content::Map(map) => self.definition(map, path),
            _ => {
                let message = format!(
                    "{path}: schema must be an object or type string, not {}",
                    tree.type_name()
                );
                self.push(INVALID_SCHEMA, message, path, tree.position);
                FieldSchema::any()
            }
        }
    }

    fn definition(&mut self, map: &Mapping, path: &str) -> FieldSchema {
        self.unknown_keys(map, path);
        let get = |name: &str| map.get(name).map(|entry| &entry.value).filter(|value| !value.is_null());
        let kind = match get("type") {
            None => FieldType::Any,
            Some(tree) => match &tree.content {
                Content::Text(name) => self.kind(name, Some(map), path, tree.position),
                _ => {
                    let message = format!("{path}: 'type' must be the name of a type, not {}", tree.type_name());
                    self.push(INVALID_SCHEMA, message, path, tree.position);
                    FieldType::Any
                }
            },
        };
        let description = get("description").and_then(|tree| match &tree.content {
            Content::Text(text) => Some(text.clone()),
            _ => {
                self.ignored("description", "text", tree, path);
                None
            }
        });
        // What can't be stored is reported where the whole section is stored.
        let default = get("default").and_then(|tree| tree.to_value().ok());
        let required = match get("required") {
            None => true,
            Some(tree) => match tree.content {
                Content::Bool(required) => required,
                _ => {
                    self.ignored("required", "true or false", tree, path);
                    true
                }
            },
        };
        FieldSchema {
            kind,
            description,
            required: required && default.is_none(),
            default,
        }
    }

    fn kind(&mut self, name: &str, map: Option<&Mapping>, path: &str, position: Option<Position>) -> FieldType {
        let get = |name: &str| {
            map?.get(name)
                .map(|entry| &entry.value)
                .filter(|value| !value.is_null())
        };
        match name.to_lowercase().as_str() {
            "string" | "text" | "str" => FieldType::String,
            "integer" | "int" => FieldType::Integer,
            "number" | "float" => FieldType::Number,
            "boolean" | "bool" => FieldType::Boolean,
            "list" | "array" => FieldType::List(get("items").map(|tree| self.items(tree, path)).map(Box::new)),
            "object" | "dict" => {
                FieldType::Object(get("properties").map_or_else(IndexMap::new, |tree| self.properties(tree, path)))
            }
            "any" => FieldType::Any,
            _ => {
                let message = format!("{path}: unknown type '{name}' is taken as 'any'");
                let help = "the types are string, integer, number, boolean, list, object and any";
                let problem = Diagnostic::new(UNKNOWN_SCHEMA_TYPE, message).help(help);
                self.problems.push(problem.at(position).field(path));
                FieldType::Any
            }
        }
    }

    fn items(&mut self, tree: &Tree, path: &str) -> FieldSchema {
        match tree.content {
            Content::Text(_) | Content::Map(_) => self.field(tree, &format!("{path}.items")),
            _ => {
                self.ignored("items", "a schema", tree, path);
                FieldSchema::any()
            }
        }
    }

    fn properties(&mut self, tree: &Tree, path: &str) -> IndexMap<Arc<str>, FieldSchema> {
        let Some(map) = tree.as_map() else {
            self.ignored("properties", "an object", tree, path);
            return IndexMap::new();
        };
        map.iter()
            .map(|(name, entry)| {
                (
                    name.clone(),
                    self.field(&entry.value, &format!("{path}.properties.{name}")),
                )
            })
            .collect()
    }

    /// Warns about keys without meaning.
    fn unknown_keys(&mut self, map: &Mapping, path: &str) {
        for (name, entry) in map.iter().filter(|(name, _)| !KEYS.contains(&name.as_ref())) {
            let (message, help) = if UNCHECKED.contains(&name.as_ref()) {
                (
                    format!("{path}: '{name}' is ignored: context schemas check types, not what values are allowed"),
                    Some(
                        "say it in the description, which the LLM is told, or in the condition of an emission"
                            .to_owned(),
                    ),
                )
            } else {
                let habit = HABITS.iter().find(|(habit, _)| *habit == name.as_ref());
                let meant = habit
                    .map(|(_, key)| *key)
                    .or_else(|| read::closest(name, KEYS.iter().copied()));
                (
                    format!("{path}: '{name}' has no meaning in a schema and is ignored"),
                    meant.map(|key| format!("did you mean '{key}'?")),
                )
            };
            let problem = Diagnostic::new(IGNORED_SCHEMA_PART, message).at(entry.key_position);
            let help = help.unwrap_or_else(|| match entry.value.is_null() {
                // `{description: a, b}` has a key `b`.
                true => "a text with a comma in it needs quotes between { and }".to_owned(),
                false => format!("a schema has {}", KEYS.join(", ")),
            });
            self.problems.push(problem.field(format!("{path}.{name}")).help(help));
        }
    }

    fn ignored(&mut self, part: &str, expected: &str, tree: &Tree, path: &str) {
        let message = format!(
            "{path}: '{part}' is ignored, it must be {expected}, not {}",
            tree.type_name()
        );
        self.push(IGNORED_SCHEMA_PART, message, path, tree.position);
    }

    fn push(&mut self, code: super::codes::Code, message: String, path: &str, position: Option<Position>) {
        self.problems
            .push(Diagnostic::new(code, message).at(position).field(path));
    }
}
