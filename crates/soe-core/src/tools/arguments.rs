//! Checks arguments against a tool's JSON Schema, and says in words what is wrong with them.

use std::fmt;
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

/// The most problems that are spelled out: the text goes to LLMs and into contexts.
const MAX_PROBLEMS: usize = 20;

/// The most characters of a wrong value that are shown.
const MAX_SHOWN: usize = 80;

/// The most of the alternatives of a schema that are spelled out.
const MAX_ALTERNATIVES: usize = 8;

/// Arguments that a tool doesn't take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ArgumentsError {
    /// The tool's name.
    pub tool: Arc<str>,
    /// What is wrong, at least one entry, and no more than twenty.
    pub problems: Vec<ArgumentProblem>,
    /// How many problems there are beyond those in `problems`.
    pub more: usize,
}

impl fmt::Display for ArgumentsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tool '{}': ", self.tool)?;
        for (i, problem) in self.problems.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// One thing that is wrong with a call's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentProblem {
    /// A required parameter is missing.
    Missing {
        /// Which one; the path to it where it is inside another one.
        parameter: String,
    },
    /// There is no such parameter.
    Unexpected {
        /// Which one; the path to it where it is inside another one.
        parameter: String,
        /// The parameters that there are, where the schema says so.
        known: Vec<Arc<str>>,
    },
    /// A value has the wrong type, or breaks another rule.
    Invalid {
        /// Which parameter, with the path inside it; empty if the arguments as a whole are meant.
        parameter: String,
        /// What is wrong with it.
        message: String,
    },
}

impl fmt::Display for ArgumentProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { parameter } => write!(f, "missing required parameter: {parameter}"),
            Self::Unexpected { parameter, known } => {
                write!(f, "unexpected parameter: {parameter}")?;
                match known.is_empty() {
                    true => Ok(()),
                    false => write!(f, " (it takes: {})", known.join(", ")),
                }
            }
            Self::Invalid { parameter, message } if parameter.is_empty() => write!(f, "the arguments: {message}"),
            Self::Invalid { parameter, message } => write!(f, "parameter '{parameter}': {message}"),
        }
    }
}

/// A tool's parameters are not described by a usable JSON Schema.
#[derive(Debug, thiserror::Error)]
#[error("the parameters of tool '{tool}' are not described by a usable JSON Schema")]
pub struct InvalidSchema {
    /// The tool's name.
    pub tool: Arc<str>,
    source: Box<ValidationError<'static>>,
}

/// A compiled schema.
pub(super) struct ArgumentsChecker {
    validator: Validator,
    /// The names that are allowed, where the schema leaves it to us to allow no others.
    closed: Option<Vec<Arc<str>>>,
}

impl ArgumentsChecker {
    pub(super) fn compile(tool: &Arc<str>, schema: &Value) -> Result<Self, InvalidSchema> {
        let validator = jsonschema::validator_for(schema).map_err(|error| InvalidSchema {
            tool: tool.clone(),
            source: Box::new(error),
        })?;
        let closed = closed_properties(schema);
        Ok(Self { validator, closed })
    }

    pub(super) fn check(&self, tool: &Arc<str>, arguments: &Value) -> Result<(), ArgumentsError> {
        let mut problems = Vec::new();
        if !self.validator.is_valid(arguments) {
            // What a closed object doesn't take is named below: the library doesn't name it if there are no properties.
            let named_below = |error: &ValidationError<'_>| {
                self.closed.is_some() && error.schema_path().as_str() == "/additionalProperties"
            };
            for error in self
                .validator
                .iter_errors(arguments)
                .filter(|error| !named_below(error))
            {
                describe(&error, &mut problems);
            }
        }
        if let (Some(known), Some(arguments)) = (&self.closed, arguments.as_object()) {
            let unknown = arguments.keys().filter(|key| !known.iter().any(|k| **k == ***key));
            problems.extend(unknown.map(|key| ArgumentProblem::Unexpected {
                parameter: key.clone(),
                known: known.clone(),
            }));
        }
        if problems.is_empty() {
            return Ok(());
        }
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        Err(ArgumentsError {
            tool: tool.clone(),
            problems,
            more,
        })
    }
}

