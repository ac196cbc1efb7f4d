//! Why a text can't be read as YAML.

use std::fmt;

use super::Position;

/// A text that can't be read as YAML, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    kind: YamlErrorKind,
    position: Option<Position>,
}

/// What is wrong with a YAML text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum YamlErrorKind {
    /// It isn't YAML; the text says what was expected.
    Syntax(String),
    /// It has more bytes than this.
    TooLarge(usize),
    /// It is nested more deeply than this.
    TooDeep(usize),
    /// It has more nodes than this, with everything that an alias names counted at each use.
    TooManyNodes(usize),
    /// A character that YAML doesn't allow.
    InvalidCharacter(char),
    /// An alias of an anchor that isn't complete yet: the value would contain itself.
    RecursiveAlias,
    /// A list or a mapping stands where a key is expected.
    KeyNotScalar,
    /// What `<<` names is neither a mapping nor a list of mappings.
    MergeNotMapping,
    /// A tag that isn't known here.
    UnsupportedTag(String),
    /// A value that isn't what its tag says.
    TagMismatch {
        /// The tag.
        tag: String,
        /// The value as it is written, or what kind of value it is.
        value: String,
    },
    /// A second document begins.
    SeveralDocuments,
    /// A number that is not finite.
    NonFiniteNumber(String),
    /// A key that its mapping already has.
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it is written first.
        first: Position,
    },
}

impl YamlError {
    pub(super) fn new(kind: YamlErrorKind, position: impl Into<Option<Position>>) -> Self {
        Self {
            kind,
            position: position.into(),
        }
    }

    /// What is wrong.
    pub fn kind(&self) -> &YamlErrorKind {
        &self.kind
    }

    /// Where, if it is at one place.
    pub fn position(&self) -> Option<Position> {
        self.position
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "Invalid YAML at {position}: {}", self.kind),
            None => write!(f, "Invalid YAML: {}", self.kind),
        }
    }
}

impl std::error::Error for YamlError {}

impl fmt::Display for YamlErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(message) => f.write_str(message),
            Self::TooLarge(limit) => write!(f, "the text has more than {limit} bytes"),
            Self::TooDeep(limit) => write!(f, "nesting is deeper than {limit} levels"),
            Self::TooManyNodes(limit) => {
                write!(f, "more than {limit} values, with aliases counted in full at each use")
            }
            Self::InvalidCharacter(c) => write!(f, "the character U+{:04X} is not allowed", u32::from(*c)),
            Self::RecursiveAlias => f.write_str("an alias stands inside the value that it names"),
            Self::KeyNotScalar => f.write_str("a list or a mapping can't be a key"),
            Self::MergeNotMapping => f.write_str("'<<' needs a mapping or a list of mappings"),
            Self::UnsupportedTag(tag) => write!(f, "the tag '{tag}' is not supported"),
            Self::TagMismatch { tag, value } => write!(f, "'{value}' does not fit the tag '{tag}'"),
            Self::SeveralDocuments => f.write_str("a second document begins here, one is expected"),
            Self::NonFiniteNumber(text) => write!(f, "the number {text} is not finite"),
            Self::DuplicateKey { key, first } => write!(f, "the key '{key}' is already at {first}"),
        }
    }
}
