//! Jinja templates with Python's semantics, on minijinja.
//!
//! A template is translated first (`syntax`): operators, subscripts and method calls become calls of functions that do what
//! Python does (`python`, `filters`, `methods`). The result is compiled once; evaluating it reads the execution's data in place
//! (`view`).

mod accumulated;
mod convert;
mod engine;
mod error;
mod filters;
mod globals;
mod html;
mod limits;
mod methods;
mod operators;
mod plain;
mod python;
mod syntax;
mod tests;
mod view;

use std::fmt;
use std::sync::Arc;

use minijinja::value::Value as EngineValue;
use soe_backends::{Context, Value};

use engine::Program;
pub use error::{TemplateError, TemplateErrorKind};
use plain::Term;
use python::meter::Allowance;
use syntax::Code;
use view::{ContextView, RootView};

/// A compiled template. Cheap to clone, `Send + Sync`.
///
/// ```
/// use soe_backends::{Context, Value};
/// use soe_core::template::{Scope, Template};
///
/// let mut context = Context::default();
/// context.append(&"score".into(), Value::from(0.9));
/// let template = Template::compile("{{ context.score >= 0.8 }}").unwrap();
/// assert!(template.passes(&Scope::new(&context)).unwrap());
/// assert_eq!(template.context_fields()[0].as_ref(), "score");
/// ```
#[derive(Clone)]
pub struct Template(Arc<Compiled>);

struct Compiled {
    source: Arc<str>,
    /// `None`: the source has no tags and is returned as it is.
    program: Option<Program>,
    /// The program again, if it is a condition that needs no engine.
    plain: Option<Term>,
    /// The line of the source that is the program's first.
    first_line: usize,
    fields: Vec<Arc<str>>,
    needed: Vec<Arc<str>>,
}

/// What a template reads: the context as of a commit, and a tool's `result`.
#[derive(Clone, Debug)]
pub struct Scope {
    context: Arc<Context>,
    result: Option<Value>,
}

impl Scope {
    /// The view on `context`. Costs O(1) whatever the size of the histories.
    pub fn new(context: &Context) -> Self {
        Self::shared(Arc::new(context.clone()))
    }

    /// The view on a context that is shared already: a pointer copy.
    pub fn shared(context: Arc<Context>) -> Self {
        Self { context, result: None }
    }

    /// Adds `result`, the value that a tool returned.
    #[must_use]
    pub fn with_result(mut self, result: Value) -> Self {
        self.result = Some(result);
        self
    }

    fn root(&self) -> EngineValue {
        EngineValue::from_object(RootView {
            context: EngineValue::from_object(ContextView::new(self.context.clone())),
            result: self.result.as_ref().map(view::value_of),
        })
    }
}

impl Template {
    /// Compiles `source`.
    ///
    /// # Errors
    /// A syntax error, an unknown filter or test (also where it would never run), an exceeded limit.
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        if source.len() > limits::MAX_SOURCE {
            let message = format!("the template is longer than {} bytes", limits::MAX_SOURCE);
            return Err(TemplateError::limit(message, None));
        }
        let compiled = match Compiled::new(source, limits::SHALLOW_DEPTH) {
            Err(error) if error.is_too_deep() => compile_apart(source),
            compiled => compiled,
        };
        let compiled = compiled.map_err(|error| error.of(source))?;
        Ok(Self(Arc::new(compiled)))
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Renders to text.
    ///
    /// # Errors
    /// The expression can't be evaluated, or a limit was met.
    pub fn render(&self, scope: &Scope) -> Result<String, TemplateError> {
        let text = match &self.0.program {
            None => return Ok(self.source().to_owned()),
            Some(Program::Expression(expression)) => {
                expression.eval(scope.root()).and_then(|value| engine::print(&value))
            }
            Some(Program::Template(template)) => template.render(scope.root()),
        };
        text.map_err(|error| self.error(error))
    }

