//! What a value is, in Python's terms.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::Result;
use super::objects::{DictView, Generator, Group, Range, Sequence};

/// A number; booleans are integers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Num {
    Int(i128),
    Float(f64),
}

impl Num {
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Num::Int(value) => value as f64,
            Num::Float(value) => value,
        }
    }
}

/// The number that `value` is, if it is one.
pub(crate) fn number(value: &Value) -> Option<Num> {
    match value.kind() {
        ValueKind::Bool => Some(Num::Int(i128::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => match value.as_i64() {
            Some(small) => Some(Num::Int(i128::from(small))),
            None => i128::try_from(value.clone()).ok().map(Num::Int),
        },
        ValueKind::Number => f64::try_from(value.clone()).ok().map(Num::Float),
        _ => None,
    }
}

/// The engine's value for an integer.
pub(crate) fn int(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

pub(crate) fn is_text(value: &Value) -> bool {
    value.kind() == ValueKind::String
}

pub(crate) fn is_dict(value: &Value) -> bool {
    value.kind() == ValueKind::Map
}

pub(crate) fn is_generator(value: &Value) -> bool {
    value.downcast_object_ref::<Generator>().is_some()
}

pub(crate) fn is_view(value: &Value) -> bool {
    value.downcast_object_ref::<DictView>().is_some()
}

pub(crate) fn is_range(value: &Value) -> bool {
    value.downcast_object_ref::<Range>().is_some()
}

pub(crate) fn is_tuple(value: &Value) -> bool {
    match value.downcast_object_ref::<Sequence>() {
        Some(sequence) => sequence.is_tuple,
        None => value.is_tuple() || value.downcast_object_ref::<Group>().is_some(),
    }
}

pub(crate) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) && !is_tuple(value) && !is_range(value)
}

/// None, booleans and numbers: what can't be iterated.
pub(crate) fn is_scalar(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number)
}

/// The name of `value`'s type.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String if value.is_safe() => "Markup",
        ValueKind::String => "str",
        ValueKind::Map => "dict",
        _ if is_tuple(value) => "tuple",
        _ if is_range(value) => "range",
        _ if is_generator(value) => "generator",
        _ if is_list(value) => "list",
        _ => "object",
    }
}

/// Whether `value` can be a key, or an element of a set.
pub(crate) fn is_hashable(value: &Value) -> bool {
    fn within(value: &Value, depth: usize) -> bool {
        if is_tuple(value) {
            return depth > 0 && value.try_iter().is_ok_and(|mut items| items.all(|item| within(&item, depth - 1)));
        }
        !is_list(value) && !is_dict(value)
    }
    within(value, 8)
}

/// An operation that the types don't have, or a bad argument.
pub(crate) fn type_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// An operation on something that isn't there.
pub(crate) fn undefined_error() -> Error {
    Error::from(ErrorKind::UndefinedError)
}

/// An error about `value`: undefined if it is, else `message`.
pub(crate) fn error_about(value: &Value, message: impl FnOnce() -> String) -> Error {
    if value.is_undefined() { undefined_error() } else { type_error(message()) }
}

/// The integer that `value` is.
pub(crate) fn expect_int(value: &Value) -> Result<i128> {
    match number(value) {
        Some(Num::Int(value)) => Ok(value),
        _ => Err(error_about(value, || {
            format!("'{}' object cannot be interpreted as an integer", type_name(value))
        })),
    }
}
