//! A tool that is a command.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use async_trait::async_trait;
use serde_json::{Map, Value};
use soe_core::tools::{Tool, ToolContext, ToolError};
use tokio::process::Command;

use super::process::{self, Finished, ProcessError};
use crate::output::brief;

/// The most of a program's own words that goes into an error.
const MAX_QUOTED: usize = 2_000;

/// The most of an unreadable output that is shown.
const MAX_EXCERPT: usize = 200;

/// A command as a tools file describes it.
#[derive(Debug)]
pub(super) struct CommandTool {
    /// The tool's name.
    pub(super) name: String,
    /// As it is written.
    pub(super) program: String,
    /// What is started: the program, or the path to it.
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<Argument>,
    /// What is added to the environment; `None` takes a variable away.
    pub(super) env: Vec<(String, Option<String>)>,
    pub(super) folder: PathBuf,
    /// Whether the arguments go to its stdin.
    pub(super) stdin: bool,
    pub(super) output: Output,
    pub(super) max_output: u64,
    /// What stands in for arguments that are not given.
    pub(super) defaults: Map<String, Value>,
}

/// How the output becomes the tool's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Json,
    Text,
}

/// One element of the command line: text with placeholders. It stays one element whatever they are replaced by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(String),
}

/// A tool's failure.
#[derive(Debug, thiserror::Error)]
#[error("tool '{tool}': {cause}")]
struct Failed {
    tool: String,
    cause: Cause,
}

/// Why a command gave no result.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("the program '{program}' was not found{hint}")]
    NotFound { program: String, hint: &'static str },
    #[error("the folder {} doesn't exist", .0.display())]
    NoFolder(PathBuf),
    #[error("'{program}' could not be started: {error}")]
    NotStarted { program: String, error: io::Error },
    #[error("'{program}' {ending}{said}")]
    Ended {
        program: String,
        ending: String,
        said: String,
    },
    #[error("'{program}' wrote more than {limit} bytes, which is its max_output; it was killed")]
    TooMuchOutput { program: String, limit: u64 },
    #[error("'{program}' could not be fed or read: {error}")]
    Pipe { program: String, error: io::Error },
    #[error("'{program}' printed no JSON ({error}): {excerpt} (with 'output: text', any text is a result)")]
    NotJson {
        program: String,
        error: serde_json::Error,
        excerpt: String,
    },
    #[error("'{program}' printed no UTF-8 text: {excerpt}")]
    NotText { program: String, excerpt: String },
    #[error("the command needs an argument '{0}', which was not given")]
    Missing(String),
}

impl Cause {
    /// Whether another attempt may help. What can't be started can't be started by trying again, unless the system was
    /// short of something.
    fn is_retryable(&self) -> bool {
        match self {
            Cause::NotFound { .. } | Cause::NoFolder(_) | Cause::Missing(_) => false,
            Cause::NotStarted { error, .. } => !matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::ArgumentListTooLong
            ),
            _ => true,
        }
    }
}

#[async_trait]
impl Tool for CommandTool {
    async fn call(&self, mut arguments: Value, context: ToolContext) -> Result<Value, ToolError> {
        if let Value::Object(given) = &mut arguments {
            for (name, default) in &self.defaults {
                given.entry(name).or_insert_with(|| default.clone());
            }
        }
        self.run(&arguments, &context).await.map_err(|cause| {
            let retryable = cause.is_retryable();
            let error = ToolError::from(Failed {
                tool: self.name.clone(),
                cause,
            });
            if retryable { error } else { error.no_retry() }
        })
    }
}

impl CommandTool {
    async fn run(&self, arguments: &Value, context: &ToolContext) -> Result<Value, Cause> {
        let mut command = self.command(arguments, context)?;
        let input = self.stdin.then(|| format!("{arguments}\n").into_bytes());
        let finished = process::run(&mut command, input, self.max_output).await;
        let finished = finished.map_err(|error| self.cause(error))?;
        let said = String::from_utf8_lossy(&finished.stderr);
        if !said.trim().is_empty() {
            tracing::debug!(tool = self.name, stderr = %said.trim_end(), "a command wrote to stderr");
        }
        match finished.status.success() {
            true => self.result(finished.stdout),
            false => Err(self.ended(&finished)),
        }
    }

    fn command(&self, arguments: &Value, context: &ToolContext) -> Result<Command, Cause> {
        let mut command = Command::new(&self.path);
        for argument in &self.arguments {
            command.arg(argument.fill(arguments)?);
        }
        command.current_dir(&self.folder);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("SOE_EXECUTION_ID", context.execution_id().as_str());
        command.env("SOE_RUN_ID", context.idempotency_key());
        command.env("SOE_ATTEMPT", context.attempt().to_string());
        Ok(command)
    }

    fn cause(&self, error: ProcessError) -> Cause {
        let program = self.program.clone();
        match error {
            ProcessError::Start(error) if error.kind() == io::ErrorKind::NotFound => {
                if !self.folder.is_dir() {
                    return Cause::NoFolder(self.folder.clone());
                }
                let hint = match (is_path(&self.program), self.path.exists()) {
                    (true, true) => ": the file exists, but not the interpreter that its first line names",
                    (true, false) => "",
                    (false, _) => " in the PATH",
                };
                Cause::NotFound { program, hint }
            }
            ProcessError::Start(error) => Cause::NotStarted { program, error },
            ProcessError::TooMuchOutput(limit) => Cause::TooMuchOutput { program, limit },
            ProcessError::Pipe(error) => Cause::Pipe { program, error },
        }
    }

