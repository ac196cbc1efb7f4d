//! The parser's token stream, and expressions. The grammar is Jinja2's, filters binding closer than signs included.

use super::ast::{Args, Expr, ExprKind};
use super::token::{Tok, Token};
use crate::template::TemplateError;
use crate::template::limits::MAX_DEPTH;

type Result<T> = std::result::Result<T, TemplateError>;

pub(crate) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// How deep the parser is nested itself: it recurses as well.
    nesting: u16,
}

impl Parser {
    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        Self {
            tokens,
            at: 0,
            nesting: 0,
        }
    }

    /// An expression, `condition` saying whether it may be `a if b else c`.
    pub(crate) fn expression(&mut self, condition: bool) -> Result<Expr> {
        self.nested(|parser| if condition { parser.ternary() } else { parser.logic(false) })
    }

    /// One expression, or a tuple of several without parentheses.
    pub(crate) fn tuple(&mut self, condition: bool, ends: &[&str]) -> Result<Expr> {
        self.tuple_in(condition, ends, false)
    }

    fn tuple_in(&mut self, condition: bool, ends: &[&str], parenthesised: bool) -> Result<Expr> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            if self.is_tuple_end(ends) {
                break;
            }
            items.push(self.expression(condition)?);
            if !self.is_op(",") {
                break;
            }
            is_tuple = true;
        }
        match (is_tuple, items.pop()) {
            (false, Some(only)) => Ok(only),
            (false, None) if !parenthesised => {
                Err(self.error(format!("Expected an expression, got '{}'", self.tok().describe())))
            }
            (_, last) => {
                items.extend(last);
                self.node(ExprKind::Tuple(items))
            }
        }
    }

    fn is_tuple_end(&self, ends: &[&str]) -> bool {
        match self.tok() {
            Tok::PrintEnd | Tok::BlockEnd | Tok::Op(")") => true,
            Tok::Name(name) => ends.contains(&name.as_str()),
            _ => false,
        }
    }

    fn ternary(&mut self) -> Result<Expr> {
        let mut value = self.logic(false)?;
        while self.skip_name("if") {
            let test = self.logic(false)?;
            let otherwise = if self.skip_name("else") {
                Some(self.expression(true)?)
            } else {
                None
            };
            value = self.node(ExprKind::Ternary {
                test,
                then: value,
                otherwise,
            })?;
        }
        Ok(value)
    }

    /// `or` of `and`s of `not`s.
    fn logic(&mut self, and: bool) -> Result<Expr> {
        let operator = if and { "and" } else { "or" };
        let operand = |parser: &mut Self| if and { parser.negation() } else { parser.logic(true) };
        let mut items = vec![operand(self)?];
        while self.skip_name(operator) {
            items.push(operand(self)?);
        }
        match (items.len(), items.pop()) {
            (1, Some(only)) => Ok(only),
            (_, last) => {
                items.extend(last);
                self.node(ExprKind::Logic(and, items))
            }
        }
    }

    fn negation(&mut self) -> Result<Expr> {
        let mut count = 0;
        while self.skip_name("not") {
            count += 1;
        }
        let mut value = self.comparison()?;
        for _ in 0..count {
            value = self.node(ExprKind::Not(value))?;
        }
        Ok(value)
    }

    fn comparison(&mut self) -> Result<Expr> {
        let first = self.binary(0)?;
        let mut rest = Vec::new();
        loop {
            let operator = match self.tok() {
                Tok::Op(op @ ("==" | "!=" | "<" | "<=" | ">" | ">=")) => *op,
                Tok::Name(name) if name == "in" => "in",
                Tok::Name(name) if name == "not" && matches!(self.peek(1), Tok::Name(next) if next == "in") => {
                    self.at += 1;
                    "not in"
                }
                _ => break,
            };
            self.at += 1;
            rest.push((operator, self.binary(0)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        self.node(ExprKind::Compare(first, rest))
    }

    /// The operators of `BINARY[level]` and above, from the left.
    fn binary(&mut self, level: usize) -> Result<Expr> {
        const BINARY: [&[&str]; 4] = [&["+", "-"], &["~"], &["*", "/", "//", "%"], &["**"]];
        let Some(operators) = BINARY.get(level) else {
            return self.unary(true);
        };
        let first = self.binary(level + 1)?;
        let mut rest = Vec::new();
        while let Tok::Op(op) = self.tok() {
            let op = *op;
            if !operators.contains(&op) {
                break;
            }
            self.at += 1;
            rest.push((op, self.binary(level + 1)?));
        }
        match (rest.is_empty(), level) {
            (true, _) => Ok(first),
            (false, 1) => {
                let items = std::iter::once(first).chain(rest.into_iter().map(|(_, item)| item));
                self.node(ExprKind::Concat(items.collect()))
            }
            (false, _) => self.node(ExprKind::Arithmetic(first, rest)),
        }
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let mut signs = Vec::new();
        while let Tok::Op(op @ ("-" | "+")) = self.tok() {
            signs.push(*op);
            self.at += 1;
        }
        let mut value = self.primary()?;
        value = self.postfix(value)?;
        while let Some(sign) = signs.pop() {
            value = match (sign, *value.kind) {
                ("-", ExprKind::Int(number)) => self.node(ExprKind::Int(-number))?,
                ("-", ExprKind::Float(number)) => self.node(ExprKind::Float(-number))?,
                (sign, kind) => {
                    let value = self.node(kind)?;
                    self.node(if sign == "-" {
                        ExprKind::Negative(value)
                    } else {
                        ExprKind::Positive(value)
                    })?
                }
            };
        }
        if with_filters { self.filters(value) } else { Ok(value) }
    }

    pub(crate) fn primary(&mut self) -> Result<Expr> {
        let token = self.next();
        match token {
            Tok::Name(name) => match name.as_str() {
                "true" | "True" => self.node(ExprKind::Bool(true)),
                "false" | "False" => self.node(ExprKind::Bool(false)),
                "none" | "None" => self.node(ExprKind::None),
                _ => self.name(name),
            },
            Tok::Str(mut text) => {
                while let Tok::Str(more) = self.tok() {
                    text.push_str(more);
                    self.at += 1;
                }
                self.node(ExprKind::Str(text))
            }
            Tok::Int(value) => self.node(ExprKind::Int(value)),
            Tok::Float(value) => self.node(ExprKind::Float(value)),
            Tok::Op("(") => {
                let value = self.nested(|parser| parser.tuple_in(true, &[], true))?;
                self.expect_op(")")?;
                Ok(value)
            }
            Tok::Op("[") => self.list(),
            Tok::Op("{") => self.dict(),
            other => {
                self.at -= 1;
                Err(self.error(format!("unexpected '{}'", other.describe())))
            }
        }
    }

    fn name(&mut self, name: String) -> Result<Expr> {
        if name.starts_with(super::RESERVED) {
            return Err(self.error(format!("names that begin with '{}' are reserved", super::RESERVED)));
        }
        if matches!(name.as_str(), "and" | "or" | "not" | "in" | "is" | "if" | "else") {
            self.at -= 1;
            return Err(self.error(format!("unexpected '{name}'")));
        }
        self.node(ExprKind::Name(name))
    }

    fn list(&mut self) -> Result<Expr> {
        let mut items = Vec::new();
        while !self.skip_op("]") {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.skip_op("]") {
                    break;
                }
            }
            items.push(self.expression(true)?);
        }
        self.node(ExprKind::List(items))
    }

    fn dict(&mut self) -> Result<Expr> {
        let mut pairs = Vec::new();
        while !self.skip_op("}") {
            if !pairs.is_empty() {
                self.expect_op(",")?;
                if self.skip_op("}") {
                    break;
                }
            }
            let key = self.expression(true)?;
            self.expect_op(":")?;
            pairs.push((key, self.expression(true)?));
        }
        self.node(ExprKind::Dict(pairs))
    }

    pub(crate) fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            value = if self.skip_op(".") {
                match self.next() {
                    Tok::Name(name) => self.node(ExprKind::Attr(value, name))?,
                    Tok::Int(index) => {
                        let index = self.node(ExprKind::Int(index))?;
                        self.node(ExprKind::Item(value, index))?
                    }
                    _ => {
                        self.at -= 1;
                        return Err(self.error("expected name or number"));
                    }
                }
            } else if self.skip_op("[") {
                self.subscript(value)?
            } else if self.is_op("(") {
                let args = self.args()?;
                self.node(ExprKind::Call(value, args))?
            } else {
                return Ok(value);
            };
        }
    }

    fn subscript(&mut self, value: Expr) -> Result<Expr> {
        let mut keys = Vec::new();
        while !self.skip_op("]") {
            if !keys.is_empty() {
                self.expect_op(",")?;
            }
            let start = if self.is_op(":") { None } else { Some(self.expression(true)?) };
            match start {
                Some(key) if !self.is_op(":") => keys.push(key),
                start => {
                    self.expect_op(":")?;
                    let slice = self.slice(value.clone(), start)?;
                    if !keys.is_empty() {
                        return Err(self.error("a subscript is one index or one slice"));
                    }
                    self.expect_op("]")?;
                    return Ok(slice);
                }
            }
        }
        let key = match (keys.len(), keys.pop()) {
            (1, Some(only)) => only,
            (_, last) => {
                keys.extend(last);
                self.node(ExprKind::Tuple(keys))?
            }
        };
        self.node(ExprKind::Item(value, key))
    }

    fn slice(&mut self, value: Expr, start: Option<Expr>) -> Result<Expr> {
        let bound = |parser: &mut Self| match parser.tok() {
            Tok::Op(":" | "]" | ",") => Ok(None),
            _ => parser.expression(true).map(Some),
        };
        let stop = bound(self)?;
        let step = if self.skip_op(":") { bound(self)? } else { None };
        self.node(ExprKind::Slice(value, [start, stop, step]))
    }

    fn filters(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            value = if self.skip_op("|") {
                let (name, args) = self.filter_call()?;
                self.node(ExprKind::Filter(value, name, args))?
            } else if self.skip_name("is") {
                self.test(value)?
            } else if self.is_op("(") {
                let args = self.args()?;
                self.node(ExprKind::Call(value, args))?
            } else {
                return Ok(value);
            };
        }
    }

    /// A filter's name and arguments.
    pub(crate) fn filter_call(&mut self) -> Result<(String, Args)> {
        let line = self.line();
        let name = self.dotted_name()?;
        if !super::names::FILTERS.contains(&name.as_str()) {
            return Err(super::names::unknown_filter(&name, line));
        }
        let args = if self.is_op("(") { self.args()? } else { Args::default() };
        Ok((name, args))
    }

    fn test(&mut self, value: Expr) -> Result<Expr> {
        let negated = self.skip_name("not");
        let line = self.line();
        let name = self.dotted_name()?;
        if !super::names::TESTS.contains(&name.as_str()) {
            return Err(super::names::unknown_test(&name, line));
        }
        let mut args = Args::default();
        if self.is_op("(") {
            args = self.args()?;
        } else if self.starts_test_argument() {
            if matches!(self.tok(), Tok::Name(name) if name == "is") {
                return Err(self.error("You cannot chain multiple tests with is"));
            }
            let argument = self.nested(Self::primary)?;
            args.positional.push(self.postfix(argument)?);
        }
        let test = self.node(ExprKind::Test { value, name, args })?;
        if negated { self.node(ExprKind::Not(test)) } else { Ok(test) }
    }

    fn starts_test_argument(&self) -> bool {
        match self.tok() {
            Tok::Name(name) => !matches!(name.as_str(), "else" | "or" | "and"),
            Tok::Str(_) | Tok::Int(_) | Tok::Float(_) | Tok::Op("[" | "{") => true,
            _ => false,
        }
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.expect_name()?;
        while self.skip_op(".") {
            name.push('.');
            name.push_str(&self.expect_name()?);
        }
        Ok(name)
    }

    fn args(&mut self) -> Result<Args> {
        self.expect_op("(")?;
        let mut args = Args::default();
        while !self.skip_op(")") {
            if !args.is_empty() {
                self.expect_op(",")?;
                if self.skip_op(")") {
                    break;
                }
            }
            let (splat, named_splat) = (args.splat.is_some(), args.named_splat.is_some());
            let allowed = if self.skip_op("*") {
                args.splat = Some(self.expression(true)?);
                !splat && !named_splat
            } else if self.skip_op("**") {
                args.named_splat = Some(self.expression(true)?);
                !named_splat
            } else if matches!((self.tok(), self.peek(1)), (Tok::Name(_), Tok::Op("="))) {
                let name = self.expect_name()?;
                self.expect_op("=")?;
                args.named.push((name, self.expression(true)?));
                !named_splat
            } else {
                args.positional.push(self.expression(true)?);
                !splat && !named_splat && args.named.is_empty()
            };
            if !allowed {
                return Err(self.error("invalid syntax for function call expression"));
            }
        }
        Ok(args)
    }

    /// Makes a node, if it doesn't nest too deep.
    pub(crate) fn node(&self, kind: ExprKind) -> Result<Expr> {
        let below = kind.children().iter().map(|child| child.depth).max().unwrap_or(0);
        if below >= MAX_DEPTH {
            return Err(self.too_deep());
        }
        Ok(Expr {
            kind: Box::new(kind),
            depth: below + 1,
        })
    }

    /// Runs `parse` one level deeper.
    pub(crate) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting >= MAX_DEPTH {
            return Err(self.too_deep());
        }
        self.nesting += 1;
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    fn too_deep(&self) -> TemplateError {
        let message = format!("expressions and tags nest deeper than {MAX_DEPTH} levels; use {{% set %}} for the parts");
        TemplateError::limit(message, Some(self.line()))
    }

    pub(crate) fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
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
        Err(self.error(format!("expected token '{}', got '{}'", tok.describe(), self.tok().describe())))
    }
}
