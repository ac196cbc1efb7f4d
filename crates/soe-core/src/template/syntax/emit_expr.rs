//! Writes expressions for the engine: what it does as Python does stays, the rest becomes a call of ours.

use std::fmt::Write as _;

use super::analysis::{Analysis, context_field};
use super::ast::{Args, Expr, ExprKind};
use super::plain::equal_items;

/// Writes the translation of a template.
pub(crate) struct Emitter<'a> {
    pub(crate) out: String,
    /// The line on which `out` ends.
    pub(crate) line: usize,
    pub(crate) analysis: &'a Analysis,
}

/// What may directly follow an expression as it is written.
#[derive(PartialEq, PartialOrd)]
enum Form {
    /// Nothing: parentheses are needed.
    Loose,
    /// A filter.
    Piped,
    /// A filter, an attribute, a call.
    Atom,
}

/// Whether the value, if there is one, is an integer.
fn is_integer(value: &Expr) -> bool {
    match &*value.kind {
        ExprKind::Int(_) => true,
        ExprKind::Filter(_, name, args) => matches!(name.as_str(), "length" | "count") && args.is_empty(),
        _ => false,
    }
}

impl Emitter<'_> {
    /// Writes `value` where any expression may stand.
    pub(crate) fn expression(&mut self, value: &Expr) {
        use ExprKind as K;
        match &*value.kind {
            K::None => self.out.push_str("none"),
            K::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            K::Int(value) => self.put(format_args!("{value}")),
            K::Float(value) => self.float(*value),
            K::Str(text) => self.string(text),
            K::Name(name) => self.out.push_str(name),
            K::List(items) | K::Tuple(items) => self.sequence(value, items),
            K::Dict(pairs) => {
                self.out.push_str("0|__soe_dict(");
                self.list(pairs.iter().flat_map(|(key, value)| [key, value]));
                self.out.push(')');
            }
            K::Attr(owner, name) => {
                self.at_least(owner, Form::Atom);
                self.put(format_args!(".{name}"));
            }
            K::Item(owner, key) => match &*key.kind {
                K::Str(name) if is_plain_name(name) => {
                    self.at_least(owner, Form::Atom);
                    self.put(format_args!(".{name}"));
                }
                _ => self.call("item", owner, [key]),
            },
            K::Slice(value, bounds) => {
                self.at_least(value, Form::Piped);
                self.out.push_str("|__soe_slice(");
                for bound in bounds {
                    match bound {
                        Some(bound) => self.expression(bound),
                        None => self.out.push_str("none"),
                    }
                    self.out.push(',');
                }
                self.out.push(')');
            }
            K::Call(callee, args) => self.function(callee, args),
            K::Filter(of, name, args) => match equal_items(value) {
                // Counted where they are: the engine would make a list of them first.
                Some((list, item)) => self.call("count_equal", list, [item]),
                None => self.filter(of, name, args),
            },
            K::Test { value, name, args } => {
                self.at_least(value, Form::Piped);
                self.put(format_args!(" is __soe_{name}"));
                if !args.is_empty() {
                    self.arguments(args);
                }
            }
            K::Not(value) => {
                self.out.push_str("not ");
                self.at_least(value, Form::Piped);
            }
            K::Negative(value) => self.call("neg", value, []),
            K::Positive(value) => self.call("pos", value, []),
            K::Logic(and, items) => self.logic(*and, items),
            K::Compare(first, rest) => self.comparison(first, rest),
            K::Arithmetic(first, rest) => self.arithmetic(first, rest),
            K::Concat(items) => self.concat(items),
            K::Ternary { test, then, otherwise } => {
                self.at_least(then, Form::Piped);
                self.out.push_str(" if ");
                self.at_least(test, Form::Piped);
                if let Some(otherwise) = otherwise {
                    self.out.push_str(" else ");
                    self.at_least(otherwise, Form::Piped);
                }
            }
        }
    }

    /// Writes `value` in parentheses if less than `form` could follow it otherwise.
    fn at_least(&mut self, value: &Expr, form: Form) {
        if self.form(value) >= form {
            return self.expression(value);
        }
        self.out.push('(');
        self.expression(value);
        self.out.push(')');
    }

    /// Writes `value` so that a filter can follow.
    pub(crate) fn piped(&mut self, value: &Expr) {
        self.at_least(value, Form::Piped);
    }

    fn form(&self, value: &Expr) -> Form {
        use ExprKind as K;
        match &*value.kind {
            K::None | K::Bool(_) | K::Str(_) | K::Name(_) | K::Attr(..) => Form::Atom,
            K::Int(number) if *number >= 0 => Form::Piped,
            K::Float(number) if number.is_sign_positive() => Form::Piped,
            K::Int(_) | K::Float(_) | K::Not(_) | K::Logic(..) | K::Ternary { .. } | K::Test { .. } => Form::Loose,
            K::List(items) if self.is_native(value, items) => Form::Atom,
            K::Item(_, key) => match &*key.kind {
                K::Str(name) if is_plain_name(name) => Form::Atom,
                _ => Form::Piped,
            },
            K::Call(callee, _) if !matches!(*callee.kind, K::Attr(..)) || is_self_attribute(callee) => Form::Atom,
            _ => Form::Piped,
        }
    }

    /// Constant lists of a template that changes nothing in place are made once, by the engine.
    fn is_native(&self, value: &Expr, items: &[Expr]) -> bool {
        !self.analysis.mutates && !items.is_empty() && value.kind.is_constant()
    }

    fn sequence(&mut self, value: &Expr, items: &[Expr]) {
        let is_list = matches!(*value.kind, ExprKind::List(_));
        if is_list && self.is_native(value, items) {
            self.out.push('[');
            self.list(items);
            self.out.push(']');
            return;
        }
        self.out
            .push_str(if is_list { "0|__soe_list(" } else { "0|__soe_tuple(" });
        self.list(items);
        self.out.push(')');
    }

    fn logic(&mut self, and: bool, items: &[Expr]) {
        // Halving keeps what the engine nests shallow: 'and' and 'or' are associative.
        let (left, right) = items.split_at(items.len() / 2);
        for (part, operator) in [(left, if and { " and " } else { " or " }), (right, "")] {
            match part {
                [only] => self.at_least(only, Form::Piped),
                _ => {
                    self.out.push('(');
                    self.logic(and, part);
                    self.out.push(')');
                }
            }
            self.out.push_str(operator);
        }
    }

    fn comparison(&mut self, first: &Expr, rest: &[(&'static str, Expr)]) {
        if let [(operator, second)] = rest {
            if is_integer(first) && is_integer(second) && !operator.contains("in") {
                return self.native_comparison(first, operator, second);
            }
            return self.call(operator_name(operator), first, [second]);
        }
        self.at_least(first, Form::Piped);
        self.out.push_str("|__soe_chain(");
        for (operator, value) in rest {
            self.put(format_args!("\"{operator}\","));
            self.expression(value);
            self.out.push(',');
        }
        self.out.push(')');
    }

    /// Integers compare in the engine as they do in Python, and without the cost of a call: counts are what joins compare.
    fn native_comparison(&mut self, first: &Expr, operator: &str, second: &Expr) {
        self.out.push('(');
        self.at_least(first, Form::Piped);
        self.put(format_args!(" {operator} "));
        self.at_least(second, Form::Piped);
        self.out.push(')');
    }

    fn arithmetic(&mut self, first: &Expr, rest: &[(&'static str, Expr)]) {
        if let [(operator, second)] = rest {
            return self.call(operator_name(operator), first, [second]);
        }
        self.at_least(first, Form::Piped);
        self.out.push_str("|__soe_fold(");
        for (operator, value) in rest {
            self.put(format_args!("\"{operator}\","));
            self.expression(value);
            self.out.push(',');
        }
        self.out.push(')');
    }

    fn concat(&mut self, items: &[Expr]) {
        if let Some((first, rest)) = items.split_first() {
            self.call("cat", first, rest);
        }
    }

    fn call<'e>(&mut self, name: &str, first: &Expr, rest: impl IntoIterator<Item = &'e Expr>) {
        self.at_least(first, Form::Piped);
        self.put(format_args!("|__soe_{name}("));
        self.list(rest);
        self.out.push(')');
    }

    fn function(&mut self, callee: &Expr, args: &Args) {
        match &*callee.kind {
            ExprKind::Attr(owner, method) if !is_self_attribute(callee) => {
                self.at_least(owner, Form::Piped);
                self.put(format_args!("|__soe_call(\"{method}\","));
                self.argument_list(args);
                self.out.push(')');
            }
            _ => {
                self.at_least(callee, Form::Atom);
                self.arguments(args);
            }
        }
    }

    /// Writes a call as the engine knows it, as `{% call %}` needs it.
    pub(crate) fn native_call(&mut self, call: &Expr) {
        match &*call.kind {
            ExprKind::Call(callee, args) => {
                self.at_least(callee, Form::Atom);
                self.arguments(args);
            }
            _ => self.expression(call),
        }
    }

    fn filter(&mut self, value: &Expr, name: &str, args: &Args) {
        if args.is_empty() && matches!(name, "accumulated" | "history") && !self.analysis.shadows_context {
            match context_field(value) {
                // The field is known: the filter asks the context, and the value isn't read at all.
                Some(field) if !field.starts_with("__") => {
                    self.put(format_args!("context|__soe_{name}("));
                    self.string(field);
                }
                _ => {
                    self.at_least(value, Form::Piped);
                    self.put(format_args!("|{name}(context"));
                }
            }
            self.out.push(')');
            return;
        }
        self.at_least(value, Form::Piped);
        self.filter_call(name, args);
    }

    /// Writes `|name(args)`.
    pub(crate) fn filter_call(&mut self, name: &str, args: &Args) {
        self.put(format_args!("|{name}"));
        if !args.is_empty() {
            self.arguments(args);
        }
    }

    pub(crate) fn arguments(&mut self, args: &Args) {
        self.out.push('(');
        self.argument_list(args);
        self.out.push(')');
    }

    fn argument_list(&mut self, args: &Args) {
        self.list(&args.positional);
        if let Some(splat) = &args.splat {
            self.out.push('*');
            self.piped(splat);
            self.out.push(',');
        }
        for (name, value) in &args.named {
            self.put(format_args!("{name}="));
            self.expression(value);
            self.out.push(',');
        }
        if let Some(splat) = &args.named_splat {
            self.out.push_str("**");
            self.piped(splat);
        }
    }

    fn list<'e>(&mut self, items: impl IntoIterator<Item = &'e Expr>) {
        for item in items {
            self.expression(item);
            self.out.push(',');
        }
    }

    fn float(&mut self, value: f64) {
        if value.is_finite() {
            self.put(format_args!("{value:?}"));
        } else {
            self.out.push_str(if value > 0.0 { "1e999" } else { "-1e999" });
        }
    }

    /// Writes a string literal.
    pub(crate) fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                c if c.is_control() => self.put(format_args!("\\u{:04x}", u32::from(c))),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    pub(crate) fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String can't fail.
        let _ = self.out.write_fmt(text);
    }
}

/// The name of our function for an operator.
fn operator_name(operator: &str) -> &'static str {
    match operator {
        "==" => "eq",
        "!=" => "ne",
        "<" => "lt",
        "<=" => "le",
        ">" => "gt",
        ">=" => "ge",
        "in" => "in",
        "not in" => "not_in",
        "+" => "add",
        "-" => "sub",
        "*" => "mul",
        "/" => "div",
        "//" => "floordiv",
        "%" => "mod",
        _ => "pow",
    }
}

/// Blocks are called as `self.name()`, which the engine resolves when it compiles.
fn is_self_attribute(callee: &Expr) -> bool {
    matches!(&*callee.kind, ExprKind::Attr(owner, _) if matches!(&*owner.kind, ExprKind::Name(name) if name == "self"))
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}
