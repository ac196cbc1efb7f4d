//! Recognises the conditions that need no engine.

use soe_backends::Value as Data;

use super::analysis::context_field;
use super::ast::{Args, Expr, ExprKind};
use crate::template::plain::{Operator, Property, Term};

/// The names of the test that compares for equality.
const EQUALITY: [&str; 3] = ["equalto", "eq", "=="];

/// `value` as a plain term, if all of it is plain. Nothing must be assigned to the name `context`.
pub(super) fn plain(value: &Expr) -> Option<Term> {
    use ExprKind as K;
    Some(match &*value.kind {
        K::None | K::Bool(_) | K::Int(_) | K::Float(_) | K::Str(_) => Term::Constant(literal(value)?),
        K::List(items) | K::Tuple(items) => {
            let items: Vec<Data> = items.iter().map(literal).collect::<Option<_>>()?;
            Term::Constant(Data::list(items))
        }
        K::Name(name) => match name.as_str() {
            "context" => Term::Context,
            "result" => Term::Result,
            _ => return None,
        },
        K::Attr(owner, name) => Term::Part(boxed(owner)?, name.as_str().into()),
        K::Item(owner, key) => match &*key.kind {
            K::Str(name) => Term::Part(boxed(owner)?, name.as_str().into()),
            _ => return None,
        },
        K::Call(callee, args) => method(callee, args)?,
        K::Filter(of, name, args) => match equal_items(value) {
            Some((list, item)) => Term::Count(boxed(list)?, boxed(item)?),
            None => filter(of, name, args)?,
        },
        K::Test { value, name, args } if args.is_empty() => Term::Is(boxed(value)?, Property::named(name)?),
        K::Not(value) => Term::Not(boxed(value)?),
        K::Logic(and, items) => Term::Logic(*and, items.iter().map(plain).collect::<Option<_>>()?),
        K::Compare(first, rest) => match &rest[..] {
            [(operator, second)] => Term::Compare(boxed(first)?, Operator::written(operator)?, boxed(second)?),
            _ => return None,
        },
        K::Ternary {
            test,
            then,
            otherwise: Some(otherwise),
        } => Term::Choice {
            test: boxed(test)?,
            then: boxed(then)?,
            otherwise: boxed(otherwise)?,
        },
        _ => return None,
    })
}

/// The list and the item, if `value` is `list | select('equalto', item) | list | length`.
pub(super) fn equal_items(value: &Expr) -> Option<(&Expr, &Expr)> {
    let without_arguments = |value| match piped(value)? {
        (of, name, args) if args.is_empty() => Some((of, name)),
        _ => None,
    };
    let (list, "length" | "count") = without_arguments(value)? else {
        return None;
    };
    let (selected, "list") = without_arguments(list)? else {
        return None;
    };
    let (list, "select", args) = piped(selected)? else {
        return None;
    };
    match (positional(args)?, list) {
        ([test, item], list) => match &*test.kind {
            ExprKind::Str(name) if EQUALITY.contains(&name.as_str()) => Some((list, item)),
            _ => None,
        },
        _ => None,
    }
}

fn boxed(value: &Expr) -> Option<Box<Term>> {
    plain(value).map(Box::new)
}

fn literal(value: &Expr) -> Option<Data> {
    Some(match &*value.kind {
        ExprKind::None => Data::Null,
        ExprKind::Bool(value) => Data::Bool(*value),
        ExprKind::Int(value) => Data::Int(i64::try_from(*value).ok()?),
        ExprKind::Float(value) if value.is_finite() => Data::Float(*value),
        ExprKind::Str(text) => Data::Text(text.as_str().into()),
        _ => return None,
    })
}

fn piped(value: &Expr) -> Option<(&Expr, &str, &Args)> {
    match &*value.kind {
        ExprKind::Filter(of, name, args) => Some((of, name, args)),
        _ => None,
    }
}

/// The arguments, if all are given by their place.
fn positional(args: &Args) -> Option<&[Expr]> {
    let all = args.named.is_empty() && args.splat.is_none() && args.named_splat.is_none();
    all.then_some(&args.positional[..])
}

fn method(callee: &Expr, args: &Args) -> Option<Term> {
    let ExprKind::Attr(owner, name) = &*callee.kind else {
        return None;
    };
    match (name.as_str(), positional(args)?) {
        ("count", [item]) => Some(Term::Count(boxed(owner)?, boxed(item)?)),
        ("get", [key, rest @ ..]) => {
            let ExprKind::Str(key) = &*key.kind else {
                return None;
            };
            let default = match rest {
                [] => None,
                [default] => Some(boxed(default)?),
                _ => return None,
            };
            Some(Term::Get(boxed(owner)?, key.as_str().into(), default))
        }
        _ => None,
    }
}

fn filter(value: &Expr, name: &str, args: &Args) -> Option<Term> {
    let field = context_field(value).filter(|field| !field.starts_with("__"));
    match (name, positional(args)?) {
        ("accumulated", []) => Some(Term::Accumulated(field?.into())),
        ("history", []) => Some(Term::History(field?.into())),
        ("length" | "count", []) => boxed(value).map(Term::Length),
        ("default" | "d", [other, rest @ ..]) => {
            let also_if_false = match rest {
                [] => false,
                [flag] => match &*flag.kind {
                    ExprKind::Bool(flag) => *flag,
                    _ => return None,
                },
                _ => return None,
            };
            Some(Term::Default(boxed(value)?, boxed(other)?, also_if_false))
        }
        _ => None,
    }
}
