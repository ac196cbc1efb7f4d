//! The `parameters` of a tool: a JSON Schema, or names with types.

use serde_json::{Map, Value, json};

const TYPES: &[&str] = &["string", "integer", "number", "boolean", "array", "object", "any"];

/// Keys that tell a schema from names with types.
const SCHEMA_KEYS: &[&str] = &[
    "$schema",
    "$ref",
    "properties",
    "additionalProperties",
    "allOf",
    "anyOf",
    "oneOf",
];

/// A problem: the path inside `parameters`, and what is wrong there.
pub(super) type Mistake = (String, String);

/// What a tools file says of a tool's parameters.
#[derive(Debug)]
pub(super) struct Parameters {
    /// The JSON Schema of the arguments.
    pub(super) schema: Value,
}

impl Parameters {
    /// Anything is accepted.
    pub(super) fn any() -> Self {
        Self { schema: json!({}) }
    }

    /// Reads `parameters`.
    pub(super) fn read(value: &Value) -> Result<Self, Vec<Mistake>> {
        let Some(map) = value.as_object() else {
            let message = "a JSON Schema, or a mapping of names to types, is expected".to_owned();
            return Err(vec![(String::new(), message)]);
        };
        if is_schema(map) {
            return Ok(Self { schema: value.clone() });
        }
        let (mut properties, mut required, mut mistakes) = (Map::new(), Vec::new(), Vec::new());
        for (name, given) in map {
            match parameter(given) {
                Ok((schema, is_required)) => {
                    if is_required {
                        required.push(Value::String(name.clone()));
                    }
                    properties.insert(name.clone(), schema);
                }
                Err(message) => mistakes.push((name.clone(), message)),
            }
        }
        match mistakes.is_empty() {
            true => Ok(Self {
                schema: json!({"type": "object", "properties": properties, "required": required}),
            }),
            false => Err(mistakes),
        }
    }

    /// Whether arguments that are checked against the schema always have `name`; `None` if the schema doesn't say.
    pub(super) fn always_has(&self, name: &str) -> Option<bool> {
        let properties = self.schema.get("properties")?.as_object()?;
        let schema = properties.get(name);
        let required = self.schema.get("required").and_then(Value::as_array);
        let required = required.is_some_and(|names| names.iter().any(|required| required == name));
        Some(schema.is_some() && required || schema.is_some_and(|schema| schema.get("default").is_some()))
    }

    /// The names, where the schema has them.
    pub(super) fn names(&self) -> Vec<&str> {
        let properties = self.schema.get("properties").and_then(Value::as_object);
        properties.into_iter().flat_map(Map::keys).map(String::as_str).collect()
    }

    /// What stands in for arguments that are not given.
    pub(super) fn defaults(&self) -> Map<String, Value> {
        let properties = self.schema.get("properties").and_then(Value::as_object);
        let default = |(name, schema): (&String, &Value)| Some((name.clone(), schema.get("default")?.clone()));
        properties.into_iter().flatten().filter_map(default).collect()
    }
}

fn is_schema(map: &Map<String, Value>) -> bool {
    SCHEMA_KEYS.iter().any(|key| map.contains_key(*key))
        || map.get("type").is_some_and(|name| name == "object" || name == "array")
}

/// The schema of one parameter of the short form, and whether it is required.
fn parameter(given: &Value) -> Result<(Value, bool), String> {
    match given {
        Value::String(written) => {
            let name = written.strip_suffix('?').unwrap_or(written);
            match name {
                "any" => Ok((json!({}), name == written)),
                _ if TYPES.contains(&name) => Ok((json!({"type": name}), name == written)),
                _ => Err(format!(
                    "'{written}' is no type; there are {}, each with a '?' after it if the parameter may be missing",
                    TYPES.join(", ")
                )),
            }
        }
        Value::Object(schema) => Ok((given.clone(), !schema.contains_key("default"))),
        _ => Err("a type, or a JSON Schema of the parameter, is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_becomes_a_schema() {
        let given =
            json!({"url": "string", "depth": "integer?", "lang": {"type": "string", "default": "en"}, "x": "any"});
        let parameters = Parameters::read(&given).unwrap();
        assert_eq!(parameters.schema["required"], json!(["url", "x"]));
        assert_eq!(parameters.schema["properties"]["depth"], json!({"type": "integer"}));
        assert_eq!(parameters.names(), ["url", "depth", "lang", "x"]);
        assert_eq!(Value::Object(parameters.defaults()), json!({"lang": "en"}));
        let always = |name| parameters.always_has(name);
        assert_eq!(
            (always("url"), always("depth"), always("lang"), always("no")),
            (Some(true), Some(false), Some(true), Some(false))
        );
        assert_eq!(Parameters::any().always_has("url"), None);
    }

    #[test]
    fn a_schema_stays_as_it_is() {
        for schema in [
            json!({"type": "object"}),
            json!({"properties": {}}),
            json!({"type": "array", "items": {}}),
        ] {
            assert_eq!(Parameters::read(&schema).unwrap().schema, schema);
        }
        let named_type = Parameters::read(&json!({"type": "string"})).unwrap();
        assert_eq!(named_type.names(), ["type"]);
    }

    #[test]
    fn mistakes_name_the_parameter() {
        let mistakes = Parameters::read(&json!({"a": "strin", "b": 5})).unwrap_err();
        assert_eq!(mistakes[0].0, "a");
        assert!(mistakes[0].1.contains("'strin' is no type"), "{mistakes:?}");
        assert_eq!(mistakes[1].0, "b");
        assert!(Parameters::read(&json!("string")).is_err());
    }
}
