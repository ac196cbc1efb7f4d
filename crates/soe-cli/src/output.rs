//! Text for terminals and pipes: colours, safe characters, and writes that a closed pipe doesn't break.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const SIGNAL: Style = AnsiColor::Cyan.on_default();
pub(crate) const FAINT: Style = Style::new().dimmed();

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// Whether to colour what goes to `stream`.
    pub(crate) fn applies_to(self, stream: &impl IsTerminal) -> bool {
        match self {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                stream.is_terminal() && !refused && !dumb
            }
        }
    }
}

/// `text` in `style`, if colours are `on`.
pub(crate) fn paint(on: bool, style: Style, text: impl Display) -> String {
    match on {
        true => format!("{style}{text}{style:#}"),
        false => text.to_string(),
    }
}

/// Writes to stdout. Nobody reading any more is no error: what runs goes on.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    forgive_closed(written)
}

/// Writes to stderr. There is nowhere to report that it fails.
pub(crate) fn eprint(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Prints an error of the command itself, with its causes.
pub(crate) fn print_error(color: bool, error: &anyhow::Error) {
    let text = with_causes(error);
    eprint(&format!("{}: {}\n", paint(color, ERROR, "error"), safe_lines(&text)));
}

/// An error and its causes, except those whose words it has already: a store's errors say what the system said in a
/// sentence of their own.
pub(crate) fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}

fn forgive_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// `text` on one line, without characters that a terminal could take for commands.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| match is_unsafe(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(escape).collect())
}

/// As [`safe`], with the lines left as they are.
pub(crate) fn safe_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(safe).collect();
    lines.join("\n")
}

/// `text` on one line and shortened to `most` characters.
pub(crate) fn brief(text: &str, most: usize) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let safe = safe(&one_line);
    match safe.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &safe[..end]),
        None => safe.into_owned(),
    }
}

/// The first line of `text`, shortened, with dots if there is more.
pub(crate) fn headline(text: &str) -> String {
    const MOST: usize = 160;
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let line = brief(first, MOST);
    match text.trim().lines().nth(1).is_some() && !line.ends_with("...") {
        true => format!("{} ...", line.trim_end_matches(':')),
        false => line,
    }
}

/// Controls, and the characters that change the direction of what follows.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(escape_json(&serde_json::to_string(value)?, "") + "\n")
}

/// JSON for people.
pub(crate) fn json_pretty(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(escape_json(&serde_json::to_string_pretty(value)?, "\n") + "\n")
}

/// Escapes what JSON lets pass and a terminal could take for commands. Outside of strings, only `layout` can occur.
fn escape_json(json: &str, layout: &str) -> String {
    let escape = |c: char| match is_unsafe(c) && !layout.contains(c) {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    match json.chars().any(|c| is_unsafe(c) && !layout.contains(c)) {
        true => json.chars().map(escape).collect(),
        false => json.to_owned(),
    }
}

/// A duration as people read it.
pub(crate) fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_secs() {
        0 if seconds < 0.0995 => format!("{:.0} ms", seconds * 1000.0),
        0..=9 => format!("{seconds:.2} s"),
        10..=59 => format!("{seconds:.1} s"),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}

/// A number of things.
pub(crate) fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// Names of which one is enough: `A`, `A or B`, `A, B or C`.
pub(crate) fn alternatives(names: &[String]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => names.concat(),
    }
}

/// `word` as a shell reads it back.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

pub(crate) fn shell_path(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(safe("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(safe("größe"), "größe");
        assert_eq!(brief("one\n  two three", 7), "one two...");
        let json = json_pretty(&serde_json::json!({"a": "\u{9b}31m\u{7f}"})).unwrap();
        assert_eq!(json, "{\n  \"a\": \"\\u009b31m\\u007f\"\n}\n");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap()["a"],
            "\u{9b}31m\u{7f}"
        );
    }

    #[test]
    fn headlines_say_that_there_is_more() {
        assert_eq!(headline("one line"), "one line");
        assert_eq!(headline("it differs:\n  - a\n  + b\n"), "it differs ...");
        assert_eq!(headline(&"x".repeat(200)).len(), 163);
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(shell_word("data/x-1"), "data/x-1");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn durations_are_rounded_to_what_matters() {
        assert_eq!(seconds(Duration::from_micros(1_400)), "1 ms");
        assert_eq!(seconds(Duration::from_millis(350)), "0.35 s");
        assert_eq!(seconds(Duration::from_millis(99)), "99 ms");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 5 s");
    }
}
