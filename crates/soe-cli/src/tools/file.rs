//! Reads tools files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use soe_core::config::{Position, Severity, parse_yaml};
use soe_core::tools::{ToolDefinition, ToolRegistry, raw_tool};

use super::command::{Argument, CommandTool, Output, is_path};
use super::parameters::Parameters;
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

/// What a command may write if its tool doesn't say: 16 MiB.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;

/// The longest time that makes sense: a year.
const MAX_SECONDS: f64 = 366.0 * 24.0 * 3600.0;

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

struct Reader {
    positions: Positions,
    folder: PathBuf,
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

    fn error(&mut self, path: &str, message: impl Into<String>, help: Option<String>) {
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

    fn warning(&mut self, path: &str, message: String, help: Option<String>) {
        self.problem("suspicious-tool", path, message, help);
        if let Some(problem) = self.problems.last_mut() {
            problem.severity = Severity::Warning;
        }
    }
}

/// The fields of one tool.
struct Fields<'r> {
    reader: &'r mut Reader,
    map: &'r Map<String, Value>,
    path: &'r str,
}

impl Fields<'_> {
    fn command(&mut self, name: &str, parameters: &Parameters, accumulated: bool) -> Option<CommandTool> {
        let words = self.words()?;
        let (program, rest) = words.split_first()?;
        let arguments: Vec<Argument> = rest.iter().map(|word| Argument::parse(word)).collect();
        if Argument::parse(program).placeholders().next().is_some() {
            self.error("command", "the program can't come from an argument", None);
        }
        for (i, argument) in arguments.iter().enumerate() {
            self.check_placeholders(i + 1, argument, parameters, accumulated);
            if argument.placeholders().next().is_some() && is_code(program, &rest[..i]) {
                let message =
                    format!("a placeholder in code that '{program}' runs: an argument could bring code of its own");
                let help = "pass the value as an element of its own after the code, such as \"$1\" in a shell, or read it from stdin";
                self.error_at(&format!("command[{}]", i + 1), message, Some(help.to_owned()));
            }
        }
        let folder = self.folder();
        Some(CommandTool {
            name: name.to_owned(),
            path: match is_path(program) {
                true => std::path::absolute(self.reader.folder.join(program)).unwrap_or_else(|_| program.into()),
                false => program.into(),
            },
            program: program.clone(),
            arguments,
            env: self.env(),
            folder,
            stdin: self.choice("stdin", &["json", "none"], Some("json")) == Some("json"),
            output: match self.choice("output", &["json", "text"], Some("json")) {
                Some("text") => Output::Text,
                _ => Output::Json,
            },
            max_output: self.number("max_output", 1, i64::MAX as u64).unwrap_or(MAX_OUTPUT),
            defaults: parameters.defaults(),
        })
    }

    fn words(&mut self) -> Option<Vec<String>> {
        let help = "write [program, argument, ...]; for a shell, [sh, -c, 'the code']";
        let Some(value) = self.map.get("command") else {
            self.error("", "'command' is missing", Some(help.to_owned()));
            return None;
        };
        let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
            self.error("command", "'command' must be a list of texts", Some(help.to_owned()));
            return None;
        };
        let mut words = Vec::new();
        for (i, word) in list.iter().enumerate() {
            match word {
                Value::String(word) if i > 0 || !word.trim().is_empty() => words.push(word.clone()),
                Value::Number(number) if i > 0 => words.push(number.to_string()),
                Value::Bool(value) if i > 0 => words.push(value.to_string()),
                _ => {
                    let help = (i > 0).then(|| "put it in quotes; braces too: '{name}'".to_owned());
                    self.error_at(&format!("command[{i}]"), "a text is expected".into(), help);
                    return None;
                }
            }
        }
        Some(words)
    }

    fn check_placeholders(&mut self, i: usize, argument: &Argument, parameters: &Parameters, accumulated: bool) {
        for name in argument.placeholders() {
            let message = match parameters.always_has(name) {
                _ if accumulated => "with 'process_accumulated', the argument is one list: it has no names".to_owned(),
                Some(true) | None => continue,
                Some(false) if parameters.names().contains(&name) => {
                    format!("'{{{name}}}' needs a parameter that is always there, but '{name}' is optional")
                }
                Some(false) => format!("there is no parameter '{name}'"),
            };
            let help = match parameters.names().contains(&name) {
                true => "make it required, give it a default, or read it from stdin".to_owned(),
                false => format!("for the text itself, write '{{{{{name}}}}}'"),
            };
            self.error_at(&format!("command[{i}]"), message, Some(help));
        }
    }

    fn parameters(&mut self, accumulated: bool) -> Parameters {
        let Some(value) = self.map.get("parameters") else {
            return Parameters::any();
        };
        match Parameters::read(value) {
            Ok(parameters) if accumulated && !parameters.names().is_empty() => {
                let message = "with 'process_accumulated', the argument is one list: it has no names";
                self.error(
                    "parameters",
                    message,
                    Some("use a JSON Schema of type array".to_owned()),
                );
                Parameters::any()
            }
            Ok(parameters) => parameters,
            Err(mistakes) => {
                for (name, message) in mistakes {
                    let path = if name.is_empty() {
                        "parameters".to_owned()
                    } else {
                        join("parameters", &name)
                    };
                    self.error_at(&path, message, None);
                }
                Parameters::any()
            }
        }
    }

    /// Where the command runs.
    fn folder(&mut self) -> PathBuf {
        let own = self.text("cwd").map(|cwd| self.reader.folder.join(cwd));
        let folder = own.unwrap_or_else(|| self.reader.folder.clone());
        let folder = if folder == Path::new("") {
            PathBuf::from(".")
        } else {
            folder
        };
        if !folder.is_dir() {
            let message = format!("the folder {} doesn't exist", folder.display());
            self.reader.warning(&join(self.path, "cwd"), message, None);
        }
        folder
    }

    fn env(&mut self) -> Vec<(String, Option<String>)> {
        let Some(value) = self.map.get("env").filter(|value| !value.is_null()) else {
            return Vec::new();
        };
        let Some(map) = value.as_object() else {
            self.error("env", "'env' must be a mapping of names to texts", None);
            return Vec::new();
        };
        let mut variables = Vec::new();
        for (name, value) in map {
            let text = match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
                _ => {
                    self.error_at(
                        &format!("env.{name}"),
                        "a text, or null to take it away, is expected".into(),
                        None,
                    );
                    continue;
                }
            };
            if name.is_empty() || name.contains(['=', '\0']) || text.as_deref().is_some_and(|text| text.contains('\0'))
            {
                self.error_at(&format!("env.{name}"), "this can't be in an environment".into(), None);
                continue;
            }
            variables.push((name.clone(), text));
        }
        variables
    }

    fn timeout(&mut self) -> Option<Duration> {
        let duration = match self.map.get("timeout")? {
            Value::Null => return None,
            Value::String(text) => humantime::parse_duration(text).ok(),
            value => value
                .as_f64()
                .filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds))
                .map(Duration::from_secs_f64),
        };
        let duration = duration.filter(|duration| !duration.is_zero());
        if duration.is_none() {
            self.error(
                "timeout",
                "'timeout' must be a number of seconds, or a text such as 2m 30s",
                None,
            );
        }
        duration
    }

    fn number(&mut self, key: &str, least: u64, most: u64) -> Option<u64> {
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        let number = value.as_u64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let message = format!("'{key}' must be an integer from {least} on, not {value}");
            self.error(key, message, None);
        }
        number
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.map.get(key)? {
            Value::Null => None,
            Value::String(text) if key == "description" || !text.is_empty() => Some(text.clone()),
            _ => {
                self.error(key, format!("'{key}' must be a text"), None);
                None
            }
        }
    }

    fn boolean(&mut self, key: &str) -> bool {
        match self.map.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(value)) => *value,
            Some(_) => {
                self.error(key, format!("'{key}' must be true or false"), None);
                false
            }
        }
    }

    /// One of `choices`; required if there is no default.
    fn choice<'c>(&mut self, key: &str, choices: &[&'c str], default: Option<&'c str>) -> Option<&'c str> {
        let Some(value) = self.map.get(key) else {
            if default.is_none() {
                self.error("", format!("'{key}' is missing: {}", choices.join(" or ")), None);
            }
            return default;
        };
        let found = choices.iter().copied().find(|choice| value == choice);
        if found.is_none() {
            self.error(
                key,
                format!("'{key}' must be {}, not {value}", choices.join(" or ")),
                None,
            );
        }
        found
    }

    fn error(&mut self, key: &str, message: impl Into<String>, help: Option<String>) {
        self.error_at(key, message.into(), help);
    }

    /// An error at a path inside the tool.
    fn error_at(&mut self, path: &str, message: String, help: Option<String>) {
        let path = if path.is_empty() {
            self.path.to_owned()
        } else {
            join(self.path, path)
        };
        self.reader.error(&path, message, help);
    }
}

/// Whether what comes after `before` is code to `program`.
fn is_code(program: &str, before: &[String]) -> bool {
    let name = Path::new(program).file_stem().unwrap_or_default().to_string_lossy();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let flag = match name {
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "fish" | "ash" | "python" | "pypy" | "cmd" => 'c',
        "perl" | "ruby" | "node" | "lua" | "Rscript" => 'e',
        _ => return false,
    };
    let takes_code = |word: &String| {
        let short = word.starts_with(['-', '/']) && !word.starts_with("--") && word.ends_with(flag);
        short || word == "--eval" || word == "--command"
    };
    before.last().is_some_and(takes_code)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
