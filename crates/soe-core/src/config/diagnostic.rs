//! What is wrong, or looks wrong, with a configuration, and where.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::Position;
use super::codes::{Code, MORE_PROBLEMS};

/// Beyond this many errors, and this many warnings, they are only counted.
const MAX_KEPT: usize = 1_000;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration can't be used.
    Error,
    /// It can be used, but probably doesn't do what its author means.
    Warning,
}

/// One problem of a configuration: plain data, ready to be printed, filtered or serialised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of problem it is: a stable name, explained in `docs/validation.md`.
    pub code: &'static str,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The workflow it is in.
    pub workflow: Option<String>,
    /// The node it is in.
    pub node: Option<String>,
    /// The path of the field, inside the node if there is one: `event_emissions[1].condition`.
    pub field: Option<String>,
    /// The line in the YAML source, from 1. None if the configuration was no text.
    pub line: Option<u32>,
    /// The column in the YAML source, from 1, in characters.
    pub column: Option<u32>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            severity: code.severity,
            code: code.name,
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

    pub(crate) fn workflow(mut self, name: &str) -> Self {
        self.workflow = Some(name.to_owned());
        self
    }

    pub(crate) fn node(mut self, name: &str) -> Self {
        self.node = Some(name.to_owned());
        self
    }

    pub(crate) fn field(mut self, path: impl Into<String>) -> Self {
        self.field = Some(path.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether the configuration can't be used because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// One line: position, severity and code, place, message, help.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, "{line}:{column}: ")?,
            (Some(line), None) => write!(f, "{line}: ")?,
            _ => {}
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: ", self.code)?;
        if let Some(workflow) = self
            .workflow
            .as_ref()
            .filter(|_| !self.message.starts_with("Workflow '"))
        {
            write!(f, "Workflow '{}'", one_line(workflow))?;
            if let Some(node) = &self.node {
                write!(f, ", node '{}'", one_line(node))?;
            }
            if let Some(field) = &self.field {
                write!(f, ", {}", one_line(field))?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&one_line(&self.message))?;
        if let Some(help) = &self.help {
            write!(f, " ({})", one_line(help))?;
        }
        Ok(())
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Everything that was found in a configuration, errors and warnings, in the order in which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The problems. At most 1,000 errors and 1,000 warnings; a last entry says how many more there are.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// The problems for which the configuration can't be used.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|d| d.is_error())
    }

    /// The problems with which it can.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|d| !d.is_error())
    }

    /// Whether the configuration can be used.
    pub fn is_usable(&self) -> bool {
        self.errors().next().is_none()
    }
}

/// One problem a line; nothing if there is none.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.diagnostics.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(diagnostic, f)?;
        }
        Ok(())
    }
}

/// A configuration that can't be used. Printed, it is one line for each problem, warnings included.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{report}")]
pub struct ConfigError {
    report: Box<Report>,
}

impl ConfigError {
    pub(crate) fn new(report: Report) -> Self {
        Self {
            report: Box::new(report),
        }
    }

    /// All problems, at least one of which is an error.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// All problems, at least one of which is an error.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.report.diagnostics
    }
}

impl From<Diagnostic> for ConfigError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::new(Report {
            diagnostics: vec![diagnostic],
        })
    }
}

/// Gathers problems, in bounded memory.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Problems {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let count = match diagnostic.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MAX_KEPT {
            self.kept.push(diagnostic);
        }
    }

    /// The number of errors so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Whether another error would be listed, not only counted.
    pub(crate) fn lists_errors(&self) -> bool {
        self.errors < MAX_KEPT
    }

    pub(crate) fn into_report(self) -> Report {
        let mut diagnostics = self.kept;
        let more = (self.errors + self.warnings).saturating_sub(diagnostics.len());
        if more > 0 {
            diagnostics.push(Diagnostic::new(
                MORE_PROBLEMS,
                format!("{more} more problems are not listed"),
            ));
        }
        Report { diagnostics }
    }

    /// The warnings, or all problems if there is an error among them.
    pub(crate) fn into_result(self) -> Result<Arc<[Diagnostic]>, ConfigError> {
        let failed = self.errors > 0;
        let report = self.into_report();
        if failed {
            Err(ConfigError::new(report))
        } else {
            Ok(report.diagnostics.into())
        }
    }
}
