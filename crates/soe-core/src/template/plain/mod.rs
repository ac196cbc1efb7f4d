//! Conditions that need no engine: truth, comparisons, counts and membership of what is in the context.
//!
//! Conditions are evaluated at each completion, and nearly all of them are of a few shapes. The translation recognises those
//! ([`syntax`](super::syntax)); here they are evaluated on the execution's data in place. The answer is the engine's, exactly:
//! whatever isn't plain at run time (something that is an error, a comparison of two containers, a long text) has no answer
//! here, and the engine is asked as if there were no short cut.

mod evaluate;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;

use soe_backends::Value as Data;

/// An expression that can be evaluated without the engine.
#[derive(Clone, Debug)]
pub(crate) enum Term {
    /// A literal, or a list of literals.
    Constant(Data),
    /// `context`
    Context,
    /// `result`
    Result,
    /// `term.NAME`, `term['NAME']`
    Part(Box<Term>, Arc<str>),
    /// `term.get('NAME', default)`
    Get(Box<Term>, Arc<str>, Option<Box<Term>>),
    /// `context.FIELD | accumulated`
    Accumulated(Arc<str>),
    /// `context.FIELD | history`
    History(Arc<str>),
    /// `term | length`
    Length(Box<Term>),
    /// `term.count(item)`, `term | select('equalto', item) | list | length`
    Count(Box<Term>, Box<Term>),
    /// `term | default(other, also_if_false)`
    Default(Box<Term>, Box<Term>, bool),
    /// `term is defined` and the like
    Is(Box<Term>, Property),
    /// `not term`
    Not(Box<Term>),
    /// `and` (true) or `or` between the terms.
    Logic(bool, Vec<Term>),
    /// A single comparison.
    Compare(Box<Term>, Operator, Box<Term>),
    /// `then if test else otherwise`
    Choice {
        test: Box<Term>,
        then: Box<Term>,
        otherwise: Box<Term>,
    },
}

/// A test that can follow `is`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    Defined,
    Undefined,
    None,
}

/// A comparison of Python's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

impl Property {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "defined" => Self::Defined,
            "undefined" => Self::Undefined,
            "none" => Self::None,
            _ => return None,
        })
    }
}

impl Operator {
    pub(crate) fn written(operator: &str) -> Option<Self> {
        Some(match operator {
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "in" => Self::In,
            "not in" => Self::NotIn,
            _ => return None,
        })
    }
}
