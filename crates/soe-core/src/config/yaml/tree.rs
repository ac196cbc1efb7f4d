//! A YAML document as a tree in which every part knows where it was written.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use soe_backends::{Map, Value};

/// A place in a text: line and column, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A value of a document. Cloning is cheap: aliases share what they name.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) content: Content,
    /// Where it begins; `None` if it was never text.
    pub(crate) position: Option<Position>,
    /// The text of a plain scalar that was resolved to something other than text.
    pub(crate) written: Option<Arc<str>>,
    /// The line on which its text begins, if the lines of the text are lines of the document: a literal block.
    pub(crate) text_line: Option<u32>,
}

/// What a [`Tree`] holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    /// Also the numbers that JSON lacks: infinities and NaN.
    Float(f64),
    Text(Arc<str>),
    List(Arc<[Tree]>),
    Map(Arc<Mapping>),
}

/// The entries of a mapping by the text of their key, in the order of the document.
pub(crate) type Mapping = IndexMap<Arc<str>, Entry>;

/// The value of a key, and where the key is.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key_position: Option<Position>,
    pub(crate) value: Tree,
}

/// One step of a path into a document.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Key(Arc<str>),
    Index(usize),
}

/// A number that no JSON text can hold.
#[derive(Clone, Debug)]
pub(crate) struct NonFinite {
    pub(crate) written: Arc<str>,
    pub(crate) position: Option<Position>,
    pub(crate) path: Vec<Step>,
}

/// Nesting beyond the limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooDeep;

impl Tree {
    /// The kind of value in the words of YAML users.
    pub(crate) fn type_name(&self) -> &'static str {
        match self.content {
            Content::Null => "null",
            Content::Bool(_) => "a boolean",
            Content::Int(_) | Content::UInt(_) | Content::Float(_) => "a number",
            Content::Text(_) => "text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }

    /// The text of a name: any scalar but null, exactly as it was written.
    pub(crate) fn as_name(&self) -> Option<&Arc<str>> {
        match (&self.content, &self.written) {
            (Content::Text(text), _) => Some(text),
            (Content::Null, _) => None,
            (_, written) => written.as_ref(),
        }
    }

    pub(crate) fn as_map(&self) -> Option<&Arc<Mapping>> {
        match &self.content {
            Content::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.content, Content::Null)
    }

    /// The value as data.
    pub(crate) fn to_value(&self) -> Result<Value, Box<NonFinite>> {
        Ok(match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Int(value) => Value::Int(*value),
            Content::UInt(value) => Value::from(*value),
            Content::Float(value) if value.is_finite() => Value::Float(*value),
            Content::Float(value) => return Err(Box::new(self.non_finite(*value))),
            Content::Text(text) => Value::Text(text.clone()),
            Content::List(items) => Value::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| item.to_value().map_err(|e| e.inside(Step::Index(i))))
                    .collect::<Result<_, _>>()?,
            ),
            Content::Map(map) => Value::Map(Arc::new(
                map.iter()
                    .map(|(key, entry)| match entry.value.to_value() {
                        Ok(value) => Ok((key.clone(), value)),
                        Err(error) => Err(error.inside(Step::Key(key.clone()))),
                    })
                    .collect::<Result<Map, _>>()?,
            )),
        })
    }

    /// The tree of a value that was never text. Fails beyond `depth` levels of nesting.
    pub(crate) fn from_value(value: &Value, depth: usize) -> Result<Self, TooDeep> {
        let inner = || depth.checked_sub(1).ok_or(TooDeep);
        Ok(Tree::detached(match value {
            Value::Null => Content::Null,
            Value::Bool(value) => Content::Bool(*value),
            Value::Int(value) => Content::Int(*value),
            Value::UInt(value) => Content::UInt(*value),
            Value::Float(value) => Content::Float(*value),
            Value::Text(text) => Content::Text(text.clone()),
            Value::List(items) => {
                let depth = inner()?;
                let items: Result<_, _> = items.iter().map(|item| Tree::from_value(item, depth)).collect();
                Content::List(items?)
            }
            Value::Map(map) => {
                let depth = inner()?;
                let entries = map.iter();
                let entries = entries.map(|(key, value)| Ok((key.clone(), Tree::from_value(value, depth)?.into())));
                Content::Map(Arc::new(entries.collect::<Result<_, _>>()?))
            }
        }))
    }

    /// The tree of a mapping that was never text.
    pub(crate) fn of_map(map: Mapping) -> Self {
        Self::detached(Content::Map(Arc::new(map)))
    }

    fn detached(content: Content) -> Self {
        Self {
            content,
            position: None,
            written: None,
            text_line: None,
        }
    }

    fn non_finite(&self, value: f64) -> NonFinite {
        NonFinite {
            written: self.written.clone().unwrap_or_else(|| value.to_string().into()),
            position: self.position,
            path: Vec::new(),
        }
    }
}

impl From<Tree> for Entry {
    fn from(value: Tree) -> Self {
        Self {
            key_position: None,
            value,
        }
    }
}

impl NonFinite {
    /// The same number, seen from one level further out.
    fn inside(mut self: Box<Self>, step: Step) -> Box<Self> {
        self.path.insert(0, step);
        self
    }
}
