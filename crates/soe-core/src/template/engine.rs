//! The one engine of the process, and templates compiled for it.

use std::io;
use std::sync::OnceLock;

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Expression, State};
use self_cell::self_cell;

use super::limits::{FUEL, MAX_TEXT, RECURSION};
use super::python::Result;
use super::python::meter::{Allowance, Meter};
use super::python::text::str_of;
use super::{accumulated, filters, globals, html, methods, operators, tests};

self_cell!(
    /// A compiled template, together with the text that it borrows from.
    struct OwnedTemplate {
        owner: String,
        #[not_covariant]
        dependent: EngineTemplate,
    }
);

type EngineTemplate<'source> = minijinja::Template<'source, 'source>;

/// What a template was compiled to.
pub(crate) enum Program {
    /// A single `{{ expression }}`.
    Expression(Expression<'static, 'static>),
    /// Anything else.
    Template(Box<CompiledTemplate>),
}

/// A compiled template of more than one expression.
pub(crate) struct CompiledTemplate(OwnedTemplate);

/// Compiles an expression.
pub(crate) fn compile_expression(code: String) -> Result<Program> {
    engine().compile_expression_owned(code).map(Program::Expression)
}

/// Compiles a template.
pub(crate) fn compile_template(code: String) -> Result<Program> {
    let template = OwnedTemplate::try_new(code, |code| engine().template_from_str(code))?;
    Ok(Program::Template(Box::new(CompiledTemplate(template))))
}

/// The text of `value` as `{{ }}` prints it.
pub(crate) fn print(value: &Value) -> Result<String> {
    str_of(value, &Allowance::new()).map(|text| text.into_owned())
}

impl CompiledTemplate {
    /// Renders to text.
    pub(crate) fn render(&self, root: Value) -> Result<String> {
        let mut output = Output(Vec::new());
        self.0.with_dependent(|_, template| template.render_captured_to(root, &mut output).map(drop))?;
        String::from_utf8(output.0).map_err(|error| Error::new(ErrorKind::WriteFailure, error.to_string()))
    }
}

/// Collects what a template prints, up to a limit.
struct Output(Vec<u8>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT {
            return Err(io::Error::other(format!("the output is longer than {MAX_TEXT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn engine() -> &'static Environment<'static> {
    static ENGINE: OnceLock<Environment<'static>> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut env = Environment::new();
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(RECURSION);
        env.set_unknown_method_callback(|state, value, name, args| methods::call(state, value, name, args));
        env.set_formatter(|out, state, value| {
            let text = printed(state, value)?;
            out.write_str(&text).map_err(|error| Error::new(ErrorKind::WriteFailure, error.to_string()))
        });
        filters::register(&mut env);
        tests::register(&mut env);
        operators::register(&mut env);
        accumulated::register(&mut env);
        globals::register(&mut env);
        env
    })
}

fn printed<'v>(state: &State<'_, '_>, value: &'v Value) -> Result<std::borrow::Cow<'v, str>> {
    let text = str_of(value, state)?;
    if value.kind() == ValueKind::String {
        state.text(text.len())?;
    }
    let is_plain = value.is_safe() || matches!(state.auto_escape(), AutoEscape::None);
    Ok(if is_plain { text } else { html::escape(&text).into() })
}
