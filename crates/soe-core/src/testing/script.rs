//! Scripts of a mock as YAML.

use std::fmt;

use super::names::{STAGES, stage_of};
use super::script_answer::{ANSWER_KEYS, body_keys};
use super::{Matcher, MockLlm, any};
use crate::config::{Content, Mapping, Position, Tree, YamlError, closest, read_document};

/// More problems than these are only counted.
const MAX_PROBLEMS: usize = 100;

const TOP_KEYS: &[&str] = &["native_tools", "structured_output", "rules"];
const RULE_KEYS: &[&str] = &["node", "stage", "prompt_contains", "times", "replies"];

/// A script that can't be used: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    problems: Vec<ScriptProblem>,
    more: usize,
}

/// One thing that is wrong with a script.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptProblem {
    /// Where it is written.
    pub position: Option<Position>,
    /// The rule, from 1.
    pub rule: Option<usize>,
    /// The path of the key inside the rule: `replies[1].latency`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl ScriptError {
    /// The problems, in the order in which they are written; at most 100.
    pub fn problems(&self) -> &[ScriptProblem] {
        &self.problems
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script of the mock LLM is not valid")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl std::error::Error for ScriptError {}

impl fmt::Display for ScriptProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "{position}: ")?;
        }
        if let Some(rule) = self.rule {
            write!(f, "rule {rule}")?;
            if let Some(key) = &self.key {
                write!(f, ", {key}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// The mock of a script.
pub(super) fn read(text: &str) -> Result<MockLlm, ScriptError> {
    let mut reader = Reader::default();
    let mock = match read_document(text) {
        Ok(document) => {
            let duplicates = document.iter().flat_map(|document| &document.duplicates);
            for duplicate in duplicates {
                let message = format!("the key '{}' is already at {}", duplicate.key, duplicate.first);
                reader.problem(Some(duplicate.second), message, None);
            }
            reader.script(document.as_ref().map(|document| &document.root))
        }
        Err(error) => {
            reader.yaml(&error);
            MockLlm::new()
        }
    };
    match reader.problems.is_empty() {
        true => Ok(mock),
        false => Err(ScriptError {
            problems: reader.problems,
            more: reader.more,
        }),
    }
}

/// Reads a script, and collects what is wrong.
#[derive(Default)]
pub(super) struct Reader {
    problems: Vec<ScriptProblem>,
    /// How many problems there are besides.
    more: usize,
    rule: Option<usize>,
    /// The path of what is read, inside the rule.
    pub(super) path: String,
}

impl Reader {
    fn script(&mut self, root: Option<&Tree>) -> MockLlm {
        let mut mock = MockLlm::new();
        let rules = match root {
            Some(root) => match &root.content {
                Content::Map(map) => {
                    self.check_keys(map, TOP_KEYS);
                    if self.boolean(map, "native_tools") {
                        mock = mock.with_native_tools();
                    }
                    if self.boolean(map, "structured_output") {
                        mock = mock.with_structured_output();
                    }
                    map.get("rules").map(|entry| &entry.value)
                }
                _ => Some(root),
            },
            None => None,
        };
        match rules.map(|rules| &rules.content) {
            Some(Content::List(rules)) if !rules.is_empty() => {
                for (i, rule) in rules.iter().enumerate() {
                    self.rule = Some(i + 1);
                    self.rule(rule, &mock);
                }
            }
            _ => {
                let at = rules.or(root).and_then(|tree| tree.position);
                self.problem(at, "a list of rules is expected", Some("- node: NAME ...".to_owned()));
            }
        }
        mock
    }

    fn rule(&mut self, tree: &Tree, mock: &MockLlm) {
        let Some(map) = tree.as_map() else {
            self.problem(
                tree.position,
                format!("a mapping is expected, not {}", tree.type_name()),
                None,
            );
            return;
        };
        self.check_keys(map, &[RULE_KEYS, ANSWER_KEYS].concat());
        let matcher = self.matcher(map);
        let times = self.whole_number(map, "times", 1);
        let answers = self.answers(tree, map);
        let place = tree
            .position
            .map_or_else(|| "the script".to_owned(), |position| format!("line {}", position.line));
        let mut rule = mock.on_at(matcher, place);
        if let Some(times) = times {
            rule = rule.times(usize::try_from(times).unwrap_or(usize::MAX));
        }
        for answer in answers {
            rule = rule.then(answer);
        }
    }

    fn matcher(&mut self, map: &Mapping) -> Matcher {
        let mut matcher = any();
        if let Some(node) = self.name(map, "node") {
            matcher = matcher.node(node);
        }
        if let Some(name) = self.name(map, "stage") {
            match stage_of(&name) {
                Some(stage) => matcher = matcher.stage(stage),
                None => {
                    let known: Vec<&str> = STAGES.iter().map(|stage| stage.as_str()).collect();
                    self.problem_of(map, "stage", format!("'{name}' is no stage"), known.join(", "));
                }
            }
        }
        let several = map.get("prompt_contains").map(|entry| &entry.value.content);
        if let Some(Content::List(parts)) = several {
            for part in parts.iter() {
                match part.as_name() {
                    Some(part) => matcher = matcher.prompt_contains(part.clone()),
                    None => self.problem_of(map, "prompt_contains", "a list of texts is expected", None),
                }
            }
        } else if let Some(part) = self.name(map, "prompt_contains") {
            matcher = matcher.prompt_contains(part);
        }
        matcher
    }

    /// The answers of a rule: those of `replies`, or the one that the rule itself has.
    fn answers(&mut self, tree: &Tree, map: &Mapping) -> Vec<super::Answer> {
        let Some(replies) = map.get("replies") else {
            return self.answer(tree, map).into_iter().collect();
        };
        if let Some(key) = body_keys().find(|key| map.contains_key(*key)) {
            self.problem_of(
                map,
                key,
                "a rule has either an answer, or a list of them in 'replies'",
                None,
            );
        }
        let Content::List(items) = &replies.value.content else {
            self.problem_of(map, "replies", "a list of answers is expected", None);
            return Vec::new();
        };
        if items.is_empty() {
            self.problem_of(map, "replies", "there is no answer", None);
        }
        let common = self.modified(super::Answer::empty(), map);
        let mut answers = Vec::new();
        for (i, item) in items.iter().enumerate() {
            self.path = format!("replies[{i}]");
            answers.extend(self.reply(item).map(|answer| answer.or(&common)));
        }
        self.path.clear();
        answers
    }

    /// One item of `replies`: an answer's keys, or just an output.
    fn reply(&mut self, item: &Tree) -> Option<super::Answer> {
        match item.as_map() {
            Some(map) => {
                self.check_keys(map, ANSWER_KEYS);
                self.answer(item, map)
            }
            None => Some(super::Answer::output(self.json(item)?)),
        }
    }

    pub(super) fn check_keys(&mut self, map: &Mapping, known: &[&str]) {
        for (key, entry) in map {
            if !known.contains(&key.as_ref()) {
                let help = match closest(key, known.iter().copied()) {
                    Some(meant) => format!("did you mean '{meant}'?"),
                    None => format!("known keys: {}", known.join(", ")),
                };
                self.problem(entry.key_position, format!("unknown key '{key}'"), Some(help));
            }
        }
    }

    /// A text; any scalar counts as the text that it is written as.
    pub(super) fn name(&mut self, map: &Mapping, key: &str) -> Option<String> {
        let entry = map.get(key)?;
        match entry.value.as_name() {
            Some(text) => Some(text.as_ref().to_owned()),
            None => {
                self.problem_of(
                    map,
                    key,
                    format!("a text is expected, not {}", entry.value.type_name()),
                    None,
                );
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, map: &Mapping, key: &str) -> bool {
        match map.get(key).map(|entry| &entry.value.content) {
            None => false,
            Some(Content::Bool(value)) => *value,
            Some(_) => {
                self.problem_of(map, key, "true or false is expected", None);
                false
            }
        }
    }

    pub(super) fn whole_number(&mut self, map: &Mapping, key: &str, least: u64) -> Option<u64> {
        let number = match map.get(key)?.value.content {
            Content::Int(number) => u64::try_from(number).ok(),
            Content::UInt(number) => Some(number),
            _ => None,
        };
        let number = number.filter(|number| *number >= least);
        if number.is_none() {
            self.problem_of(map, key, format!("a whole number from {least} on is expected"), None);
        }
        number
    }

    pub(super) fn json(&mut self, tree: &Tree) -> Option<serde_json::Value> {
        match tree.to_value() {
            Ok(value) => Some(value.to_json()),
            Err(number) => {
                self.problem(
                    number.position,
                    format!("the number {} is not finite", number.written),
                    None,
                );
                None
            }
        }
    }

    fn yaml(&mut self, error: &YamlError) {
        self.problem(error.position(), format!("invalid YAML: {}", error.kind()), None);
    }

    /// A problem of a key's value.
    pub(super) fn problem_of(
        &mut self,
        map: &Mapping,
        key: &str,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        let entry = map.get(key);
        let position = entry.and_then(|entry| entry.value.position.or(entry.key_position));
        let length = self.path.len();
        self.path.push_str(if length == 0 { "" } else { "." });
        self.path.push_str(key);
        self.problem(position, message, help.into());
        self.path.truncate(length);
    }

    pub(super) fn problem(&mut self, position: Option<Position>, message: impl Into<String>, help: Option<String>) {
        if self.problems.len() == MAX_PROBLEMS {
            self.more += 1;
            return;
        }
        self.problems.push(ScriptProblem {
            position,
            rule: self.rule,
            key: (!self.path.is_empty()).then(|| self.path.clone()),
            message: message.into(),
            help,
        });
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
