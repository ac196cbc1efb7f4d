//! The engine's data: JSON whose containers are shared, so that copying a value is copying a pointer.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

/// A JSON object; keys keep the order in which they were written.
pub type Map = IndexMap<Arc<str>, Value>;

/// A JSON value. Cloning is O(1): text, lists and maps are shared and never changed in place.
///
/// ```
/// use soe_backends::Value;
///
/// let value = Value::from(serde_json::json!({"name": "Ada", "tags": ["x", 1, 2.5]}));
/// assert_eq!(value.get("name").and_then(Value::as_str), Some("Ada"));
/// assert_eq!(value.to_json(), serde_json::json!({"name": "Ada", "tags": ["x", 1, 2.5]}));
/// ```
#[derive(Clone, Default)]
pub enum Value {
    /// JSON `null`, Python's `None`.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer that fits in 64 bits with a sign.
    Int(i64),
    /// An integer above `i64::MAX`; smaller ones are always [`Value::Int`].
    UInt(u64),
    /// A finite floating-point number. JSON has no other; a non-finite one is stored as null.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// A list.
    List(Arc<[Value]>),
    /// An object.
    Map(Arc<Map>),
}

/// What a value has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// It is too large.
    Bytes,
    /// It nests too deep.
    Depth,
}

impl Value {
    /// A list of `items`.
    pub fn list(items: impl IntoIterator<Item = Value>) -> Self {
        Value::List(items.into_iter().collect())
    }

    /// An object of `entries`, in their order; a later entry replaces an earlier one of the same key.
    pub fn map<K: Into<Arc<str>>>(entries: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value::Map(Arc::new(entries.into_iter().map(|(k, v)| (k.into(), v)).collect()))
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The integer, if this is one that fits in an `i64`.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The number as a float, if this is a number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(*value as f64),
            Value::UInt(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The items, if this is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries, if this is an object.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The entry `key` of an object; `None` for anything else.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_map()?.get(key)
    }

    /// What kind of value this is, in JSON's words: `null`, `boolean`, `integer`, `number`, `string`, `array`, `object`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) | Value::UInt(_) => "integer",
            Value::Float(_) => "number",
            Value::Text(_) => "string",
            Value::List(_) => "array",
            Value::Map(_) => "object",
        }
    }

    /// Roughly the bytes that this value occupies, containers and text included. Costs a walk over the value.
    pub fn size(&self) -> u64 {
        self.size_within(u64::MAX, usize::MAX).unwrap_or(u64::MAX)
    }

    /// As [`Value::size`], for a value that may be anything: shared parts count each time they are met, so a small value
    /// can stand for a huge one, and the walk ends at the limits.
    ///
    /// # Errors
    /// The value is larger than `bytes`, or containers nest in it more than `depth` levels deep.
    pub fn size_within(&self, bytes: u64, depth: usize) -> Result<u64, Excess> {
        let mut left = bytes;
        self.take_from(&mut left, depth)?;
        Ok(bytes - left)
    }

    fn take_from(&self, left: &mut u64, depth: usize) -> Result<(), Excess> {
        let mut take = |bytes: usize| {
            *left = left.checked_sub(bytes as u64).ok_or(Excess::Bytes)?;
            Ok(())
        };
        take(size_of::<Value>())?;
        match self {
            Value::Text(text) => take(text.len()),
            Value::List(items) => {
                let depth = depth.checked_sub(1).ok_or(Excess::Depth)?;
                items.iter().try_for_each(|item| item.take_from(left, depth))
            }
            Value::Map(map) => {
                let depth = depth.checked_sub(1).ok_or(Excess::Depth)?;
                map.iter().try_for_each(|(key, value)| {
                    let entry = (key.len() + size_of::<Value>()) as u64;
                    *left = left.checked_sub(entry).ok_or(Excess::Bytes)?;
                    value.take_from(left, depth)
                })
            }
            _ => Ok(()),
        }
    }

    /// A `serde_json` copy.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::UInt(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(text) => serde_json::Value::String(text.as_ref().to_owned()),
            Value::List(items) => serde_json::Value::Array(items.iter().map(Value::to_json).collect()),
            Value::Map(map) => serde_json::Value::Object(
                map.iter()
                    .map(|(key, value)| (key.as_ref().to_owned(), value.to_json()))
                    .collect(),
            ),
        }
    }
}

impl PartialEq for Value {
    /// Equality of type and content: `1`, `1.0` and `true` differ here, whatever templates say.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::UInt(a), Value::UInt(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::List(a), Value::List(b)) => Arc::ptr_eq(a, b) || a == b,
            (Value::Map(a), Value::Map(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => fmt::Debug::fmt(value, f),
            Value::Int(value) => fmt::Debug::fmt(value, f),
            Value::UInt(value) => fmt::Debug::fmt(value, f),
            Value::Float(value) => fmt::Debug::fmt(value, f),
            Value::Text(text) => fmt::Debug::fmt(text, f),
            Value::List(items) => f.debug_list().entries(items.iter()).finish(),
            Value::Map(map) => f.debug_map().entries(map.iter()).finish(),
        }
    }
}

/// Writes compact JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl From<Value> for serde_json::Value {
    fn from(value: Value) -> Self {
        value.to_json()
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        if value.is_finite() {
            Value::Float(value)
        } else {
            Value::Null
        }
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Value::UInt(value), Value::Int)
    }
}

macro_rules! from_primitive {
    ($($type:ty => $make:expr),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                #[allow(clippy::redundant_closure_call)]
                ($make)(value)
            }
        })*
    };
}

from_primitive! {
    () => |_| Value::Null,
    bool => Value::Bool,
    i64 => Value::Int,
    i32 => |value| Value::Int(i64::from(value)),
    u32 => |value| Value::Int(i64::from(value)),
    usize => |value| Value::from(value as u64),
    &str => |value: &str| Value::Text(value.into()),
    String => |value: String| Value::Text(value.into()),
    Arc<str> => Value::Text,
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Value::list(items.into_iter().map(Into::into))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::UInt(value) => serializer.serialize_u64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items.iter()),
            Value::Map(map) => serializer.collect_map(map.iter()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_value_is_as_large_as_its_size() {
        let value = Value::from(serde_json::json!({"a": [1, "two", {"b": null}], "c": true}));
        let size = value.size();
        assert_eq!(value.size_within(size, 3), Ok(size));
        assert_eq!(value.size_within(size - 1, 3), Err(Excess::Bytes));
        assert_eq!(value.size_within(size, 2), Err(Excess::Depth));
    }

    #[test]
    fn a_small_value_that_stands_for_a_huge_one_is_measured_soon() {
        let doubled = (0..60).fold(Value::Null, |value, _| Value::list([value.clone(), value]));
        assert_eq!(doubled.size_within(1_000_000, 100), Err(Excess::Bytes));
        let deep = (0..1_000).fold(Value::Null, |value, _| Value::list([value]));
        assert_eq!(deep.size_within(1_000_000, Value::MAX_DEPTH), Err(Excess::Depth));
    }

    #[test]
    fn floats_are_the_same_after_they_were_stored() {
        let mut bits = 0x3fe5_5555_5555_5555_u64;
        for _ in 0..10_000 {
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let value = Value::from(f64::from_bits(bits));
            let stored = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&stored).unwrap(), value, "{stored}");
        }
    }
}
