//! Reading YAML as workflow authors write it: the values of YAML 1.1, as Python's PyYAML resolves them, with a position
//! on everything, within limits.
//!
//! Where this differs from PyYAML: keys are always the text as written; dates stay text; a key can't be repeated; integers
//! beyond 64 bits become floats; infinities and NaN are no data, and errors wherever a value is needed.

mod error;
mod load;
mod scalar;
mod tree;

use std::sync::Arc;

use soe_backends::Value;

pub use error::{YamlError, YamlErrorKind};
pub use tree::Position;
pub(crate) use tree::{Content, Entry, Mapping, Step, Tree};

/// How large a YAML text may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct YamlLimits {
    /// Bytes of the text.
    pub(crate) bytes: usize,
    /// Levels of nesting.
    pub(crate) depth: usize,
    /// Values, where a long scalar counts for several, and an alias for everything that it names.
    pub(crate) nodes: usize,
}

impl Default for YamlLimits {
    fn default() -> Self {
        Self {
            bytes: 16 << 20,
            depth: 128,
            nodes: 1_000_000,
        }
    }
}

/// A text as it was read.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Tree,
    /// Keys that repeat one of the same mapping. In `root`, the last one holds.
    pub(crate) duplicates: Vec<DuplicateKey>,
}

/// A key that is twice in one mapping.
#[derive(Clone, Debug)]
pub(crate) struct DuplicateKey {
    pub(crate) key: Arc<str>,
    pub(crate) first: Position,
    pub(crate) second: Position,
    /// The path of the mapping.
    pub(crate) path: Vec<Step>,
}

/// Reads a YAML text, JSON included, as data: for arguments and definitions that a workflow carries as text.
///
/// An empty text is null. At most 16 MiB, 128 levels and 1,000,000 values. A text that is JSON is read as JSON, where
/// `1e3` is a number (in YAML 1.1 it is text).
///
/// # Errors
/// The text isn't YAML, exceeds a limit, repeats a key, or holds a number that JSON has none of (`.inf`, `.nan`).
///
/// ```
/// use soe_core::config::parse_yaml;
///
/// let value = parse_yaml("city: Oslo\nmetric: yes").unwrap();
/// assert_eq!(value.to_json(), serde_json::json!({"city": "Oslo", "metric": true}));
/// assert!(parse_yaml("a: 1\na: 2").is_err());
/// ```
pub fn parse_yaml(text: &str) -> Result<Value, YamlError> {
    if let Some(value) = parse_json(text) {
        return Ok(value);
    }
    let Some(document) = read_document(text)? else {
        return Ok(Value::Null);
    };
    if let Some(duplicate) = document.duplicates.first() {
        let kind = YamlErrorKind::DuplicateKey {
            key: duplicate.key.as_ref().to_owned(),
            first: duplicate.first,
        };
        return Err(YamlError::new(kind, duplicate.second));
    }
    document.root.to_value().map_err(|number| {
        let kind = YamlErrorKind::NonFiniteNumber(number.written.as_ref().to_owned());
        YamlError::new(kind, number.position)
    })
}

/// The value of a JSON text within the limits; `None` for any other text.
pub(crate) fn parse_json(text: &str) -> Option<Value> {
    let limits = YamlLimits::default();
    let separators = || text.bytes().filter(|b| matches!(b, b',' | b':' | b'[' | b'{')).count();
    if !text.trim_start().starts_with(['{', '[', '"']) || text.len() > limits.bytes || separators() > limits.nodes {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Reads the one document of `text`; `None` if there is none.
pub(crate) fn read_document(text: &str) -> Result<Option<Document>, YamlError> {
    load::load(text, &YamlLimits::default())
}

#[cfg(test)]
mod tests;
