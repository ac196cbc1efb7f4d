//! How deep values may nest. Whoever walks a value recurses, so a value without an end would exhaust the stack.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::{Map, Value};

/// What is converted as it is; a value within [`Value::MAX_DEPTH`] may be wrapped in a few levels, as in a document.
const CONVERTED: usize = Value::MAX_DEPTH + 32;

/// So many values are looked at: several times what the default limits let into a context.
const WALKED: u64 = 20_000_000;

impl Value {
    /// The most levels of lists and objects that a value in a context may have. Most readers of JSON take 128, and a stored
    /// or exported context adds some of its own.
    pub const MAX_DEPTH: usize = 100;

    /// Whether there are more than [`Value::MAX_DEPTH`] levels. Such a value is refused wherever one enters an execution.
    ///
    /// ```
    /// use soe_backends::Value;
    ///
    /// let nested = |levels| (0..levels).fold(Value::Null, |inner, _| Value::list([inner]));
    /// assert!(!nested(Value::MAX_DEPTH).is_too_deep());
    /// assert!(nested(Value::MAX_DEPTH + 1).is_too_deep());
    /// ```
    pub fn is_too_deep(&self) -> bool {
        !self.fits_in(Self::MAX_DEPTH, &mut { WALKED })
    }

    /// This value, whatever its depth, as one that is safe to walk and to drop: one that nests beyond measure loses what it
    /// holds, and stays too deep to be taken by anybody.
    #[must_use]
    pub fn bounded(self) -> Self {
        if self.fits_in(CONVERTED, &mut { WALKED }) {
            return self;
        }
        dismantle(self);
        (0..=Self::MAX_DEPTH).fold(Value::Null, |inner, _| Value::list([inner]))
    }

    /// What `steps` don't reach is taken to fit: a value that shares its parts may stand for more than can be walked, and
    /// is refused for its size.
    fn fits_in(&self, levels: usize, steps: &mut u64) -> bool {
        *steps = steps.saturating_sub(1);
        if *steps == 0 {
            return true;
        }
        match (self, levels.checked_sub(1)) {
            (Value::List(items), Some(left)) => items.iter().all(|item| item.fits_in(left, steps)),
            (Value::Map(map), Some(left)) => map.values().all(|item| item.fits_in(left, steps)),
            (Value::List(_) | Value::Map(_), None) => false,
            _ => true,
        }
    }
}

/// Converts JSON. What nests beyond measure is left out, and the result is then [too deep](Value::is_too_deep).
impl From<Json> for Value {
    fn from(json: Json) -> Self {
        convert(json, CONVERTED)
    }
}

/// As from the JSON itself.
impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        convert_ref(json, CONVERTED)
    }
}

fn convert(json: Json, levels: usize) -> Value {
    match json {
        Json::Array(_) | Json::Object(_) if levels == 0 => {
            dismantle_json(json);
            Value::list([])
        }
        Json::Array(items) => {
            let mut converted = Vec::with_capacity(items.len());
            for item in items {
                converted.push(convert(item, levels - 1));
            }
            Value::List(converted.into())
        }
        Json::Object(entries) => {
            let mut converted = Map::with_capacity(entries.len());
            for (key, item) in entries {
                converted.insert(key.into(), convert(item, levels - 1));
            }
            Value::Map(Arc::new(converted))
        }
        Json::String(text) => Value::Text(text.into()),
        scalar => convert_ref(&scalar, levels),
    }
}

fn convert_ref(json: &Json, levels: usize) -> Value {
    match json {
        Json::Array(_) | Json::Object(_) if levels == 0 => Value::list([]),
        Json::Array(items) => Value::list(items.iter().map(|item| convert_ref(item, levels - 1))),
        Json::Object(entries) => Value::map(
            entries
                .iter()
                .map(|(key, item)| (key.as_str(), convert_ref(item, levels - 1))),
        ),
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::String(text) => Value::from(text.as_str()),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Int(value),
            (None, Some(value)) => Value::UInt(value),
            (None, None) => number.as_f64().map_or(Value::Null, Value::from),
        },
    }
}

/// Drops a value without recursion, as far as nobody else shares it.
fn dismantle(value: Value) {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::List(mut items) => {
                if let Some(items) = Arc::get_mut(&mut items) {
                    left.extend(items.iter_mut().map(std::mem::take));
                }
            }
            Value::Map(map) => left.extend(Arc::into_inner(map).into_iter().flat_map(Map::into_values)),
            _ => {}
        }
    }
}

/// Drops JSON without recursion.
fn dismantle_json(json: Json) {
    let mut left = vec![json];
    while let Some(json) = left.pop() {
        match json {
            Json::Array(items) => left.extend(items),
            Json::Object(entries) => left.extend(entries.into_iter().map(|(_, item)| item)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested_json(levels: usize) -> Json {
        (0..levels).fold(Json::Null, |inner, level| match level % 2 {
            0 => json!([inner]),
            _ => Json::Object([("a".to_owned(), inner)].into_iter().collect()),
        })
    }

    #[test]
    fn what_is_within_the_limit_is_converted_as_it_is() {
        let json = nested_json(Value::MAX_DEPTH);
        for value in [Value::from(&json), Value::from(json.clone()).bounded()] {
            assert!(!value.is_too_deep());
            assert_eq!(value.to_json(), json);
        }
        assert!(Value::from(nested_json(Value::MAX_DEPTH + 1)).is_too_deep());
        assert_eq!(Value::from(nested_json(CONVERTED)).to_json(), nested_json(CONVERTED));
    }

    #[test]
    fn what_nests_beyond_measure_is_too_deep_and_safe_to_drop() {
        let value = Value::from(json!([1, nested_json(0)]));
        assert!(!value.is_too_deep());
        assert!(Value::from(nested_json_apart(200_000)).is_too_deep());
        let list = (0..200_000).fold(Value::Null, |inner, _| Value::list([inner]));
        assert!(list.bounded().is_too_deep());
        let map = (0..200_000).fold(Value::Null, |inner, _| Value::map([("a", inner), ("b", Value::Int(1))]));
        assert!(map.bounded().is_too_deep());
    }

    /// Without `json!`, which would serialise what it is given.
    fn nested_json_apart(levels: usize) -> Json {
        (0..levels).fold(Json::Null, |inner, _| Json::Array(vec![inner, Json::Bool(true)]))
    }
}
