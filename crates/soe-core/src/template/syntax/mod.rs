//! Reads Jinja2 and writes it down again for the engine.
//!
//! The engine's operators order all values, print them in a way of their own, and so on; Python's don't. So every operator,
//! subscript and method call whose meaning differs is translated to a call of one of our functions before the engine sees it.
//! On the way, everything that Jinja2 would refuse when it loads a template is refused.

mod analysis;
mod ast;
mod cursor;
mod emit;
mod emit_expr;
mod lexer;
pub(crate) mod names;
mod numbers;
mod parser;
mod plain;
mod statements;
mod strings;
mod token;

use std::sync::Arc;

use super::TemplateError;
use super::plain::Term;
use ast::{Stmt, StmtKind};

/// The prefix of the names of our functions, which templates can't use.
pub(crate) const RESERVED: &str = "__soe";

/// A template in the engine's terms.
#[derive(Debug)]
pub(crate) struct Translation {
    pub(crate) code: Code,
    /// The context fields that the template mentions, in order.
    pub(crate) fields: Vec<Arc<str>>,
    /// Those of them that it doesn't expect to be missing.
    pub(crate) needed: Vec<Arc<str>>,
}

/// What the engine is given.
#[derive(Debug)]
pub(crate) enum Code {
    /// The template is one `{{ expression }}` and nothing else.
    Expression {
        code: String,
        line: usize,
        /// The expression again, if it can be evaluated without the engine.
        plain: Option<Term>,
    },
    /// Anything else.
    Template(String),
}

/// Whether `source` has any tag; if not it is text.
pub(crate) fn has_tags(source: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|tag| source.contains(tag))
}

/// Translates a template that nests at most `max_depth` levels deep.
pub(crate) fn translate(source: &str, max_depth: u16) -> Result<Translation, TemplateError> {
    let normalized = source.replace("\r\n", "\n").replace('\r', "\n");
    let text = normalized.strip_suffix('\n').unwrap_or(&normalized);
    let body = statements::parse(cursor::Parser::new(lexer::tokenize(text)?, max_depth))?;
    let analysis = analysis::analyse(&body);
    if analysis.nests_blocks {
        return Err(TemplateError::syntax(
            "'self' is not available inside a block or macro",
            1,
        ));
    }
    let mut emitter = emit_expr::Emitter {
        out: String::with_capacity(source.len() * 2),
        line: 1,
        analysis: &analysis,
    };
    let code = match &body[..] {
        [
            Stmt {
                kind: StmtKind::Print(value),
                line,
            },
        ] => {
            emitter.expression(value);
            Code::Expression {
                code: emitter.out,
                line: *line,
                plain: plain::plain(value),
            }
        }
        _ => {
            emitter.template(&body);
            Code::Template(emitter.out)
        }
    };
    let is_needed = |field: &&Arc<str>| !analysis.optional.contains(*field);
    Ok(Translation {
        code,
        needed: analysis.fields.iter().filter(is_needed).cloned().collect(),
        fields: analysis.fields.into_iter().collect(),
    })
}
