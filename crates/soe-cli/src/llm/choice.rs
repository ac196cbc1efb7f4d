//! What `--llm` says, and whether the options beside it fit.

use std::path::{Path, PathBuf};

use crate::Usage;
use crate::args::LlmOptions;
use crate::output::shell_word;

/// What can be said.
const KINDS: &str = "`openai`, `mock:FILE`, `record:FILE` or `replay:FILE`";

/// One `--llm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Nodes that name it ask it; `None` for those that name none.
    pub(crate) name: Option<String>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The endpoint.
    OpenAi,
    /// A script.
    Mock(PathBuf),
    /// The endpoint, with what it answers written to a file.
    Record(PathBuf),
    /// What was recorded.
    Replay(PathBuf),
}

/// Reads `[NAME=]LLM`. Files may have an equals sign in their name, and LLMs a colon, as long as no LLM is called like
/// `mock:FILE`.
pub(crate) fn parse_choice(text: &str) -> Result<Choice, String> {
    let (name, rest) = match text.split_once('=') {
        Some((name, rest)) if !names_file(name) => (Some(name.trim()), rest),
        _ => (None, text),
    };
    if name.is_some_and(str::is_empty) {
        return Err("the name before '=' is missing".to_owned());
    }
    Ok(Choice {
        name: name.map(str::to_owned),
        kind: kind(rest)?,
    })
}

/// Whether `--llm NAME=...` can say which LLM is meant.
pub(super) fn can_be_named(name: &str) -> bool {
    parse_choice(&format!("{name}=openai")).is_ok_and(|choice| choice.name.as_deref() == Some(name))
}

fn names_file(text: &str) -> bool {
    let word = text.split_once(':').map(|(word, _)| word);
    word.is_some_and(|word| ["mock", "record", "replay"].contains(&word))
}

fn kind(text: &str) -> Result<Kind, String> {
    let (word, file) = match text.split_once(':') {
        Some((word, file)) => (word, Some(file)),
        None => (text, None),
    };
    let made = match (word, file) {
        ("openai", None) => return Ok(Kind::OpenAi),
        ("openai", Some(_)) => return Err("`openai` stands alone; the model is given by --model".to_owned()),
        ("mock", _) => Kind::Mock,
        ("record", _) => Kind::Record,
        ("replay", _) => Kind::Replay,
        _ => {
            return Err(format!(
                "{KINDS} is expected, with NAME= before it for nodes that name their LLM"
            ));
        }
    };
    match file {
        None | Some("") => Err(format!("a file is missing: `{word}:FILE`")),
        Some("-") => Err(format!("`{word}` needs a file; stdin and stdout can't be used")),
        Some(file) => Ok(made(file.into())),
    }
}

impl Kind {
    /// Whether it reaches the endpoint.
    pub(crate) fn is_endpoint(&self) -> bool {
        matches!(self, Kind::OpenAi | Kind::Record(_))
    }

    fn file(&self) -> Option<&Path> {
        match self {
            Kind::OpenAi => None,
            Kind::Mock(file) | Kind::Record(file) | Kind::Replay(file) => Some(file),
        }
    }
}

impl LlmOptions {
    /// What the parser of the command line can't see.
    pub(crate) fn check(&self) -> Result<(), Usage> {
        for (i, choice) in self.choices.iter().enumerate() {
            let before = &self.choices[..i];
            if before.iter().any(|other| other.name == choice.name) {
                return Err(Usage(match &choice.name {
                    Some(name) => format!("--llm names '{name}' twice"),
                    None => "--llm is given twice without a name: put NAME= before those that nodes name".to_owned(),
                }));
            }
            let writes = |a: &Kind, b: &Kind| matches!(a, Kind::Record(_)) || matches!(b, Kind::Record(_));
            let same = |other: &&Choice| {
                other.kind.file().is_some()
                    && other.kind.file() == choice.kind.file()
                    && writes(&other.kind, &choice.kind)
            };
            if let Some(file) = before.iter().find(same).and_then(|other| other.kind.file()) {
                let file = file.display();
                return Err(Usage(format!(
                    "--llm uses the file {file} twice: a recording has one of its own"
                )));
            }
        }
        self.check_endpoint()
    }