/// The names that an object may have, where the schema is plain enough to say so: those in `properties`, unless another
/// keyword may add to them or has its own say.
///
/// This is decided here and not by a keyword added to the schema: that one would also hold where the schema refers to
/// itself.
fn closed_properties(schema: &Value) -> Option<Vec<Arc<str>>> {
    const OPEN: [&str; 8] = [
        "unevaluatedProperties",
        "patternProperties",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "if",
        "dependentSchemas",
    ];
    let schema = schema.as_object()?;
    if OPEN.iter().any(|keyword| schema.contains_key(*keyword)) {
        return None;
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    match (schema.get("additionalProperties"), properties) {
        (None, None) => None,
        (None | Some(Value::Bool(false)), properties) => {
            let names = properties.into_iter().flat_map(|properties| properties.keys());
            Some(names.map(|name| name.as_str().into()).collect())
        }
        (Some(_), _) => None,
    }
}

fn describe(error: &ValidationError<'_>, problems: &mut Vec<ArgumentProblem>) {
    let at = error.instance_path();
    match error.kind() {
        ValidationErrorKind::Required { property } => problems.push(ArgumentProblem::Missing {
            parameter: path(at, property.as_str()),
        }),
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            problems.extend(unexpected.iter().map(|name| ArgumentProblem::Unexpected {
                parameter: path(at, Some(name)),
                known: Vec::new(),
            }));
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            describe_alternatives(error, context, problems);
        }
        _ => problems.push(invalid(error, message(error))),
    }
}

/// Nothing fits: if only one alternative is of the right type, its problems are what helps, else all are named.
fn describe_alternatives(
    error: &ValidationError<'_>,
    alternatives: &[Vec<ValidationError<'static>>],
    problems: &mut Vec<ArgumentProblem>,
) {
    let at = error.instance_path().as_str();
    let constants: Option<Vec<String>> = alternatives.iter().map(|errors| constant(errors, at)).collect();
    if let Some(constants) = constants {
        let message = format!("{} is not one of {}", shown(error.instance()), list(&constants, ", "));
        return problems.push(invalid(error, message));
    }
    let of_other_type = |error: &ValidationError<'_>| {
        matches!(error.kind(), ValidationErrorKind::Type { .. }) && error.instance_path().as_str() == at
    };
    let mut near = alternatives.iter().filter(|errors| !errors.iter().any(of_other_type));
    if let (Some(errors), None) = (near.next(), near.next()) {
        return errors.iter().for_each(|error| describe(error, problems));
    }
    let described: Vec<String> = alternatives.iter().map(|errors| describe_alternative(errors)).collect();
    let message = format!("{} fits none of: {}", shown(error.instance()), list(&described, ", "));
    problems.push(invalid(error, clipped(&message, 10 * MAX_SHOWN)));
}

fn describe_alternative(errors: &[ValidationError<'static>]) -> String {
    let mut problems = Vec::new();
    errors.iter().for_each(|error| describe(error, &mut problems));
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!("({})", clipped(&list(&problems, " and "), 4 * MAX_SHOWN))
}

/// The constant that an alternative asks for, if that is all it asks for.
fn constant(errors: &[ValidationError<'static>], at: &str) -> Option<String> {
    let mut wanted = None;
    for error in errors {
        match error.kind() {
            _ if error.instance_path().as_str() != at => return None,
            ValidationErrorKind::Constant { expected_value } => wanted = Some(shown(expected_value)),
            ValidationErrorKind::Enum { options } => {
                let options = options.as_array()?;
                wanted = Some(options.iter().map(shown).collect::<Vec<_>>().join(", "));
            }
            ValidationErrorKind::Type { .. } => {}
            _ => return None,
        }
    }
    wanted
}

fn invalid(error: &ValidationError<'_>, message: String) -> ArgumentProblem {
    ArgumentProblem::Invalid {
        parameter: path(error.instance_path(), None),
        message,
    }
}

fn message(error: &ValidationError<'_>) -> String {
    let instance = shown(error.instance());
    match error.kind() {
        // These are worded here because the library's wording repeats the value, whatever its size.
        ValidationErrorKind::Constant { expected_value } => format!("{instance} is not {}", shown(expected_value)),
        ValidationErrorKind::FalseSchema => format!("{instance} is not allowed"),
        ValidationErrorKind::UniqueItems => format!("{instance} has an item twice"),
        ValidationErrorKind::Contains => format!("{instance} lacks an item that it needs"),
        ValidationErrorKind::AdditionalItems { limit } => format!("{instance} has more than {limit} items"),
        _ => clipped(&error.masked_with(instance).to_string(), 10 * MAX_SHOWN),
    }
}

/// `location` and `last` in the way people write it: `items[0].name`.
fn path(location: &Location, last: Option<&str>) -> String {
    let mut path = String::new();
    let last = last.map(|name| LocationSegment::Property(name.into()));
    for segment in location.iter().chain(last) {
        match segment {
            LocationSegment::Index(index) => path += &format!("[{index}]"),
            LocationSegment::Property(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path += &name;
            }
        }
    }
    path
}

fn shown(value: &Value) -> String {
    clipped(&value.to_string(), MAX_SHOWN)
}

fn list(parts: &[String], separator: &str) -> String {
    let mut text = parts[..parts.len().min(MAX_ALTERNATIVES)].join(separator);
    if parts.len() > MAX_ALTERNATIVES {
        text += &format!("{separator}...");
    }
    text
}

fn clipped(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
