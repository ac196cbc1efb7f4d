//! What is wrong with a reply, in words that an LLM can correct itself by.

use std::borrow::Cow;
use std::fmt;

use soe_backends::Value;

use crate::tools::{ArgumentProblem, ArgumentsError};

use super::format::MAX_REPLY_BYTES;

/// The most problems that are spelled out.
const MAX_PROBLEMS: usize = 20;

/// The most characters of a wrong value that are shown.
const MAX_SHOWN: usize = 80;

/// The most characters of a path, of a message of somebody else's, and of a list of names.
const MAX_MESSAGE: usize = 400;

/// A reply that is not what was asked for. Its text names every field that is wrong, so that the LLM can be asked again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidReply {
    /// There is nothing in it but space and thoughts.
    #[error("the reply is empty")]
    Empty,
    /// It ends within its thoughts.
    #[error("the reply has thoughts only: there is no answer after <think>")]
    OnlyThoughts,
    /// It is longer than [`MAX_REPLY_BYTES`].
    #[error("the reply has {bytes} bytes, more than the {MAX_REPLY_BYTES} that are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// There is no JSON in it.
    #[error("there is no JSON in the reply")]
    NoJson,
    /// What looks like JSON isn't.
    #[error("the reply is not valid JSON: {0}")]
    BrokenJson(String),
    /// It is JSON that doesn't match the schema.
    #[error(transparent)]
    Mismatch(Problems),
}

/// What of a reply doesn't match, one line each: `path: problem`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    /// The problems, no more than twenty.
    pub shown: Vec<Problem>,
    /// How many there are beyond those.
    pub more: usize,
    /// Whether the reply looks like a schema, sent back instead of a value.
    pub is_schema: bool,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `items[0].name`; empty for the reply as a whole.
    pub path: String,
    /// What.
    pub message: String,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        if self.is_schema {
            f.write_str("this is a schema: a value that matches it is wanted, not the schema itself")?;
            gap = "\n";
        }
        for Problem { path, message } in &self.shown {
            let path = if path.is_empty() { "(the whole reply)" } else { path };
            write!(f, "{gap}{path}: {message}")?;
            gap = "\n";
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "{gap}and {more} more"),
        }
    }
}

impl Problems {
    pub(super) fn one(path: &str, message: impl Into<String>) -> Self {
        let mut problems = Self::default();
        problems.push(|| Problem {
            path: path.to_owned(),
            message: message.into(),
        });
        problems
    }

    /// Counts a problem; it is made only if it is going to be shown.
    pub(super) fn push(&mut self, problem: impl FnOnce() -> Problem) {
        if self.shown.len() == MAX_PROBLEMS {
            self.more += 1;
            return;
        }
        let Problem { path, message } = problem();
        self.shown.push(Problem {
            path: clipped(&one_line(&path), MAX_MESSAGE),
            message: clipped(&message, 2 * MAX_MESSAGE),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// Says so if `reply` looks like a schema.
    pub(super) fn of(mut self, reply_is_schema: bool) -> InvalidReply {
        self.is_schema = reply_is_schema;
        InvalidReply::Mismatch(self)
    }
}

impl From<ArgumentsError> for Problems {
    fn from(error: ArgumentsError) -> Self {
        let mut problems = Self::default();
        for problem in error.problems {
            problems.push(|| match problem {
                ArgumentProblem::Missing { parameter } => Problem {
                    path: parameter,
                    message: "is missing".to_owned(),
                },
                ArgumentProblem::Unexpected { parameter, known } => Problem {
                    path: parameter,
                    message: match known.is_empty() {
                        true => "there is no such parameter".to_owned(),
                        false => format!("there is no such parameter, only {}", names(&known)),
                    },
                },
                ArgumentProblem::Invalid { parameter, message } => Problem {
                    path: parameter,
                    message,
                },
            });
        }
        problems.more += error.more;
        problems
    }
}

/// Whether `reply` looks like a JSON Schema rather than like what one describes.
pub(super) fn looks_like_schema(reply: &Value) -> bool {
    const TYPES: [&str; 7] = ["object", "array", "string", "integer", "number", "boolean", "null"];
    let named_type = || {
        let name = reply.get("type").and_then(Value::as_str);
        name.is_some_and(|name| TYPES.contains(&name))
    };
    reply
        .get("properties")
        .is_some_and(|properties| properties.as_map().is_some())
        || named_type()
}

/// A value as JSON, clipped.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => match text.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => format!("{}...", Value::from(&text[..end])),
            None => value.to_string(),
        },
        // What is in it would have to be written out to be clipped; how much there is says more.
        Value::List(items) if items.len() > 8 => format!("a list of {} items", items.len()),
        Value::Map(entries) if entries.len() > 8 => format!("an object of {} properties", entries.len()),
        Value::List(_) => "a list".to_owned(),
        Value::Map(entries) => {
            let keys: Vec<String> = entries.keys().map(|key| clipped(&one_line(key), MAX_SHOWN)).collect();
            match keys.is_empty() {
                true => "an empty object".to_owned(),
                false => clipped(&format!("an object of {}", keys.join(", ")), 2 * MAX_SHOWN),
            }
        }
        scalar => scalar.to_string(),
    }
}

/// Names in quotes, clipped.
pub(super) fn names<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names
        .iter()
        .take(MAX_PROBLEMS)
        .map(|name| format!("'{}'", name.as_ref()))
        .collect();
    let more = if names.len() > MAX_PROBLEMS { ", ..." } else { "" };
    clipped(&(quoted.join(", ") + more), MAX_MESSAGE)
}

/// `text`, or its first `most` characters and an ellipsis.
pub(super) fn clipped(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_control) {
        true => text.escape_debug().to_string().into(),
        false => text.into(),
    }
}