    fn check_endpoint(&self) -> Result<(), Usage> {
        let given = [
            ("--base-url", self.base_url.is_some()),
            ("--model", self.model.is_some()),
            ("--llm-timeout", self.llm_timeout.is_some()),
            ("--key-env", self.key_env.is_some()),
            ("--native-tools", self.native_tools),
            ("--structured-output", self.structured_output),
        ];
        let reached = self.choices.iter().any(|choice| choice.kind.is_endpoint());
        if let Some((option, _)) = given.iter().find(|(_, given)| *given && !reached) {
            let text = format!("{option} is for `--llm openai` and `--llm record:FILE`, and neither is given");
            return Err(Usage(text));
        }
        let is_variable = |name: &str| {
            let mut chars = name.chars();
            chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        match &self.key_env {
            // Not repeated: it may be the key.
            Some(name) if !is_variable(name) => Err(Usage(
                "--key-env takes the name of an environment variable, not the key itself".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// The options as a shell reads them, each with a space before it, for a command that goes on. Nothing is recorded
    /// again: that would replace the recording.
    pub(crate) fn shell_words(&self) -> String {
        let mut words = String::new();
        let mut add = |option: &str, value: &str| words.push_str(&format!(" {option} {}", shell_word(value)));
        for choice in &self.choices {
            let name = choice.name.as_ref().map_or_else(String::new, |name| format!("{name}="));
            let kind = match &choice.kind {
                Kind::OpenAi | Kind::Record(_) => "openai".to_owned(),
                Kind::Mock(file) => format!("mock:{}", file.display()),
                Kind::Replay(file) => format!("replay:{}", file.display()),
            };
            add("--llm", &format!("{name}{kind}"));
        }
        if let Some(url) = &self.base_url {
            // A query may hold a key.
            let shown = url
                .split_once('?')
                .map_or(url.clone(), |(shown, _)| format!("{shown}?..."));
            add("--base-url", &shown);
        }
        if let Some(model) = &self.model {
            add("--model", model);
        }
        if let Some(timeout) = self.llm_timeout {
            add("--llm-timeout", &humantime::format_duration(timeout).to_string());
        }
        if let Some(variable) = &self.key_env {
            add("--key-env", variable);
        }
        for (option, given) in [
            ("--native-tools", self.native_tools),
            ("--structured-output", self.structured_output),
        ] {
            if given {
                words.push_str(&format!(" {option}"));
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(name: Option<&str>, kind: Kind) -> Result<Choice, String> {
        let name = name.map(str::to_owned);
        Ok(Choice { name, kind })
    }

    #[test]
    fn names_end_at_an_equals_sign_and_kinds_at_a_colon() {
        assert_eq!(parse_choice("openai"), choice(None, Kind::OpenAi));
        assert_eq!(parse_choice("fast=openai"), choice(Some("fast"), Kind::OpenAi));
        assert_eq!(
            parse_choice("mock:a=b.yaml"),
            choice(None, Kind::Mock("a=b.yaml".into()))
        );
        assert_eq!(
            parse_choice("x=replay:c:/a.jsonl"),
            choice(Some("x"), Kind::Replay("c:/a.jsonl".into()))
        );
        assert_eq!(
            parse_choice("llama3:8b=openai"),
            choice(Some("llama3:8b"), Kind::OpenAi)
        );
        assert!(can_be_named("llama3:8b") && can_be_named("fast"));
        assert!(!can_be_named("a=b") && !can_be_named("mock:a") && !can_be_named(" a"));
        for (text, message) in [
            ("foo", "`openai`, `mock:FILE`"),
            ("", "`openai`, `mock:FILE`"),
            ("mock", "a file is missing: `mock:FILE`"),
            ("record:", "a file is missing: `record:FILE`"),
            ("record:-", "stdin and stdout"),
            ("=openai", "the name before '='"),
            ("openai:gpt", "--model"),
        ] {
            let error = parse_choice(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_command_that_goes_on_shows_no_query_and_records_nothing() {
        let options = LlmOptions {
            choices: vec![
                parse_choice("record:a.jsonl").unwrap(),
                parse_choice("b=mock:x y.yaml").unwrap(),
            ],
            base_url: Some("http://x/v1?key=secret".to_owned()),
            native_tools: true,
            llm_timeout: Some(std::time::Duration::from_secs(90)),
            ..LlmOptions::default()
        };
        assert_eq!(
            options.shell_words(),
            " --llm openai --llm 'b=mock:x y.yaml' --base-url 'http://x/v1?...' --llm-timeout '1m 30s' --native-tools"
        );
    }
}
