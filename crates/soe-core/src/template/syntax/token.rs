//! The tokens of a template.

/// A token and the line on which it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) line: usize,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tok {
    /// Text outside of tags.
    Data(String),
    PrintBegin,
    PrintEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    Eof,
}

/// The operators, the longer ones before their prefixes.
pub(crate) const OPERATORS: &[&str] = &[
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":",
    "|", ",", ";",
];

impl Tok {
    /// How messages name this token.
    pub(crate) fn describe(&self) -> String {
        match self {
            Tok::Data(_) => "template data / text".into(),
            Tok::PrintBegin => "begin of print statement".into(),
            Tok::PrintEnd => "end of print statement".into(),
            Tok::BlockBegin => "begin of statement block".into(),
            Tok::BlockEnd => "end of statement block".into(),
            Tok::Name(name) => name.clone(),
            Tok::Str(text) => text.clone(),
            Tok::Int(value) => value.to_string(),
            Tok::Float(value) => value.to_string(),
            Tok::Op(op) => (*op).into(),
            Tok::Eof => "end of template".into(),
        }
    }
}
