//! What a reply has to be, and what one says.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map as JsonMap, Value as Json, json};
use soe_backends::{Map, Value};

use crate::config::{FieldSchema, FieldType};
use crate::tools::ToolSpec;

use super::extract::{self, Found, NoJson};
use super::problems::{InvalidReply, Problem, Problems, looks_like_schema, names, shown};
use super::{arguments, check, string};

/// The longest reply that is read.
pub const MAX_REPLY_BYTES: usize = 8 * 1024 * 1024;

/// The key of the signals that an LLM chooses.
pub(crate) const SELECTED: &str = "selected_signals";

/// The key of an output that goes to no field.
pub(super) const OUTPUT: &str = "output";

/// What a reply has to be: told to the LLM as a JSON Schema, and what its reply is checked against. Cheap to clone.
///
/// ```
/// use soe_core::llm::{Parsed, ReplyFormat};
/// use soe_backends::Value;
///
/// let format = ReplyFormat::output(None, None, &[]);
/// let reply = "Here you are:\n```json\n{\"output\": \"Hello\"}\n```";
/// assert_eq!(format.parse(reply).unwrap(), Parsed::Output { value: Value::from("Hello"), signals: vec![] });
/// assert_eq!(format.parse(r#"{"output": 5}"#).unwrap_err().to_string(), "output: should be a string, not 5");
/// ```
#[derive(Clone, Debug)]
pub struct ReplyFormat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    schema: Arc<Json>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Output(Box<Output>),
    Router,
    Arguments(Arc<ToolSpec>),
}

#[derive(Debug)]
struct Output {
    /// The field that it goes to, or what stands for it.
    name: Arc<str>,
    /// Whether the value is under that name; else it is the whole reply.
    wrapped: bool,
    value: FieldSchema,
    /// The signals to choose from, with what is said about them.
    choices: IndexMap<Arc<str>, Option<Arc<str>>>,
}

/// What a valid reply says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Parsed {
    /// An output, and the signals that the LLM chose, in its order.
    Output {
        /// The output, as its schema wants it.
        value: Value,
        /// The signals, each once.
        signals: Vec<Arc<str>>,
    },
    /// An agent's decision to call a tool; not necessarily one that there is.
    CallTool {
        /// The tool.
        name: Arc<str>,
    },
    /// An agent's decision to finish.
    Finish,
    /// The arguments of a tool, checked.
    Arguments(Json),
}

impl ReplyFormat {
    /// The output of an llm node or an agent that goes to `output_field`, whose context schema is `schema`; with the signals
    /// that the LLM chooses from and what is said about them, if it chooses.
    pub fn output(
        output_field: Option<&Arc<str>>,
        schema: Option<&FieldSchema>,
        choices: &[(Arc<str>, Option<Arc<str>>)],
    ) -> Self {
        let wrapped = output_field.is_none() || schema.is_none() || !choices.is_empty();
        let plain = |kind| FieldSchema {
            kind,
            description: None,
            required: true,
            default: None,
        };
        let value = match (output_field, schema) {
            (_, Some(schema)) => schema.clone(),
            (Some(_), None) => plain(FieldType::Any),
            (None, None) => plain(FieldType::String),
        };
        let output = Output {
            name: output_field.map_or_else(|| OUTPUT.into(), Arc::clone),
            wrapped,
            value,
            choices: choices.iter().cloned().collect(),
        };
        Self::new(output.schema(), Kind::Output(Box::new(output)))
    }

    /// An agent's decision what to do next.
    pub fn router() -> Self {
        let schema = json!({
            "type": "object",
            "properties": {
                "action": {"type": "string", "enum": ["call_tool", "finish"]},
                "tool_name": {
                    "type": ["string", "null"],
                    "description": "the tool to call; only with the action call_tool, and needed there",
                },
            },
            "required": ["action"],
        });
        Self::new(schema, Kind::Router)
    }

    /// The arguments of a tool.
    pub fn arguments(spec: Arc<ToolSpec>) -> Self {
        Self::new(spec.parameters().clone(), Kind::Arguments(spec))
    }

    fn new(schema: Json, kind: Kind) -> Self {
        let schema = Arc::new(schema);
        Self(Arc::new(Inner { schema, kind }))
    }

    /// The JSON Schema of the reply.
    pub fn schema(&self) -> &Arc<Json> {
        &self.0.schema
    }

    /// What `reply` says.
    ///
    /// Thoughts (`<think>...</think>`) are dropped. The answer is the reply itself if it is JSON, else the first fenced JSON
    /// block, else the first balanced object or list; where the output is a string, it is the whole text if there is no JSON
    /// string, unless that was meant as JSON and is cut off. Changes are made where nothing is lost (the text `"5"` is an integer if one is wanted), others are not.
    ///
    /// # Errors
    /// It is not what was asked for; the error says why, field by field.
    pub fn parse(&self, reply: &str) -> Result<Parsed, InvalidReply> {
        if reply.len() > MAX_REPLY_BYTES {
            return Err(InvalidReply::TooLong { bytes: reply.len() });
        }
        match &self.0.kind {
            Kind::Output(output) => output.parse(extract::find(reply)),
            Kind::Router => router(extract::find(reply).checkable()?),
            Kind::Arguments(spec) => arguments::checked(extract::find(reply).checkable()?, spec).map(Parsed::Arguments),
        }
    }
}

