//! The filters `accumulated` and `history`: every value that a context field had.

use minijinja::value::Value;
use minijinja::{Environment, State};
use soe_backends::{History, Value as Data};

use super::python::Result;
use super::python::compare::equal;
use super::python::objects::list;
use super::view::{ContextView, HistoryView, value_of};

/// Adds the filters to `env`: by the field's name, which the translation uses where it sees the field, and by value.
pub(crate) fn register(env: &mut Environment<'static>) {
    env.add_filter("__soe_accumulated", |context: &Value, field: &str| by_name(context, field).map(accumulated));
    env.add_filter("__soe_history", |context: &Value, field: &str| by_name(context, field).map(plain));
    env.add_filter("accumulated", |state: &mut State<'_, '_>, value: &Value, context: Option<&Value>| {
        by_value(state, value, context, accumulated)
    });
    env.add_filter("history", |state: &mut State<'_, '_>, value: &Value, context: Option<&Value>| {
        by_value(state, value, context, plain)
    });
}

fn by_name(context: &Value, field: &str) -> Result<History> {
    Ok(context.downcast_object_ref::<ContextView>().map(|context| context.history(field)).unwrap_or_default())
}

/// The history of the field that a value came from. A value that is nobody's is a history of its own.
fn by_value(state: &State<'_, '_>, value: &Value, context: Option<&Value>, shape: fn(History) -> Value) -> Result<Value> {
    let context = context.cloned().or_else(|| state.lookup("context"));
    let history = context.as_ref().and_then(|context| context.downcast_object_ref::<ContextView>()?.history_of(value));
    if let Some(history) = history
        && let Some(last) = history.last()
        && equal(&value_of(last), value, state)?
    {
        return Ok(shape(history));
    }
    let is_nothing = value.is_undefined() || value.is_none();
    Ok(list(if is_nothing { Vec::new() } else { vec![value.clone()] }))
}

/// A history of one value that is a list is that list, so that a list can be fanned out.
fn accumulated(history: History) -> Value {
    match (history.len(), history.last()) {
        (1, Some(only @ Data::List(_))) => value_of(only),
        _ => plain(history),
    }
}

fn plain(history: History) -> Value {
    Value::from_object(HistoryView(history))
}
