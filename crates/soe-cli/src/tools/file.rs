//! Reads tools files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value};
use soe_core::config::{Position, Severity, parse_yaml};
use soe_core::tools::{ToolDefinition, ToolRegistry, raw_tool};

use super::fields::Fields;
use super::position::{Positions, join};
use crate::problems::{Problem, Source};

const KEYS: &[&str] = &[
    "type",
    "description",
    "command",
    "parameters",
    "stdin",
    "output",
    "env",
    "cwd",
    "timeout",
    "retries",
    "failure_signal",
    "concurrency",
    "process_accumulated",
    "max_output",
];

/// Registers the tools of a file, and says what is wrong with the others. `names` gets the names of all.
pub(super) fn read(source: &Source, registry: &mut ToolRegistry, names: &mut BTreeSet<String>) -> Vec<Problem> {
    let value = match parse_yaml(&source.text) {
        Ok(value) => value.to_json(),
        Err(error) => {
            return vec![Problem::error("invalid-yaml", error.kind().to_string()).at(error.position())];
        }
    };
    let mut reader = Reader {
        positions: Positions::of(&source.text),
        folder: source.folder.clone().unwrap_or_default(),
        problems: Vec::new(),
    };
    let Some(tools) = reader.tools(&value) else {
        return reader.problems;
    };
    for (name, tool) in tools {
        names.insert(name.clone());
        let path = join("tools", name);
        let before = reader.problems.iter().filter(|problem| problem.is_error()).count();
        let definition = reader.tool(name, tool, &path);
        let after = reader.problems.iter().filter(|problem| problem.is_error()).count();
        if let (Some(definition), true) = (definition, before == after)
            && let Err(error) = registry.register(definition)
        {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            reader.error(&path, format!("{error}{}", cause.unwrap_or_default()), None);
        }
    }
    reader.problems
}

pub(super) struct Reader {
    positions: Positions,
    /// The folder that the file is in.
    pub(super) folder: PathBuf,
    problems: Vec<Problem>,
}

impl Reader {
    fn tools<'v>(&mut self, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let Some(map) = value.as_object() else {
            self.error("", "a mapping with the key 'tools' is expected", None);
            return None;
        };
        for key in map.keys().filter(|key| *key != "tools") {
            self.unknown_key(key, key, &["tools"]);
        }
        match map.get("tools") {
            Some(Value::Object(tools)) => Some(tools),
            Some(_) => {
                self.error("tools", "'tools' must be a mapping of tools by name", None);
                None
            }
            None => {
                self.error("", "the key 'tools' is missing", None);
                None
            }
        }
    }

    fn tool(&mut self, name: &str, value: &Value, path: &str) -> Option<ToolDefinition> {
        let Some(map) = value.as_object() else {
            self.error(
                path,
                "a tool must be a mapping",
                Some(format!("its keys are {}", KEYS.join(", "))),
            );
            return None;
        };
        for key in map.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            self.unknown_key(&join(path, key), key, KEYS);
        }
        let mut fields = Fields {
            reader: self,
            map,
            path,
        };
        fields.choice("type", &["command"], None);
        let accumulated = fields.boolean("process_accumulated");
        let parameters = fields.parameters(accumulated);
        let command = fields.command(name, &parameters, accumulated)?;
        let description = fields.text("description").unwrap_or_default();
        let mut tool = raw_tool(name, description, command).schema(parameters.schema);
        if let Some(timeout) = fields.timeout() {
            tool = tool.timeout(timeout);
        }
        if let Some(retries) = fields.number("retries", 0, u64::from(u32::MAX)) {
            tool = tool.retries(u32::try_from(retries).unwrap_or(u32::MAX));
        }
        if let Some(signal) = fields.text("failure_signal") {
            tool = tool.failure_signal(signal);
        }
        if let Some(most) = fields.number("concurrency", 1, 1_000_000) {
            tool = tool.concurrency(usize::try_from(most).unwrap_or(usize::MAX));
        }
        Some(if accumulated { tool.process_accumulated() } else { tool })
    }

    fn unknown_key(&mut self, path: &str, key: &str, known: &[&str]) {
        let distance = |candidate: &&str| strsim::damerau_levenshtein(key, candidate);
        let closest = known.iter().copied().min_by_key(distance);
        let help = match closest.filter(|candidate| distance(candidate) <= 2) {
            Some(candidate) => format!("did you mean '{candidate}'?"),
            None => format!("known keys: {}", known.join(", ")),
        };
        self.problem("unknown-key", path, format!("unknown key '{key}'"), Some(help));
    }

    pub(super) fn error(&mut self, path: &str, message: impl Into<String>, help: Option<String>) {
        self.problem("invalid-tool", path, message.into(), help);
    }

    fn problem(&mut self, code: &'static str, path: &str, message: String, help: Option<String>) {
        let start = Some(Position { line: 1, column: 1 });
        self.problems.push(Problem {
            field: (!path.is_empty()).then(|| path.to_owned()),
            help,
            ..Problem::error(code, message).at(self.positions.get(path).or(start))
        });
    }

    pub(super) fn warning(&mut self, path: &str, message: String, help: Option<String>) {
        self.problem("suspicious-tool", path, message, help);
        if let Some(problem) = self.problems.last_mut() {
            problem.severity = Severity::Warning;
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
