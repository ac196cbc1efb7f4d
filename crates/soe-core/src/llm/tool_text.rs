//! Tools, as they are told to an LLM in text.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::tools::ToolSpec;

/// The most alternatives that are spelled out.
const MAX_ALTERNATIVES: usize = 12;

/// How deep types are spelled out.
const MAX_DEPTH: usize = 3;

/// Each tool as `name(parameter: type, optional?: type)`, with its description and those of its parameters under it.
pub(crate) fn tool_signatures(specs: &[Arc<ToolSpec>]) -> String {
    let tools: Vec<String> = specs.iter().map(|spec| tool_text(spec)).collect();
    tools.join("\n\n")
}

fn tool_text(spec: &ToolSpec) -> String {
    let types = Types {
        root: spec.parameters(),
    };
    let mut text = format!("{}({})", spec.name, types.properties(spec.parameters(), MAX_DEPTH));
    let mut add = |line: &str| {
        text += "\n  ";
        text += line;
    };
    spec.description.trim().lines().for_each(&mut add);
    let properties = spec.parameters().get("properties").and_then(Json::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        if let Some(description) = schema.get("description").and_then(Json::as_str) {
            let words: Vec<&str> = description.split_whitespace().collect();
            add(&format!("- {name}: {}", words.join(" ")));
        }
    }
    text
}

/// Writes JSON Schemas as types; what a type can't say is left out.
struct Types<'a> {
    root: &'a Json,
}

impl Types<'_> {
    fn properties(&self, schema: &Json, depth: usize) -> String {
        let required = schema.get("required").and_then(Json::as_array);
        let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|required| required == name));
        let properties = schema.get("properties").and_then(Json::as_object);
        let described = properties.into_iter().flatten().map(|(name, schema)| {
            let mark = if is_required(name) { "" } else { "?" };
            format!("{name}{mark}: {}", self.text(schema, depth))
        });
        described.collect::<Vec<_>>().join(", ")
    }

    fn text(&self, schema: &Json, depth: usize) -> String {
        let Some(deeper) = depth.checked_sub(1) else {
            return "any".to_owned();
        };
        if let Some(target) = schema.get("$ref").and_then(Json::as_str) {
            let target = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return target.map_or_else(|| "any".to_owned(), |schema| self.text(schema, deeper));
        }
        if let Some(constant) = schema.get("const") {
            return constant.to_string();
        }
        let alternatives = |key: &str| schema.get(key).and_then(Json::as_array);
        if let Some(values) = alternatives("enum") {
            return either(values.iter().map(Json::to_string));
        }
        if let Some(schemas) = alternatives("anyOf").or_else(|| alternatives("oneOf")) {
            return either(schemas.iter().map(|schema| self.text(schema, deeper)));
        }
        match schema.get("type") {
            Some(Json::String(name)) => self.named(name, schema, deeper),
            Some(Json::Array(names)) => {
                let names = names.iter().filter_map(Json::as_str);
                either(names.map(|name| self.named(name, schema, deeper)))
            }
            _ => "any".to_owned(),
        }
    }

    fn named(&self, name: &str, schema: &Json, deeper: usize) -> String {
        match (name, schema.get("items"), schema.get("properties")) {
            ("array", Some(items), _) => match self.text(items, deeper) {
                item if item.contains(" | ") => format!("({item})[]"),
                item => format!("{item}[]"),
            },
            ("object", _, Some(_)) if deeper > 0 => format!("{{{}}}", self.properties(schema, deeper)),
            (name, ..) => name.to_owned(),
        }
    }
}

fn either(alternatives: impl Iterator<Item = String>) -> String {
    let mut alternatives: Vec<String> = alternatives.take(MAX_ALTERNATIVES + 1).collect();
    if let Some(last) = alternatives.get_mut(MAX_ALTERNATIVES) {
        *last = "...".to_owned();
    }
    alternatives.dedup();
    alternatives.join(" | ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: Json) -> String {
        tool_signatures(&[Arc::new(ToolSpec::new("t", "", schema).unwrap())])
    }

    #[test]
    fn a_tool_is_its_signature_and_what_is_said_about_it() {
        let schema = json!({
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What to look\n for."},
                "limit": {"type": "integer"},
                "sort": {"enum": ["date", "name"]},
                "tags": {"type": "array", "items": {"type": ["string", "null"]}},
                "area": {"$ref": "#/$defs/Area"},
            },
            "required": ["query"],
            "$defs": {"Area": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
        });
        let search = ToolSpec::new("search", "Searches.\nQuick.", schema).unwrap();
        let ping = ToolSpec::new("ping", "", json!({})).unwrap();
        let expected = "search(query: string, limit?: integer, sort?: \"date\" | \"name\", tags?: (string | null)[], \
                        area?: {x: number})\n  Searches.\n  Quick.\n  - query: What to look for.\n\nping()";
        assert_eq!(tool_signatures(&[Arc::new(search), Arc::new(ping)]), expected);
        assert_eq!(tool_signatures(&[]), "");
    }

    #[test]
    fn types_without_an_end_have_one() {
        let schema = json!({
            "type": "object",
            "properties": {
                "node": {"$ref": "#/$defs/Node"},
                "lost": true,
                "one": {"const": 1},
                "any": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "many": {"enum": (0..100).collect::<Vec<_>>()},
                "list": {"type": "array"},
                "deep": {"type": "object", "properties": {"a": {"type": "object", "properties": {
                    "b": {"type": "object", "properties": {"c": {}}}
                }}}},
            },
            "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
        });
        assert_eq!(
            told(schema),
            "t(node?: {next?: any}, lost?: any, one?: 1, any?: string | null, \
             many?: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | ..., list?: array, deep?: {a?: {b?: object}})"
        );
    }
}
