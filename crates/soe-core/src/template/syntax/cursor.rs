//! The parser's place in the tokens, and the depth that it may reach.

use super::ast::{Expr, ExprKind};
use super::token::{Tok, Token};
use crate::template::TemplateError;

type Result<T> = std::result::Result<T, TemplateError>;

/// Reads tokens; what it reads is in `parser` (expressions) and `statements`.
pub(crate) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// How deep the parser is nested itself: it recurses as well.
    nesting: u16,
    /// How deep it may get, and what it reads.
    limit: u16,
}

impl Parser {
    pub(crate) fn new(tokens: Vec<Token>, limit: u16) -> Self {
        Self {
            tokens,
            at: 0,
            nesting: 0,
            limit,
        }
    }

    /// Makes a node, if it doesn't nest too deep.
    pub(crate) fn node(&self, kind: ExprKind) -> Result<Expr> {
        let below = kind.children().iter().map(|child| child.depth).max().unwrap_or(0);
        self.check_depth(usize::from(below))?;
        Ok(Expr {
            kind: Box::new(kind),
            depth: below + 1,
        })
    }

    /// Runs `parse` one level deeper.
    pub(crate) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.check_depth(usize::from(self.nesting))?;
        self.nesting += 1;
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    /// Refuses what is `depth` levels deep, if that is more than is asked for.
    pub(crate) fn check_depth(&self, depth: usize) -> Result<()> {
        if depth < usize::from(self.limit) {
            return Ok(());
        }
        let limit = self.limit;
        let message = format!("expressions and tags nest deeper than {limit} levels: use {{% set %}} for the parts");
        Err(TemplateError::too_deep(message, self.line()))
    }

    pub(crate) fn line(&self) -> usize {
        self.tokens
            .get(self.at)
            .or(self.tokens.last())
            .map_or(1, |token| token.line)
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> TemplateError {
        TemplateError::syntax(message, self.line())
    }

    pub(crate) fn tok(&self) -> &Tok {
        self.peek(0)
    }

    pub(crate) fn peek(&self, ahead: usize) -> &Tok {
        self.tokens.get(self.at + ahead).map_or(&Tok::Eof, |token| &token.tok)
    }

    pub(crate) fn next(&mut self) -> Tok {
        let tok = self.tok().clone();
        self.at += 1;
        tok
    }

    pub(crate) fn advance(&mut self) {
        self.at += 1;
    }

    /// Goes back one token, so that an error names its line.
    pub(crate) fn back(&mut self) {
        self.at -= 1;
    }

    pub(crate) fn is_op(&self, op: &str) -> bool {
        matches!(self.tok(), Tok::Op(found) if *found == op)
    }

    pub(crate) fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn skip_name(&mut self, name: &str) -> bool {
        let found = matches!(self.tok(), Tok::Name(found) if found == name);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) {
            return Ok(());
        }
        Err(self.error(format!("expected token '{op}', got '{}'", self.tok().describe())))
    }

    pub(crate) fn expect_name(&mut self) -> Result<String> {
        match self.next() {
            Tok::Name(name) => Ok(name),
            other => {
                self.at -= 1;
                Err(self.error(format!("expected token 'name', got '{}'", other.describe())))
            }
        }
    }

    pub(crate) fn expect(&mut self, tok: &Tok) -> Result<()> {
        if self.tok() == tok {
            self.at += 1;
            return Ok(());
        }
        Err(self.error(format!(
            "expected token '{}', got '{}'",
            tok.describe(),
            self.tok().describe()
        )))
    }
}
