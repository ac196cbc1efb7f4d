//! Evaluating plain conditions.

use super::value::Plain;
use super::{Property, Term};
use crate::template::Scope;
use soe_backends::Value as Data;

impl Term {
    /// Whether this, as a condition, passes; `None` if the engine must say.
    pub(crate) fn passes(&self, scope: &Scope) -> Option<bool> {
        self.value(scope).map(Plain::passes)
    }

    fn value<'a>(&'a self, scope: &'a Scope) -> Option<Plain<'a>> {
        match self {
            Self::Constant(data) => Some(Plain::of(data)),
            Self::Context => Some(Plain::Context(&scope.context)),
            Self::Result => Some(Plain::or_undefined(scope.result.as_ref())),
            Self::Part(owner, key) => owner.value(scope)?.part(key),
            Self::Get(owner, key, default) => get(owner.value(scope)?, key, default.as_deref(), scope),
            Self::Accumulated(field) => Some(accumulated(scope, field)),
            Self::History(field) => Some(history(scope, field)),
            Self::Length(value) => Plain::int(value.value(scope)?.length()?),
            Self::Count(list, item) => Plain::int(list.value(scope)?.count(item.value(scope)?)?),
            Self::Default(value, other, also_if_false) => {
                let (value, other) = (value.value(scope)?, other.value(scope)?);
                let replaced = match value {
                    Plain::Undefined => true,
                    value => *also_if_false && !value.is_true()?,
                };
                Some(if replaced { other } else { value })
            }
            Self::Is(value, property) => {
                let value = value.value(scope)?;
                let is_undefined = matches!(value, Plain::Undefined);
                Some(Plain::Bool(match property {
                    Property::Defined => !is_undefined,
                    Property::Undefined => is_undefined,
                    Property::None => matches!(value, Plain::Null),
                }))
            }
            Self::Not(value) => Some(Plain::Bool(!value.value(scope)?.is_true()?)),
            Self::Logic(and, terms) => logic(*and, terms, scope),
            Self::Compare(a, operator, b) => {
                let (a, b) = (a.value(scope)?, b.value(scope)?);
                a.compare(*operator, b).map(Plain::Bool)
            }
            Self::Choice { test, then, otherwise } => match test.value(scope)?.is_true()? {
                true => then.value(scope),
                false => otherwise.value(scope),
            },
        }
    }
}

/// The first that decides, or the last.
fn logic<'a>(and: bool, terms: &'a [Term], scope: &'a Scope) -> Option<Plain<'a>> {
    let (last, before) = terms.split_last()?;
    for term in before {
        let value = term.value(scope)?;
        if value.is_true()? != and {
            return Some(value);
        }
    }
    last.value(scope)
}

fn get<'a>(owner: Plain<'a>, key: &str, default: Option<&'a Term>, scope: &'a Scope) -> Option<Plain<'a>> {
    if !owner.is_mapping() {
        return None;
    }
    let default = match default {
        Some(default) => default.value(scope)?,
        None => Plain::Null,
    };
    Some(match owner.part(key)? {
        Plain::Undefined => default,
        found => found,
    })
}

fn history<'a>(scope: &'a Scope, field: &str) -> Plain<'a> {
    scope.context.history(field).map_or(Plain::List(&[]), Plain::History)
}

/// A history of one value that is a list is that list.
fn accumulated<'a>(scope: &'a Scope, field: &str) -> Plain<'a> {
    match history(scope, field) {
        Plain::History(history) if history.len() == 1 => match history.last() {
            Some(Data::List(items)) => Plain::List(items),
            _ => Plain::History(history),
        },
        history => history,
    }
}
