//! Answers in scripts of a mock.

use std::time::Duration;

use super::Answer;
use super::names::{error_kind_of, error_kinds};
use super::script::Reader;
use crate::config::{Content, Mapping, Tree};
use crate::llm::LlmErrorKind;

/// The longest latency that makes sense: a day, in seconds.
const MAX_LATENCY: f64 = 86_400.0;

/// The keys of an answer: first those that say what it is.
pub(super) const ANSWER_KEYS: &[&str] = &[
    "output",
    "text",
    "json",
    "call_tool",
    "arguments",
    "finish",
    "error",
    "signals",
    "usage",
    "latency",
    "pieces_of",
];

/// The keys that say what an answer is.
pub(super) fn body_keys() -> impl Iterator<Item = &'static str> {
    ANSWER_KEYS.iter().copied().take_while(|key| *key != "signals")
}

impl Reader {
    /// The answer whose keys are in `map`.
    pub(super) fn answer(&mut self, tree: &Tree, map: &Mapping) -> Option<Answer> {
        // Arguments beside a call are those of the call.
        let is_call = map.contains_key("call_tool");
        let mut keys = body_keys().filter(|key| map.contains_key(*key) && !(is_call && *key == "arguments"));
        let key = keys.next();
        for (other, key) in keys.zip(key.into_iter().cycle()) {
            self.problem_of(map, other, format!("the answer is '{key}' already"), None);
        }
        let body = match key {
            Some(key) => self.body(map, key),
            None => {
                let known: Vec<&str> = body_keys().collect();
                let help = format!("one of {}", known.join(", "));
                self.problem(tree.position, "there is no answer", Some(help));
                None
            }
        };
        // Also without a body: all problems are reported.
        let common = self.modified(Answer::empty(), map);
        Some(body?.or(&common))
    }

    fn body(&mut self, map: &Mapping, key: &str) -> Option<Answer> {
        let value = &map.get(key)?.value;
        match key {
            "output" => Some(Answer::output(self.json(value)?)),
            "text" => Some(Answer::text(self.name(map, key)?)),
            "json" => Some(Answer::json(self.json(value)?)),
            "arguments" => Some(Answer::arguments(self.json(value)?)),
            "call_tool" => {
                let answer = Answer::call_tool(self.name(map, key)?);
                match map.get("arguments") {
                    Some(arguments) => Some(answer.arguments_of_call(self.json(&arguments.value)?)),
                    None => Some(answer),
                }
            }
            "finish" if matches!(value.content, Content::Bool(true)) => Some(Answer::finish()),
            "finish" => {
                self.problem_of(map, key, "only true is possible", None);
                None
            }
            _ => self.error_answer(map, value),
        }
    }

    /// `error: text`, or `error: {kind: ..., message: ...}`.
    fn error_answer(&mut self, map: &Mapping, value: &Tree) -> Option<Answer> {
        let Some(inner) = value.as_map() else {
            return Some(Answer::error(LlmErrorKind::Other, self.name(map, "error")?));
        };
        self.inside("error", |reader| {
            reader.check_keys(inner, &["kind", "message"]);
            let message = match inner.contains_key("message") {
                true => reader.name(inner, "message")?,
                false => "the mock LLM was told to fail".to_owned(),
            };
            let Some(name) = inner.contains_key("kind").then(|| reader.name(inner, "kind")) else {
                return Some(Answer::error(LlmErrorKind::Other, message));
            };
            let name = name?;
            let kind = error_kind_of(&name);
            if kind.is_none() {
                let known: Vec<&str> = error_kinds().collect();
                reader.problem_of(inner, "kind", format!("'{name}' is no kind of error"), known.join(", "));
            }
            Some(Answer::error(kind?, message))
        })
    }

    /// The answer with what the other keys say about it.
    pub(super) fn modified(&mut self, mut answer: Answer, map: &Mapping) -> Answer {
        if let Some(signals) = self.signals(map) {
            answer = answer.signals(signals);
        }
        if let Some(usage) = map.get("usage") {
            match usage.value.as_map() {
                Some(usage) => {
                    answer = self.inside("usage", |reader| {
                        reader.check_keys(usage, &["prompt_tokens", "completion_tokens"]);
                        let mut tokens = |key| reader.whole_number(usage, key, 0).unwrap_or_default();
                        answer.usage(tokens("prompt_tokens"), tokens("completion_tokens"))
                    });
                }
                None => {
                    let help = "{prompt_tokens: 10, completion_tokens: 2}".to_owned();
                    self.problem_of(map, "usage", "a mapping is expected", help);
                }
            }
        }
        if let Some(latency) = self.latency(map) {
            answer = answer.after(latency);
        }
        if let Some(characters) = self.whole_number(map, "pieces_of", 1) {
            answer = answer.in_pieces_of(usize::try_from(characters).unwrap_or(usize::MAX));
        }
        answer
    }

    fn signals(&mut self, map: &Mapping) -> Option<Vec<String>> {
        let value = &map.get("signals")?.value;
        let names: Option<Vec<String>> = match &value.content {
            Content::List(items) => items
                .iter()
                .map(|item| Some(item.as_name()?.as_ref().to_owned()))
                .collect(),
            _ => None,
        };
        if names.is_none() {
            self.problem_of(map, "signals", "a list of signals is expected", None);
        }
        names
    }

    fn latency(&mut self, map: &Mapping) -> Option<Duration> {
        let seconds = |seconds: f64| {
            let possible = (0.0..=MAX_LATENCY).contains(&seconds);
            possible.then(|| Duration::from_secs_f64(seconds))
        };
        let latency = match &map.get("latency")?.value.content {
            Content::Text(text) => humantime::parse_duration(text)
                .ok()
                .and_then(|time| seconds(time.as_secs_f64())),
            // Up to the longest latency, these conversions are exact.
            Content::Int(number) => seconds(*number as f64),
            Content::Float(number) => seconds(*number),
            _ => None,
        };
        if latency.is_none() {
            let help = "50ms, 1s 500ms, or a number of seconds; at most a day".to_owned();
            self.problem_of(map, "latency", "a duration is expected", help);
        }
        latency
    }

    /// Reads what is inside `key`.
    fn inside<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(if length == 0 { "" } else { "." });
        self.path.push_str(key);
        let result = read(self);
        self.path.truncate(length);
        result
    }
}
