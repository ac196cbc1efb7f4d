//! The methods of Python's texts, lists, mappings and numbers.

mod dicts;
mod lists;
mod texts;
mod texts_search;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::python::Result;
use super::python::kinds::{Num, int, number, type_error, type_name, undefined_error};
use super::python::meter::Meter;
use super::python::objects::{DictView, Generator};

/// `value.name(args)`.
pub(crate) fn call(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    let result = match value.kind() {
        ValueKind::Undefined => return Err(undefined_error()),
        ValueKind::String => {
            state.read(value)?;
            texts::call(state, value.as_str().unwrap_or_default(), name, args)
        }
        ValueKind::Seq | ValueKind::Iterable => lists::call(state, value, name, args),
        ValueKind::Number | ValueKind::Bool => of_number(value, name),
        ValueKind::Map => match dicts::call(state, value, name, args) {
            // A namespace, a module: objects of the engine that look like mappings.
            Err(error) if error.kind() == ErrorKind::UnknownMethod && !is_data(value) => {
                engine_call(state, value, name, args)
            }
            result => result,
        },
        _ if is_data(value) => Err(unknown()),
        _ => engine_call(state, value, name, args),
    };
    result.map_err(|error| match error.kind() {
        ErrorKind::UnknownMethod => type_error(format!("'{}' object has no method '{name}'", type_name(value))),
        _ => error,
    })
}

/// No method of this name: the caller says so.
fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}

fn of_number(value: &Value, name: &str) -> Result<Value> {
    match (name, number(value)) {
        ("is_integer", Some(Num::Float(float))) => Ok(Value::from(float.is_finite() && float.fract() == 0.0)),
        ("bit_length", Some(Num::Int(number))) => Ok(int(i128::from(128 - number.unsigned_abs().leading_zeros()))),
        ("conjugate", Some(_)) => Ok(value.clone()),
        _ => Err(unknown()),
    }
}

/// Whether a value is data, a view or a generator of ours, and not an object of the engine.
fn is_data(value: &Value) -> bool {
    value.downcast_object_ref::<DictView>().is_some()
        || value.downcast_object_ref::<Generator>().is_some()
        || value
            .as_object()
            .is_none_or(|object| object.type_name().starts_with("soe_core::template::view"))
}

/// Calls a method that the engine's own object has; the engine would ask us again for one that it doesn't have.
fn engine_call(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    match value.as_object() {
        Some(object) => match object.call_method(state, name, args) {
            Err(error) if error.kind() == ErrorKind::UnknownMethod => match value.get_attr(name) {
                Ok(function) if !function.is_undefined() => function.call(state, args),
                _ => Err(error),
            },
            result => result,
        },
        None => Err(unknown()),
    }
}
