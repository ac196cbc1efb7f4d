//! Problems of files, shown with the line that they are in.

use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use anyhow::Context as _;
use serde::Serialize;
use soe_core::config::{Diagnostic, Position, Severity};

use crate::output::{safe, safe_lines};

/// A text and where it comes from.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file's name as it was given.
    pub(crate) name: String,
    pub(crate) text: String,
    /// The folder that it is in; `None` for stdin.
    pub(crate) folder: Option<PathBuf>,
}

impl Source {
    /// Reads a file; `-` is stdin.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let text = std::io::read_to_string(std::io::stdin()).context("stdin can't be read as text")?;
            let name = "<stdin>".to_owned();
            return Ok(Self {
                name,
                text,
                folder: None,
            });
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        Ok(Self {
            name: path.display().to_string(),
            text,
            folder: Some(path.parent().unwrap_or(Path::new("")).to_owned()),
        })
    }
}

/// One problem, ready to be printed or serialised.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) workflow: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) field: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    pub(crate) help: Option<String>,
}

impl Problem {
    /// An error without a place.
    pub(crate) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            workflow: None,
            node: None,
            field: None,
            line: None,
            column: None,
            help: None,
        }
    }

    pub(crate) fn at(mut self, position: Option<Position>) -> Self {
        self.line = position.map(|p| p.line);
        self.column = position.map(|p| p.column);
        self
    }

    pub(crate) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    fn place(&self) -> Option<String> {
        let parts = [
            self.workflow.as_ref().map(|name| format!("workflow '{name}'")),
            self.node.as_ref().map(|name| format!("node '{name}'")),
            self.field.clone(),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| safe(&parts.join(", ")).into_owned())
    }
}

impl From<&Diagnostic> for Problem {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            severity: diagnostic.severity,
            code: diagnostic.code,
            message: diagnostic.message.clone(),
            workflow: diagnostic.workflow.clone(),
            node: diagnostic.node.clone(),
            field: diagnostic.field.clone(),
            line: diagnostic.line,
            column: diagnostic.column,
            help: diagnostic.help.clone(),
        }
    }
}

/// The problems of `source` as people read them: one block each, an empty line after it.
pub(crate) fn render<'p>(problems: impl IntoIterator<Item = &'p Problem>, source: &Source, color: bool) -> String {
    let renderer = match color {
        true => Renderer::styled(),
        false => Renderer::plain(),
    };
    let lines: Vec<&str> = source.text.lines().collect();
    let mut text = String::new();
    for problem in problems {
        text.push_str(&render_one(problem, source, &lines, &renderer));
        text.push_str("\n\n");
    }
    text
}

fn render_one(problem: &Problem, source: &Source, lines: &[&str], renderer: &Renderer) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(safe_lines(&problem.message)).id(problem.code);
    let place = problem.place();
    let number = problem.line.unwrap_or(0) as usize;
    let line = number.checked_sub(1).and_then(|index| lines.get(index));
    let mut group: Group<'_> = match line {
        Some(line) => {
            let annotation = AnnotationKind::Primary.span(marked(line, problem.column)).label(place);
            let snippet = Snippet::source(*line).line_start(number).path(source.name.as_str());
            title.element(snippet.annotation(annotation))
        }
        None => {
            let group = title.element(Origin::path(source.name.as_str()));
            group.elements(place.map(|place| Level::NOTE.message(format!("in {place}"))))
        }
    };
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(safe_lines(help)));
    }
    renderer.render(&[group])
}

/// The bytes of `line` to point at: the word or the quoted text that begins at `column`.
fn marked(line: &str, column: Option<u32>) -> Range<usize> {
    let before = column.unwrap_or(1).saturating_sub(1) as usize;
    let start = line.char_indices().nth(before).map_or(line.len(), |(at, _)| at);
    let rest = &line[start..];
    let length = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest[1..].find(quote).map_or(rest.len(), |end| end + 2),
        _ => {
            let ends = [rest.find(": "), rest.find(", "), rest.find(" #"), rest.find([']', '}'])];
            let end = ends.into_iter().flatten().min().unwrap_or(rest.len());
            rest[..end].trim_end().trim_end_matches(':').len()
        }
    };
    let first = rest.chars().next().map_or(0, char::len_utf8);
    start..start + length.max(first)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_word_at_the_position_is_marked() {
        let marked = |line: &'static str, column| &line[super::marked(line, Some(column))];
        assert_eq!(marked("  node_type: rooter", 3), "node_type");
        assert_eq!(marked("  node_type: rooter  # x", 14), "rooter");
        assert_eq!(marked("  a: [größe, b]", 7), "größe");
        assert_eq!(marked("  'a b': 1", 3), "'a b'");
        assert_eq!(marked("  nodes:", 3), "nodes");
        assert_eq!(marked("x: [", 4), "[");
        assert_eq!(marked("x", 9), "");
        assert_eq!(marked("größe: }", 8), "}");
    }
}
