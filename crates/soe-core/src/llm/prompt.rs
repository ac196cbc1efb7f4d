//! What an LLM is told.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map as JsonMap, Value as Json};
use soe_backends::{Context, Value};

use super::ReplyFormat;
use super::problems::clipped;

/// The most characters of a rejected reply that are repeated.
const MAX_REPEATED: usize = 8_000;

/// The most bytes of context values that go into a request. Values beyond are cut, and say so: no LLM reads more, and a
/// small value that shares its parts may stand for more than fits in memory.
const MAX_CONTEXT_BYTES: usize = 1024 * 1024;

/// A reply that could not be used.
pub(crate) struct Rejected<'a> {
    /// Its text.
    pub(crate) reply: &'a str,
    /// What is wrong with it.
    pub(crate) problem: &'a str,
}

/// What an agent that has to decide looks back on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentSituation {
    /// Nothing was tried.
    First,
    /// A tool was called and answered.
    ToolAnswered,
    /// A tool was called and failed.
    ToolFailed,
    /// It asked for a tool that it doesn't have.
    UnknownTool,
}

/// The text of a request: `fields` as a JSON object, what to reply, and the replies so far that could not be used.
///
/// Whatever comes from outside stays in JSON strings, so that no text of a history or a reply passes for an instruction of
/// the engine. The schema is left out if the endpoint enforces it.
pub(crate) fn request_text<'a>(
    fields: &[(&str, &str)],
    format: &ReplyFormat,
    tell_schema: bool,
    rejected: impl Iterator<Item = Rejected<'a>>,
) -> String {
    let object: JsonMap<String, Json> = fields
        .iter()
        .map(|(key, text)| ((*key).to_owned(), Json::from(*text)))
        .collect();
    let mut text = Json::Object(object).to_string();
    text += "\n\n";
    text += match tell_schema {
        true => {
            "Answer with one JSON value that fits the JSON Schema below. Write the value only: no schema, no comments, \
             no other text.\nJSON Schema: "
        }
        false => "Answer with the JSON value that is asked for, and with no other text.",
    };
    if tell_schema {
        text += &format.schema().to_string();
    }
    for Rejected { reply, problem } in rejected {
        let reply = Json::from(clipped(reply, MAX_REPEATED));
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "\n\nThis earlier answer of yours could not be used: {reply}\nWhat is wrong with it:\n{problem}\n\
             Answer anew, with this corrected."
        );
    }
    text
}

/// The current values of `fields` as a JSON object; empty if none of them exists. The engine's own (`__`) are left out.
///
/// There are no more than about 1 MiB of values. If they are larger, those that are larger than their share are cut to it,
/// as text that ends by saying so.
pub(crate) fn context_text(context: &Context, fields: &[Arc<str>]) -> String {
    let present = fields.iter().filter(|field| !is_reserved(field));
    let mut values: Vec<(&str, Shown<'_>)> = present
        .filter_map(|field| Some((field.as_ref(), Shown::Whole(context.value(field)?))))
        .collect();
    if values.is_empty() {
        return String::new();
    }
    let sizes: Vec<usize> = values.iter().map(|entry| pretty(entry, MAX_CONTEXT_BYTES).1).collect();
    if sizes.iter().sum::<usize>() > MAX_CONTEXT_BYTES {
        let share = MAX_CONTEXT_BYTES / values.len();
        for (entry, size) in values.iter_mut().zip(sizes) {
            if let (Shown::Whole(value), true) = (&entry.1, size > share) {
                entry.1 = Shown::Cut(cut(value, share));
            }
        }
    }
    // Escaping can make a cut text longer; but not without an end.
    pretty(&Entries(&values), usize::MAX).0
}

/// What is to be warned about: the fields that a prompt mentions and that are missing, null or empty.
pub(crate) fn missing_fields(context: &Context, fields: &[Arc<str>]) -> Vec<String> {
    let checked = fields.iter().filter(|field| !is_reserved(field));
    checked
        .filter_map(|field| {
            let lack = match context.value(field) {
                None => "is not in the context",
                Some(Value::Null) => "is null",
                Some(Value::Text(text)) if text.is_empty() => "is an empty text",
                Some(Value::List(items)) if items.is_empty() => "is an empty list",
                Some(Value::Map(entries)) if entries.is_empty() => "is an empty object",
                Some(_) => return None,
            };
            Some(format!("context field '{field}', which the prompt mentions, {lack}"))
        })
        .collect()
}

/// What an agent is told before it decides what to do next.
pub(crate) fn router_instructions(situation: AgentSituation) -> &'static str {
    match situation {
        AgentSituation::First => {
            "You work on the task below, and may use the available tools. Nothing was done so far. Choose the action \
             'call_tool' and a tool if the task needs something that only a tool can give or do; choose 'finish' if \
             the task and its context are enough to answer. Call no tool without need."
        }
        AgentSituation::ToolAnswered => {
            "You work on the task below. The tool that you called last has answered: its result is the last entry of \
             the conversation history. Choose 'finish' if you can answer the task now; choose 'call_tool' if something \
             is still missing. A call that has succeeded need not be repeated."
        }
        AgentSituation::ToolFailed => {
            "You work on the task below. The tool that you called last has failed: the last entry of the conversation \
             history says why. Choose 'call_tool' to try it with other arguments, or to go another way with another \
             tool; choose 'finish' if you can answer the task without it."
        }
        AgentSituation::UnknownTool => {
            "You work on the task below. The tool that you asked for last is not available: the last entry of the \
             conversation history names it. Choose 'call_tool' with a name exactly as it is written in the list of \
             available tools, or 'finish' if you can answer the task without a tool."
        }
    }
}

fn is_reserved(field: &str) -> bool {
    field.starts_with("__")
}

enum Shown<'a> {
    Whole(&'a Value),
    Cut(String),
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Shown::Whole(value) => value.serialize(serializer),
            Shown::Cut(text) => text.serialize(serializer),
        }
    }
}

struct Entries<'e, 'a>(&'e [(&'a str, Shown<'a>)]);

impl Serialize for Entries<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// The beginning of a value, and that it is no more than that.
fn cut(value: &Value, bytes: usize) -> String {
    let begin = match value {
        Value::Text(text) => text
            .char_indices()
            .take_while(|(at, _)| *at < bytes)
            .map(|(_, c)| c)
            .collect(),
        value => pretty(value, bytes).0,
    };
    format!("{begin}... [cut here: this value is too large to be told as a whole]")
}

/// `value` as JSON with line breaks, or what of it `most` bytes hold; and its length, which is beyond `most` if it was cut.
fn pretty(value: &impl Serialize, most: usize) -> (String, usize) {
    let mut bounded = Bounded {
        written: Vec::new(),
        most,
    };
    let cut = serde_json::to_writer_pretty(&mut bounded, value).is_err();
    let length = bounded.written.len() + usize::from(cut);
    let text = match String::from_utf8(bounded.written) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    (text, length)
}

/// Takes bytes up to a limit, and then no more.
struct Bounded {
    written: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.most - self.written.len());
        self.written.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
