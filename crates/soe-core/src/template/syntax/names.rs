//! The names that templates can use.

use crate::config::closest;
use crate::template::{TemplateError, TemplateErrorKind};

/// Every filter.
pub(crate) const FILTERS: &[&str] = &[
    "abs",
    "accumulated",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "history",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

/// Every test that can follow `is`.
pub(crate) const TESTS: &[&str] = &[
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// The tests that only `select` and its kin can name, besides [`TESTS`].
pub(crate) const OPERATOR_TESTS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];

/// The methods of mappings: a context field of such a name hides the method, unless it is called.
pub(crate) const MAPPING_METHODS: &[&str] = &[
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

pub(crate) fn unknown_filter(name: &str, line: usize) -> TemplateError {
    let message = format!("No filter named '{name}'.{}", suggestion(name, FILTERS));
    TemplateError::new(TemplateErrorKind::UnknownFilter, message, Some(line))
}

pub(crate) fn unknown_test(name: &str, line: usize) -> TemplateError {
    let message = format!("No test named '{name}'.{}", suggestion(name, TESTS));
    TemplateError::new(TemplateErrorKind::UnknownTest, message, Some(line))
}

/// A known name that is a slip away, or begins with what was written, or the other way round.
fn suggestion(name: &str, known: &[&str]) -> String {
    let known = || known.iter().copied().filter(|candidate| candidate.len() > 1);
    let shortened = |candidate: &&str| candidate.starts_with(name) || name.starts_with(*candidate);
    closest(name, known())
        .or_else(|| known().find(shortened))
        .map_or_else(String::new, |candidate| format!(" Did you mean '{candidate}'?"))
}