    /// The value of the expression if the template is exactly one `{{ expression }}`, else the rendered text.
    ///
    /// Something undefined (a missing field, for example) is null.
    ///
    /// # Errors
    /// As [`Template::render`]; or the expression's value is not data (a macro, for example).
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, TemplateError> {
        let Some(Program::Expression(expression)) = &self.0.program else {
            return self.render(scope).map(Value::from);
        };
        let value = expression.eval(scope.root());
        value
            .and_then(|value| convert::data_of(&value, &Allowance::new()))
            .map_err(|error| self.error(error))
    }

    /// Whether the template, as a condition, passes: its text, trimmed and lower-cased, is not empty, `false`, `0` or `none`.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn passes(&self, scope: &Scope) -> Result<bool, TemplateError> {
        match self.0.plain.as_ref().and_then(|plain| plain.passes(scope)) {
            Some(passes) => Ok(passes),
            None => self.passes_in_engine(scope),
        }
    }

    fn passes_in_engine(&self, scope: &Scope) -> Result<bool, TemplateError> {
        use minijinja::value::ValueKind as Kind;
        let Some(Program::Expression(expression)) = &self.0.program else {
            return self.render(scope).map(|text| is_passing(&text));
        };
        let value = expression.eval(scope.root()).map_err(|error| self.error(error))?;
        // What the text would be is clear for most values without making it.
        Ok(match value.kind() {
            Kind::Bool => value.is_true(),
            Kind::None | Kind::Undefined => false,
            Kind::Number if value.is_integer() => value.is_true(),
            Kind::String => value.as_str().is_some_and(is_passing),
            _ => true,
        })
    }

    /// The context fields that the template names, in order of first mention, without repetition.
    pub fn context_fields(&self) -> &[Arc<str>] {
        &self.0.fields
    }

    /// Those of the [`context_fields`](Self::context_fields) that the template doesn't expect to be missing: it neither asks
    /// whether they are defined, nor has a `default` for them.
    pub(crate) fn needed_fields(&self) -> &[Arc<str>] {
        &self.0.needed
    }

    fn error(&self, error: minijinja::Error) -> TemplateError {
        TemplateError::from_engine(error, self.0.first_line).of(self.source())
    }
}

impl Compiled {
    fn new(source: &str, max_depth: u16) -> Result<Self, TemplateError> {
        let mut compiled = Self {
            source: source.into(),
            program: None,
            plain: None,
            first_line: 1,
            fields: Vec::new(),
            needed: Vec::new(),
        };
        if syntax::has_tags(source) {
            let mut translation = syntax::translate(source, max_depth)?;
            compiled.fields = translation.fields;
            compiled.needed = translation.needed;
            if let Code::Expression { line, plain, .. } = &mut translation.code {
                compiled.first_line = *line;
                compiled.plain = plain.take();
            }
            let program = engine::compile(translation.code);
            compiled.program = Some(program.map_err(|error| TemplateError::from_engine(error, compiled.first_line))?);
        }
        Ok(compiled)
    }
}

/// Compiles on a stack of its own what might be too deep for the caller's.
fn compile_apart(source: &str) -> Result<Compiled, TemplateError> {
    let failed = || TemplateError::limit("the template nests deep, and there is no thread to compile it on", None);
    std::thread::scope(|scope| {
        let compiler = std::thread::Builder::new().stack_size(limits::COMPILER_STACK);
        let running = compiler.spawn_scoped(scope, || Compiled::new(source, limits::MAX_DEPTH));
        running.map_err(|_| failed())?.join().map_err(|_| failed())?
    })
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.source()).finish()
    }
}

/// Whether a context field of this name hides a method of mappings: `context.items` is the field, `context.items()` the method.
pub fn shadows_method(field: &str) -> bool {
    syntax::names::MAPPING_METHODS.contains(&field)
}

fn is_passing(text: &str) -> bool {
    let text = text.trim_matches(python::digits::is_space);
    !(text.is_empty() || text == "0" || text.eq_ignore_ascii_case("false") || text.eq_ignore_ascii_case("none"))
}
