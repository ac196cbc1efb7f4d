//! What a template mentions: context fields, assigned names, methods that change values in place.

use std::collections::HashSet;
use std::sync::Arc;

use indexmap::IndexSet;

use super::ast::{Expr, ExprKind, Stmt, StmtKind, Target};
use super::names::MAPPING_METHODS;
use super::statements::target_names;

/// The methods that change a list or mapping in place.
const MUTATORS: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "__setitem__",
];

/// What [`analyse`] found.
#[derive(Debug, Default)]
pub(crate) struct Analysis {
    /// The context fields, in order of first mention.
    pub(crate) fields: IndexSet<Arc<str>>,
    /// Those of them that the template expects to be missing: it asks whether they are defined, or has a default for them.
    pub(crate) optional: HashSet<Arc<str>>,
    /// Whether something is assigned to the name `context`.
    pub(crate) shadows_context: bool,
    /// Whether lists or mappings may be changed in place.
    pub(crate) mutates: bool,
    /// Whether `self` is mentioned inside a block or macro, from where blocks could print each other without an end.
    pub(crate) nests_blocks: bool,
    /// How many blocks and macros are around what is looked at.
    inside: usize,
}

/// Looks through a whole template.
pub(crate) fn analyse(body: &[Stmt]) -> Analysis {
    let mut analysis = Analysis::default();
    analysis.statements(body);
    analysis
}

/// The field that `value` reads, if it is `context.NAME` or `context['NAME']`.
pub(crate) fn context_field(value: &Expr) -> Option<&str> {
    let is_context = |owner: &Expr| matches!(&*owner.kind, ExprKind::Name(name) if name == "context");
    match &*value.kind {
        ExprKind::Attr(owner, name) if is_context(owner) => Some(name),
        ExprKind::Item(owner, key) if is_context(owner) => match &*key.kind {
            ExprKind::Str(name) => Some(name),
            _ => None,
        },
        _ => None,
    }
}

/// The field that a test or filter is for which is there for missing values.
fn expected_to_miss(kind: &ExprKind) -> Option<&str> {
    match kind {
        ExprKind::Test { value, name, .. } if ["defined", "undefined"].contains(&name.as_str()) => context_field(value),
        ExprKind::Filter(value, name, _) if ["default", "d"].contains(&name.as_str()) => context_field(value),
        _ => None,
    }
}

impl Analysis {
    fn statements(&mut self, body: &[Stmt]) {
        for stmt in body {
            self.statement(&stmt.kind);
        }
    }

    fn statement(&mut self, kind: &StmtKind) {
        match kind {
            StmtKind::Text(_) => {}
            StmtKind::Print(value) => self.expression(value),
            StmtKind::For {
                target,
                iter,
                test,
                body,
                otherwise,
                ..
            } => {
                self.target(target);
                self.expression(iter);
                test.iter().for_each(|test| self.expression(test));
                self.statements(body);
                self.statements(otherwise);
            }
            StmtKind::If { branches, otherwise } => {
                for (test, body) in branches {
                    self.expression(test);
                    self.statements(body);
                }
                self.statements(otherwise);
            }
            StmtKind::Set(target, value) => {
                self.target(target);
                self.expression(value);
            }
            StmtKind::SetBlock(target, filters, body) => {
                self.target(target);
                filters
                    .iter()
                    .flat_map(|(_, args)| args.iter())
                    .for_each(|arg| self.expression(arg));
                self.statements(body);
            }
            StmtKind::With(assignments, body) => {
                for (target, value) in assignments {
                    self.target(target);
                    self.expression(value);
                }
                self.statements(body);
            }
            StmtKind::Macro(name, params, body) => {
                self.assigned(name);
                self.inside += 1;
                self.params(params);
                self.statements(body);
                self.inside -= 1;
            }
            StmtKind::CallBlock(params, call, body) => {
                self.expression(call);
                self.inside += 1;
                self.params(params);
                self.statements(body);
                self.inside -= 1;
            }
            StmtKind::FilterBlock(filters, body) => {
                filters
                    .iter()
                    .flat_map(|(_, args)| args.iter())
                    .for_each(|arg| self.expression(arg));
                self.statements(body);
            }
            StmtKind::Block(_, body) => {
                self.inside += 1;
                self.statements(body);
                self.inside -= 1;
            }
            StmtKind::AutoEscape(enabled, body) => {
                self.expression(enabled);
                self.statements(body);
            }
        }
    }

    fn params(&mut self, params: &[(String, Option<Expr>)]) {
        for (name, default) in params {
            self.assigned(name);
            default.iter().for_each(|default| self.expression(default));
        }
    }

    fn target(&mut self, target: &Target) {
        target_names(target).for_each(|name| self.assigned(name));
    }

    fn assigned(&mut self, name: &str) {
        self.shadows_context |= name == "context";
    }

    fn expression(&mut self, value: &Expr) {
        if let Some(field) = context_field(value) {
            self.field(field);
        }
        if let Some(field) = expected_to_miss(&value.kind) {
            self.optional.insert(field.into());
        }
        self.nests_blocks |= self.inside > 0 && matches!(&*value.kind, ExprKind::Name(name) if name == "self");
        if let ExprKind::Call(callee, args) = &*value.kind
            && let ExprKind::Attr(owner, method) = &*callee.kind
        {
            self.mutates |= MUTATORS.contains(&method.as_str());
            if matches!(&*owner.kind, ExprKind::Name(name) if name == "context")
                && MAPPING_METHODS.contains(&method.as_str())
            {
                if let ("get", Some(ExprKind::Str(field))) =
                    (method.as_str(), args.positional.first().map(|key| &*key.kind))
                {
                    self.field(field);
                }
                args.iter().for_each(|arg| self.expression(arg));
                return;
            }
        }
        value
            .kind
            .children()
            .into_iter()
            .for_each(|child| self.expression(child));
    }

    fn field(&mut self, name: &str) {
        if !name.starts_with("__") && !self.fields.contains(name) {
            self.fields.insert(name.into());
        }
    }
}
