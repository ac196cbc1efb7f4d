//! Reading values from any format, JSON above all.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{Map, Value};

/// So many different keys are remembered while a value is read.
const KEYS: usize = 32;

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader(&mut Keys::default()).deserialize(deserializer)
    }
}

/// The keys that were read, to be shared: the objects of a list mostly have the same ones, in the same order.
#[derive(Default)]
struct Keys {
    known: Vec<Arc<str>>,
    /// Where the next one is looked for first.
    next: usize,
}

impl Keys {
    fn share(&mut self, key: &str) -> Arc<str> {
        let is = |known: &Arc<str>| known.as_ref() == key;
        let found = match self.known.get(self.next) {
            Some(known) if is(known) => Some(self.next),
            _ => self.known.iter().position(is),
        };
        if let Some(place) = found {
            self.next = place + 1;
            return self.known[place].clone();
        }
        let key = Arc::from(key);
        if self.known.len() < KEYS {
            self.known.push(Arc::clone(&key));
            self.next = self.known.len();
        }
        key
    }
}

/// Reads a value.
struct Reader<'k>(&'k mut Keys);

/// Reads a key.
struct KeyReader<'k>(&'k mut Keys);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> DeserializeSeed<'de> for KeyReader<'_> {
    type Value = Arc<str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Arc<str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyReader<'_> {
    type Value = Arc<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Arc<str>, E> {
        Ok(self.0.share(key))
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Reader(self.0))? {
            items.push(item);
        }
        Ok(Value::List(items.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(KeyReader(self.0))? {
            map.insert(key, access.next_value_seed(Reader(self.0))?);
        }
        Ok(Value::Map(Arc::new(map)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_share_their_keys_and_are_what_was_written() {
        let many: serde_json::Map<_, _> = (0..100)
            .map(|n| (format!("k{n}"), json!({"n": n, "name": [n]})))
            .collect();
        let written =
            json!([{"n": 1, "name": "a"}, {"name": "b", "n": 2, "": {}}, many, {"n": 3}, {"k99": 1, "k1": 2}]);
        let read: Value = serde_json::from_str(&written.to_string()).unwrap();
        assert_eq!(read.to_json(), written);
        let key = |item: &Value| {
            item.as_map()
                .and_then(|map| map.get_key_value("n"))
                .map(|(key, _)| key.clone())
                .unwrap()
        };
        let items = read.as_list().unwrap();
        assert!(Arc::ptr_eq(&key(&items[0]), &key(&items[1])) && Arc::ptr_eq(&key(&items[0]), &key(&items[3])));
    }

    #[test]
    fn a_key_that_is_written_twice_has_the_last_value_at_the_first_place() {
        let read: Value = serde_json::from_str(r#"{"a": 1, "b": 2, "a": 3}"#).unwrap();
        assert_eq!(read.to_json().to_string(), r#"{"a":3,"b":2}"#);
    }
}