    fn ended(&self, finished: &Finished) -> Cause {
        let words = [&finished.stderr, &finished.stdout].map(|bytes| last_words(bytes));
        let said = words.into_iter().find(|words| !words.is_empty());
        Cause::Ended {
            program: self.program.clone(),
            ending: ending(finished.status),
            said: said.map_or_else(String::new, |words| format!(": {words}")),
        }
    }

    fn result(&self, stdout: Vec<u8>) -> Result<Value, Cause> {
        let program = self.program.clone();
        let text = String::from_utf8(stdout).map_err(|error| Cause::NotText {
            program: program.clone(),
            excerpt: brief(&String::from_utf8_lossy(error.as_bytes()), MAX_EXCERPT),
        })?;
        if self.output == Output::Text {
            let line = text.strip_suffix('\n').unwrap_or(&text);
            return Ok(line.strip_suffix('\r').unwrap_or(line).into());
        }
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| Cause::NotJson {
            program,
            error,
            excerpt: brief(&text, MAX_EXCERPT),
        })
    }
}

impl Argument {
    /// `{name}` is a placeholder, `{{name}}` is the text `{name}`; other braces are text.
    pub(super) fn parse(text: &str) -> Self {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find('{') {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(name) = rest.strip_prefix("{{").and_then(name_before_brace)
                && rest[2 + name.len()..].starts_with("}}")
            {
                literal.push_str(&rest[1..name.len() + 3]);
                rest = &rest[name.len() + 4..];
            } else if let Some(name) = rest.strip_prefix('{').and_then(name_before_brace) {
                parts.push(Part::Text(std::mem::take(&mut literal)));
                parts.push(Part::Placeholder(name.to_owned()));
                rest = &rest[name.len() + 2..];
            } else {
                literal.push('{');
                rest = &rest[1..];
            }
        }
        literal.push_str(rest);
        parts.push(Part::Text(literal));
        parts.retain(|part| *part != Part::Text(String::new()));
        Self(parts)
    }

    /// The names of the placeholders.
    pub(super) fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Placeholder(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    fn fill(&self, arguments: &Value) -> Result<OsString, Cause> {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Placeholder(name) => match arguments.get(name) {
                    Some(Value::String(text)) => filled.push_str(text),
                    Some(value) => filled.push_str(&value.to_string()),
                    None => return Err(Cause::Missing(name.clone())),
                },
            }
        }
        Ok(filled.into())
    }
}

/// The name at the start of `text`, if a closing brace follows it.
fn name_before_brace(text: &str) -> Option<&str> {
    let (name, _) = text.split_once('}')?;
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (begins && name.chars().all(valid)).then_some(name)
}

/// Whether a program is given by its path, not by its name alone.
pub(super) fn is_path(program: &str) -> bool {
    Path::new(program).components().count() > 1 || program.starts_with('.')
}

fn ending(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            return format!("was killed by signal {signal}");
        }
    }
    match status.code() {
        Some(code) => format!("exited with code {code}"),
        None => "ended abnormally".to_owned(),
    }
}

/// The end of what a program wrote.
fn last_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(MAX_QUOTED);
    match skipped {
        0 => text.to_owned(),
        _ => format!("...{}", text.chars().skip(skipped).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(text: &str, arguments: &Value) -> String {
        Argument::parse(text).fill(arguments).unwrap().into_string().unwrap()
    }

    #[test]
    fn placeholders_are_replaced_and_other_braces_stay() {
        let arguments = json!({"name": "a b; $(x)", "n": 5, "list": [1, "two"], "no": null});
        assert_eq!(fill("--name={name}", &arguments), "--name=a b; $(x)");
        assert_eq!(fill("{n}{n} {list} {no}", &arguments), "55 [1,\"two\"] null");
        for literal in [
            "{print $1}",
            "{}",
            "{ name }",
            "{\"name\": 1}",
            "{",
            "{name",
            "x}}",
            "{{ n }}",
            "{1}",
        ] {
            assert_eq!(fill(literal, &arguments), literal);
        }
        assert_eq!(fill("{{name}} {{{n}}}", &arguments), "{name} {{n}}");
        assert_eq!(fill("größe {n} größe", &arguments), "größe 5 größe");
    }

    #[test]
    fn what_an_argument_contains_is_not_looked_at_again() {
        assert_eq!(fill("{a}{b}", &json!({"a": "{b}", "b": "{a}"})), "{b}{a}");
    }

    #[test]
    fn a_missing_argument_is_an_error() {
        let error = Argument::parse("{url}").fill(&json!({})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the command needs an argument 'url', which was not given"
        );
        assert_eq!(
            Argument::parse("{a} {{b}} {c}").placeholders().collect::<Vec<_>>(),
            ["a", "c"]
        );
    }

    #[test]
    fn long_output_is_quoted_from_its_end() {
        let text = "x".repeat(5_000) + " the end\n";
        let words = last_words(text.as_bytes());
        assert!(words.starts_with("...x") && words.ends_with("the end") && words.len() == MAX_QUOTED + 3);
    }
}
