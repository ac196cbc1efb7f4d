//! Statements: text, `{{ }}` and the tags of Jinja2 that need no other template.

use super::ast::{Expr, ExprKind, FilterCall, Params, Stmt, StmtKind, Target};
use super::parser::Parser;
use super::token::Tok;
use crate::template::TemplateError;
use crate::template::limits::MAX_ELIF;

type Result<T> = std::result::Result<T, TemplateError>;

/// Parses a whole template.
pub(crate) fn parse(mut parser: Parser) -> Result<Vec<Stmt>> {
    parser.statements(&[]).map(|(body, _)| body)
}

impl Parser {
    /// Statements up to a tag in `ends`, of which the name is read; at the top level up to the end.
    fn statements(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, String)> {
        self.nested(|parser| parser.statement_list(ends))
    }

    fn statement_list(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, String)> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.next() {
                Tok::Eof if ends.is_empty() => return Ok((body, String::new())),
                Tok::Data(text) => StmtKind::Text(text),
                Tok::PrintBegin => {
                    let value = self.tuple(true, &[])?;
                    self.expect(&Tok::PrintEnd)?;
                    StmtKind::Print(value)
                }
                Tok::BlockBegin => {
                    let Tok::Name(tag) = self.tok().clone() else {
                        return Err(self.error("tag name expected"));
                    };
                    self.next();
                    if ends.contains(&tag.as_str()) {
                        return Ok((body, tag));
                    }
                    if tag == "print" {
                        self.print(&mut body)?;
                        continue;
                    }
                    let kind = self.tag(&tag, line, ends)?;
                    self.expect(&Tok::BlockEnd)?;
                    kind
                }
                _ => {
                    let wanted = ends.join("' or '");
                    let message = format!("Unexpected end of template. Jinja was looking for the following tags: '{wanted}'.");
                    return Err(TemplateError::syntax(message, line));
                }
            };
            body.push(Stmt { kind, line });
        }
    }

    /// The statements in a block whose opening tag was read up to its end.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, String)> {
        self.skip_op(":");
        self.expect(&Tok::BlockEnd)?;
        self.statements(ends)
    }

    fn tag(&mut self, tag: &str, line: usize, ends: &[&str]) -> Result<StmtKind> {
        match tag {
            "for" => self.for_loop(),
            "if" => self.if_chain(),
            "set" => self.set(),
            "with" => self.with(),
            "macro" => {
                let name = self.assignable_name()?;
                let params = self.params()?;
                Ok(StmtKind::Macro(name, params, self.body(&["endmacro"])?.0))
            }
            "call" => self.call_block(),
            "filter" => {
                let mut filters = vec![self.filter_call()?];
                filters.extend(self.filter_chain()?);
                Ok(StmtKind::FilterBlock(filters, self.body(&["endfilter"])?.0))
            }
            "block" => self.block(),
            "autoescape" => {
                let enabled = self.expression(true)?;
                Ok(StmtKind::AutoEscape(enabled, self.body(&["endautoescape"])?.0))
            }
            "include" | "import" | "from" | "extends" => {
                let message = format!("'{tag}' is not available: a template stands alone, put the text where it is needed");
                Err(TemplateError::syntax(message, line))
            }
            _ => Err(TemplateError::syntax(unknown_tag(tag, ends), line)),
        }
    }

    /// `{% print a, b %}` prints each of its expressions.
    fn print(&mut self, body: &mut Vec<Stmt>) -> Result<()> {
        let line = self.line();
        while self.tok() != &Tok::BlockEnd {
            let kind = StmtKind::Print(self.expression(true)?);
            body.push(Stmt { kind, line });
            if self.tok() != &Tok::BlockEnd {
                self.expect_op(",")?;
            }
        }
        self.expect(&Tok::BlockEnd)
    }

    fn for_loop(&mut self) -> Result<StmtKind> {
        let target = self.target(false)?;
        if target_names(&target).any(|name| name == "loop") {
            return Err(self.error("Can't assign to special loop variable in for-loop"));
        }
        if !self.skip_name("in") {
            return Err(self.error(format!("expected token 'in', got '{}'", self.tok().describe())));
        }
        let iter = self.tuple(false, &["recursive"])?;
        let test = if self.skip_name("if") { Some(self.expression(true)?) } else { None };
        let recursive = self.skip_name("recursive");
        let (body, end) = self.body(&["endfor", "else"])?;
        let otherwise = if end == "else" { self.body(&["endfor"])?.0 } else { Vec::new() };
        Ok(StmtKind::For {
            target,
            iter,
            test,
            recursive,
            body,
            otherwise,
        })
    }

    fn if_chain(&mut self) -> Result<StmtKind> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let test = self.tuple(false, &[])?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match end.as_str() {
                "elif" if branches.len() > MAX_ELIF => {
                    let message = format!("more than {MAX_ELIF} branches in one 'if'");
                    return Err(TemplateError::limit(message, Some(self.line())));
                }
                "elif" => {}
                "else" => {
                    otherwise = self.body(&["endif"])?.0;
                    break;
                }
                _ => break,
            }
        }
        Ok(StmtKind::If { branches, otherwise })
    }

    fn set(&mut self) -> Result<StmtKind> {
        let target = self.target(true)?;
        if self.skip_op("=") {
            return Ok(StmtKind::Set(target, self.tuple(true, &[])?));
        }
        let filters = self.filter_chain()?;
        let body = self.body(&["endset"])?.0;
        Ok(StmtKind::SetBlock(target, filters, body))
    }

    fn filter_chain(&mut self) -> Result<Vec<FilterCall>> {
        let mut filters = Vec::new();
        while self.skip_op("|") {
            filters.push(self.filter_call()?);
        }
        Ok(filters)
    }

    fn with(&mut self) -> Result<StmtKind> {
        let mut assignments = Vec::new();
        while self.tok() != &Tok::BlockEnd {
            if !assignments.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.simple_target(false)?;
            self.expect_op("=")?;
            assignments.push((target, self.expression(true)?));
        }
        Ok(StmtKind::With(assignments, self.body(&["endwith"])?.0))
    }

    fn call_block(&mut self) -> Result<StmtKind> {
        let params = if self.is_op("(") { self.params()? } else { Vec::new() };
        let call = self.expression(true)?;
        if !matches!(*call.kind, ExprKind::Call(..)) {
            return Err(self.error("expected call"));
        }
        Ok(StmtKind::CallBlock(params, call, self.body(&["endcall"])?.0))
    }

    fn block(&mut self) -> Result<StmtKind> {
        let name = self.expect_name()?;
        self.skip_name("scoped");
        let required = self.skip_name("required");
        if self.is_op("-") {
            return Err(self.error("Block names in Jinja may not contain hyphens, use an underscore instead"));
        }
        let body = self.body(&["endblock"])?.0;
        let is_blank = |stmt: &Stmt| matches!(&stmt.kind, StmtKind::Text(text) if text.trim().is_empty());
        if required && !body.iter().all(is_blank) {
            return Err(self.error("Required blocks can only contain comments or whitespace"));
        }
        self.skip_name(&name);
        Ok(StmtKind::Block(name, body))
    }

    fn params(&mut self) -> Result<Params> {
        self.expect_op("(")?;
        let mut params: Params = Vec::new();
        while !self.skip_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.assignable_name()?;
            let default = if self.skip_op("=") { Some(self.expression(true)?) } else { None };
            if default.is_none() && params.last().is_some_and(|(_, default): &(String, Option<Expr>)| default.is_some()) {
                return Err(self.error("non-default argument follows default argument"));
            }
            params.push((name, default));
        }
        Ok(params)
    }

    /// What is assigned to: a name, `namespace.attribute` where allowed, or several.
    fn target(&mut self, with_namespace: bool) -> Result<Target> {
        let mut targets = vec![self.simple_target(with_namespace)?];
        let mut is_tuple = false;
        while self.skip_op(",") {
            is_tuple = true;
            if self.is_op("=") || matches!(self.tok(), Tok::Name(name) if name == "in") {
                break;
            }
            targets.push(self.simple_target(with_namespace)?);
        }
        match (is_tuple, targets.pop()) {
            (false, Some(only)) => Ok(only),
            (_, last) => {
                targets.extend(last);
                Ok(Target::Tuple(targets))
            }
        }
    }

    fn simple_target(&mut self, with_namespace: bool) -> Result<Target> {
        if self.skip_op("(") {
            let target = self.nested(|parser| parser.target(with_namespace))?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.assignable_name()?;
        if with_namespace && self.skip_op(".") {
            return Ok(Target::Namespace(name, self.expect_name()?));
        }
        Ok(Target::Name(name))
    }

    fn assignable_name(&mut self) -> Result<String> {
        const CONSTANTS: [&str; 6] = ["true", "false", "none", "True", "False", "None"];
        match self.tok() {
            Tok::Name(name) if CONSTANTS.contains(&name.as_str()) => Err(self.error(format!("can't assign to '{name}'"))),
            Tok::Name(name) if name.starts_with(super::RESERVED) => {
                Err(self.error(format!("names that begin with '{}' are reserved", super::RESERVED)))
            }
            Tok::Name(_) => self.expect_name(),
            other => Err(self.error(format!("can't assign to '{}'", other.describe()))),
        }
    }
}

/// The names that `target` assigns.
pub(crate) fn target_names(target: &Target) -> Box<dyn Iterator<Item = &str> + '_> {
    match target {
        Target::Name(name) => Box::new(std::iter::once(name.as_str())),
        Target::Namespace(..) => Box::new(std::iter::empty()),
        Target::Tuple(targets) => Box::new(targets.iter().flat_map(target_names)),
    }
}

fn unknown_tag(tag: &str, ends: &[&str]) -> String {
    if ends.is_empty() {
        return format!("Encountered unknown tag '{tag}'.");
    }
    format!(
        "Encountered unknown tag '{tag}'. Jinja was looking for the following tags: '{}'.",
        ends.join("' or '")
    )
}
