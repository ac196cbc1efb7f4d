//! Why a template can't be compiled or evaluated.

use std::fmt;

/// A template that doesn't compile, or that can't be evaluated.
#[derive(Debug)]
pub struct TemplateError {
    kind: TemplateErrorKind,
    message: String,
    line: Option<usize>,
    source: Option<minijinja::Error>,
    too_deep: bool,
    /// Whether the template's source has no second line: the line tells nothing then.
    one_line: bool,
}

/// What went wrong with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TemplateErrorKind {
    /// The text is not a Jinja template.
    Syntax,
    /// A filter that doesn't exist.
    UnknownFilter,
    /// A test that doesn't exist.
    UnknownTest,
    /// An attribute, item or operation of something that isn't there.
    Undefined,
    /// An operation that the types of its operands don't have, a bad argument, a method that doesn't exist.
    Type,
    /// Too long, too deep, too much work, too much output.
    Limit,
}

impl TemplateError {
    pub(crate) fn new(kind: TemplateErrorKind, message: impl Into<String>, line: Option<usize>) -> Self {
        Self {
            kind,
            message: message.into(),
            line,
            source: None,
            too_deep: false,
            one_line: false,
        }
    }

    pub(crate) fn syntax(message: impl Into<String>, line: usize) -> Self {
        Self::new(TemplateErrorKind::Syntax, message, Some(line))
    }

    pub(crate) fn limit(message: impl Into<String>, line: Option<usize>) -> Self {
        Self::new(TemplateErrorKind::Limit, message, line)
    }

    pub(crate) fn too_deep(message: impl Into<String>, line: usize) -> Self {
        Self {
            too_deep: true,
            ..Self::limit(message, Some(line))
        }
    }

    /// Says which text it is about, as a whole.
    pub(crate) fn of(mut self, source: &str) -> Self {
        self.one_line = source.lines().nth(1).is_none();
        self
    }

    /// Whether a larger depth could have helped.
    pub(crate) fn is_too_deep(&self) -> bool {
        self.too_deep
    }

    /// An error of the engine, whose line numbers count from `first_line`.
    pub(crate) fn from_engine(error: minijinja::Error, first_line: usize) -> Self {
        let line = error.line().map(|line| line + first_line - 1);
        let cause = innermost(&error);
        let kind = kind_of(cause);
        let message = match (kind, cause.kind(), cause.detail()) {
            (_, minijinja::ErrorKind::OutOfFuel, _) => {
                "the template does too much work: loop over less, or build less text".into()
            }
            (_, _, Some(detail)) => detail.strip_prefix(LIMIT_MARK).unwrap_or(detail).to_owned(),
            (TemplateErrorKind::Undefined, _, None) => {
                "the value is undefined: guard it with 'is defined' or the 'default' filter".into()
            }
            (_, kind, None) => kind.to_string(),
        };
        Self {
            kind,
            message,
            line,
            source: Some(error),
            too_deep: false,
            one_line: false,
        }
    }

    /// What went wrong.
    pub fn kind(&self) -> TemplateErrorKind {
        self.kind
    }

    /// What went wrong, in words, without the line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The line in the template's source, from 1, where it is known.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.line {
            Some(line) if !self.one_line => write!(f, " (line {line})"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for TemplateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// Marks errors of limits, which the engine has no kind for.
const LIMIT_MARK: &str = "limit: ";

/// An error for the engine that says that a limit was met.
pub(crate) fn limit_error(message: impl fmt::Display) -> minijinja::Error {
    minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, format!("{LIMIT_MARK}{message}"))
}

/// The engine wraps the errors of blocks and macros; the cause says what to do.
fn innermost(error: &minijinja::Error) -> &minijinja::Error {
    let mut cause = error;
    while let Some(inner) = std::error::Error::source(cause).and_then(|s| s.downcast_ref::<minijinja::Error>()) {
        cause = inner;
    }
    cause
}

fn kind_of(error: &minijinja::Error) -> TemplateErrorKind {
    use minijinja::ErrorKind as E;
    match error.kind() {
        E::SyntaxError | E::BadEscape => TemplateErrorKind::Syntax,
        E::UnknownFilter => TemplateErrorKind::UnknownFilter,
        E::UnknownTest => TemplateErrorKind::UnknownTest,
        E::UndefinedError => TemplateErrorKind::Undefined,
        E::OutOfFuel | E::WriteFailure => TemplateErrorKind::Limit,
        _ => match error.detail() {
            Some(detail) if detail.starts_with(LIMIT_MARK) || detail.contains("recursion limit") => {
                TemplateErrorKind::Limit
            }
            _ => TemplateErrorKind::Type,
        },
    }
}