impl Output {
    fn schema(&self) -> Json {
        let value = check::to_json_schema(&self.value);
        if !self.wrapped {
            return value;
        }
        let mut properties: JsonMap<String, Json> = [(self.name.to_string(), value)].into_iter().collect();
        if !self.choices.is_empty() {
            let names: Vec<&str> = self.choices.keys().map(AsRef::as_ref).collect();
            let signals = json!({
                "type": "array",
                "items": {"type": "string", "enum": names},
                "default": [],
                "description": self.description_of_choices(),
            });
            properties.insert(SELECTED.to_owned(), signals);
        }
        check::object_schema(properties, &[&self.name])
    }

    fn description_of_choices(&self) -> String {
        let mut text = "Every signal whose description fits the outcome: none, one or several.".to_owned();
        for (name, description) in &self.choices {
            text += "\n- ";
            text += name;
            if let Some(description) = description {
                text += ": ";
                text += description;
            }
        }
        text
    }

    fn parse(&self, found: Found<'_, Value>) -> Result<Parsed, InvalidReply> {
        let (value, signals) = match self.wrapped {
            true => self.unwrap(found.checkable()?)?,
            false if self.value.kind == FieldType::String => (string::string(found, &self.name)?, Vec::new()),
            false => {
                let json = found.checkable()?;
                let is_schema = looks_like_schema(&json);
                let mut problems = Problems::default();
                let value = check::check(json, &self.value, "", &mut problems);
                if !problems.is_empty() {
                    return Err(problems.of(is_schema));
                }
                (value, Vec::new())
            }
        };
        Ok(Parsed::Output { value, signals })
    }

    fn unwrap(&self, reply: Value) -> Result<(Value, Vec<Arc<str>>), InvalidReply> {
        let is_schema = looks_like_schema(&reply);
        let mut entries = object(reply)?;
        let mut problems = Problems::default();
        let signals = match entries.get(SELECTED) {
            Some(selected) if !self.choices.is_empty() => self.selected(selected, &mut problems),
            _ => Vec::new(),
        };
        let value = match entries.get_mut(&self.name).map(std::mem::take) {
            Some(value) => check::check(value, &self.value, &self.name, &mut problems),
            None => {
                problems.push(|| missing(&self.name));
                Value::Null
            }
        };
        match problems.is_empty() {
            true => Ok((value, signals)),
            false => Err(problems.of(is_schema)),
        }
    }

    /// The chosen signals, each once. Null is none.
    fn selected(&self, selected: &Value, problems: &mut Problems) -> Vec<Arc<str>> {
        let mut signals = indexmap::IndexSet::new();
        let mut wrong = |index: usize, value: &Value| {
            problems.push(|| {
                let known: Vec<&Arc<str>> = self.choices.keys().collect();
                Problem {
                    path: format!("{SELECTED}[{index}]"),
                    message: format!("{} is none of the signals {}", shown(value), names(&known)),
                }
            });
        };
        match selected {
            Value::Null => {}
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    match item.as_str().and_then(|name| self.choices.get_key_value(name)) {
                        Some((name, _)) => _ = signals.insert(name.clone()),
                        None => wrong(index, item),
                    }
                }
            }
            other => problems.push(|| Problem {
                path: SELECTED.to_owned(),
                message: format!("should be a list of signals, not {}", shown(other)),
            }),
        }
        signals.into_iter().collect()
    }
}

impl<T> Found<'_, T> {
    fn checkable(self) -> Result<T, InvalidReply> {
        self.json.map_err(|why| match why {
            NoJson::Empty => InvalidReply::Empty,
            NoJson::OnlyThoughts => InvalidReply::OnlyThoughts,
            NoJson::NotFound => InvalidReply::NoJson,
            NoJson::Broken(why) => InvalidReply::BrokenJson(why),
        })
    }
}

fn router(reply: Value) -> Result<Parsed, InvalidReply> {
    let is_schema = looks_like_schema(&reply);
    let entries = object(reply)?;
    let mut problems = Problems::default();
    let wrong = |path: &str, wanted: &str, value: &Value| Problem {
        path: path.to_owned(),
        message: format!("should be {wanted}, not {}", shown(value)),
    };
    match (entries.get("action"), entries.get("tool_name")) {
        (Some(Value::Text(action)), _) if &**action == "finish" => return Ok(Parsed::Finish),
        (Some(Value::Text(action)), tool) if &**action == "call_tool" => match tool {
            Some(Value::Text(name)) if !name.trim().is_empty() => {
                return Ok(Parsed::CallTool { name: name.clone() });
            }
            None => problems.push(|| missing("tool_name")),
            Some(other) => problems.push(|| wrong("tool_name", "the name of a tool", other)),
        },
        (None, _) => problems.push(|| missing("action")),
        (Some(other), _) => problems.push(|| wrong("action", "\"call_tool\" or \"finish\"", other)),
    }
    Err(problems.of(is_schema))
}

fn object(reply: Value) -> Result<Map, InvalidReply> {
    match reply {
        Value::Map(entries) => Ok(Arc::unwrap_or_clone(entries)),
        other => Err(Problems::one("", format!("should be an object, not {}", shown(&other))).of(false)),
    }
}

fn missing(name: &str) -> Problem {
    Problem {
        path: name.to_owned(),
        message: "is missing".to_owned(),
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
