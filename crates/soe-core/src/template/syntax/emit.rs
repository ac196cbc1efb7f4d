//! Writes statements for the engine, each on the line on which it stands in the source.

use super::ast::{Expr, FilterCall, Params, Stmt, StmtKind, Target};
use super::emit_expr::Emitter;

/// Text longer than this, where it may be repeated, is printed by our formatter, which accounts for it.
const FREE_TEXT: usize = 64;

/// Where a statement stands.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// In a loop, macro or captured block: its text may cost memory and time again and again.
    repeated: bool,
}

impl Emitter<'_> {
    /// Writes a whole template.
    pub(crate) fn template(&mut self, body: &[Stmt]) {
        self.body(body, Place { repeated: false });
        if self.out.ends_with('\n') {
            // The engine would drop a last newline.
            self.out.push_str("{{ \"\" }}");
        }
    }

    fn body(&mut self, body: &[Stmt], place: Place) {
        for stmt in body {
            self.statement(stmt, place);
        }
    }

    fn statement(&mut self, stmt: &Stmt, place: Place) {
        let repeated = Place { repeated: true };
        match &stmt.kind {
            StmtKind::Text(text) => self.text(text, place),
            StmtKind::Print(value) => {
                self.open("{{", stmt.line);
                self.expression(value);
                self.out.push_str(" }}");
            }
            StmtKind::For { .. } => self.for_loop(stmt),
            StmtKind::If { branches, otherwise } => self.if_chain(branches, otherwise, stmt.line, place),
            StmtKind::Set(target, value) => {
                self.open("{% set", stmt.line);
                self.target(target);
                self.out.push('=');
                self.assigned(target, value);
                self.out.push_str(" %}");
            }
            StmtKind::SetBlock(target, filters, body) => {
                self.open("{% set", stmt.line);
                self.target(target);
                self.filters(filters);
                self.block(body, "endset", repeated);
            }
            StmtKind::With(assignments, body) => {
                self.open("{% with", stmt.line);
                for (index, (target, value)) in assignments.iter().enumerate() {
                    self.out.push_str(if index > 0 { "," } else { "" });
                    self.target(target);
                    self.out.push('=');
                    self.assigned(target, value);
                }
                self.block(body, "endwith", place);
            }
            StmtKind::Macro(name, params, body) => {
                self.open("{% macro", stmt.line);
                self.out.push_str(name);
                self.params(params);
                self.out.push_str(" %}");
                self.late_defaults(params);
                self.body(body, repeated);
                self.out.push_str("{% endmacro %}");
            }
            StmtKind::CallBlock(params, call, body) => {
                self.open("{% call", stmt.line);
                if !params.is_empty() {
                    self.params(params);
                }
                self.native_call(call);
                self.out.push_str(" %}");
                self.late_defaults(params);
                self.body(body, repeated);
                self.out.push_str("{% endcall %}");
            }
            StmtKind::FilterBlock(filters, body) => {
                self.open("{% filter", stmt.line);
                let start = self.out.len();
                self.filters(filters);
                self.out.remove(start);
                self.block(body, "endfilter", repeated);
            }
            StmtKind::Block(name, body) => {
                self.open("{% block", stmt.line);
                self.out.push_str(name);
                self.block(body, "endblock", repeated);
            }
            StmtKind::AutoEscape(enabled, body) => {
                self.open("{% autoescape", stmt.line);
                self.expression(enabled);
                self.block(body, "endautoescape", place);
            }
        }
    }

    /// Writes the beginning of a tag, moved down to `line`.
    fn open(&mut self, tag: &str, line: usize) {
        self.out.push_str(tag);
        self.out.push(' ');
        for _ in self.line..line {
            self.out.push('\n');
        }
        self.line = self.line.max(line);
    }

    fn block(&mut self, body: &[Stmt], end: &str, place: Place) {
        self.out.push_str(" %}");
        self.body(body, place);
        self.put(format_args!("{{% {end} %}}"));
    }

    fn text(&mut self, text: &str, place: Place) {
        let opens = text.ends_with('{') || ["{{", "{%", "{#"].iter().any(|tag| text.contains(tag));
        if opens || (place.repeated && text.len() > FREE_TEXT) {
            self.out.push_str("{{ ");
            self.string(text);
            self.out.push_str("|safe }}");
        } else {
            self.out.push_str(text);
            self.line += text.bytes().filter(|byte| *byte == b'\n').count();
        }
    }

    fn for_loop(&mut self, stmt: &Stmt) {
        let StmtKind::For {
            target,
            iter,
            test,
            recursive,
            body,
            otherwise,
        } = &stmt.kind
        else {
            return;
        };
        self.open("{% for", stmt.line);
        self.target(target);
        self.out.push_str(" in ");
        self.piped(iter);
        self.out.push_str("|__soe_iter");
        if let Some(test) = test {
            self.out.push_str(" if ");
            self.piped(test);
        }
        if *recursive {
            self.out.push_str(" recursive");
        }
        self.out.push_str(" %}");
        let place = Place { repeated: true };
        self.body(body, place);
        if !otherwise.is_empty() {
            self.out.push_str("{% else %}");
            self.body(otherwise, place);
        }
        self.out.push_str("{% endfor %}");
    }

    fn if_chain(&mut self, branches: &[(Expr, Vec<Stmt>)], otherwise: &[Stmt], line: usize, place: Place) {
        for (index, (test, body)) in branches.iter().enumerate() {
            if index == 0 {
                self.open("{% if", line);
            } else {
                self.out.push_str("{% elif ");
            }
            self.expression(test);
            self.out.push_str(" %}");
            self.body(body, place);
        }
        if !otherwise.is_empty() {
            self.out.push_str("{% else %}");
            self.body(otherwise, place);
        }
        self.out.push_str("{% endif %}");
    }

    /// Writes an assigned value: what may be changed in place later must be the template's own.
    fn assigned(&mut self, target: &Target, value: &Expr) {
        self.piped(value);
        if matches!(target, Target::Namespace(..)) {
            self.out.push_str("|__soe_attribute");
        }
        if self.analysis.mutates {
            self.out.push_str("|__soe_own");
        }
    }

    fn target(&mut self, target: &Target) {
        match target {
            Target::Name(name) => self.out.push_str(name),
            Target::Namespace(name, attribute) => self.put(format_args!("{name}.{attribute}")),
            Target::Tuple(targets) => {
                self.out.push('(');
                for target in targets {
                    self.target(target);
                    self.out.push(',');
                }
                self.out.push(')');
            }
        }
    }

    fn filters(&mut self, filters: &[FilterCall]) {
        for (name, args) in filters {
            self.filter_call(name, args);
        }
    }

    fn params(&mut self, params: &Params) {
        self.out.push('(');
        for (name, default) in params {
            self.out.push_str(name);
            if let Some(default) = default.as_ref().filter(|default| default.kind.is_constant()) {
                self.out.push('=');
                self.expression(default);
            }
            self.out.push(',');
        }
        self.out.push(')');
    }

    /// Sets the defaults that are computed: they may read the parameters before them.
    fn late_defaults(&mut self, params: &Params) {
        for (name, default) in params {
            if let Some(default) = default.as_ref().filter(|default| !default.kind.is_constant()) {
                self.put(format_args!("{{% if {name} is __soe_undefined %}}{{% set {name}="));
                self.piped(default);
                self.out.push_str(" %}{% endif %}");
            }
        }
    }
}
