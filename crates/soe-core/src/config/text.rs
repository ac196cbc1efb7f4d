//! What is wrong with a text before it is known what it configures.

use super::codes::{DUPLICATE_KEY, EMPTY_CONFIG, INVALID_YAML};
use super::diagnostic::Diagnostic;
use super::read;
use super::yaml::{DuplicateKey, Step, YamlError, YamlErrorKind};

pub(super) fn invalid_yaml(text: &str, error: &YamlError) -> Diagnostic {
    let message = format!("Invalid YAML: {}", error.kind());
    let diagnostic = Diagnostic::new(INVALID_YAML, message).at(error.position());
    let line = error.position().and_then(|p| text.lines().nth(p.line as usize - 1));
    let template = line.is_some_and(|line| line.contains("{{") || line.contains("{%"));
    let grammar = matches!(error.kind(), YamlErrorKind::Syntax(_) | YamlErrorKind::KeyNotScalar);
    if template && grammar {
        return diagnostic.help("put a template that begins a value, or has ': ' in it, in quotes");
    }
    match error.kind() {
        YamlErrorKind::Syntax(words) if is_about_indentation(words) => diagnostic.help(
            "compare the indentation with the lines before: keys of one mapping begin in one column, with spaces",
        ),
        _ => diagnostic,
    }
}

/// Whether these words of the parser nearly always come of a line that begins in the wrong column.
fn is_about_indentation(words: &str) -> bool {
    [
        "mapping values are not allowed",
        "did not find expected key",
        "tabs disallowed",
    ]
    .iter()
    .any(|known| words.contains(known))
}

pub(super) fn duplicate_key(duplicate: &DuplicateKey) -> Diagnostic {
    let DuplicateKey { key, first, second, .. } = duplicate;
    let message = format!("the key '{key}' is here and at {first} of the same mapping");
    Diagnostic::new(DUPLICATE_KEY, message)
        .at(Some(*second))
        .help("rename or remove one of them")
}

/// Says where in a configuration a key is: in which workflow, node and field.
pub(super) fn in_config(diagnostic: Diagnostic, duplicate: &DuplicateKey, combined: bool) -> Diagnostic {
    let section = match duplicate.path.first() {
        Some(Step::Key(section)) if combined => section.as_ref(),
        None if combined => "",
        _ => "workflows",
    };
    if section != "workflows" {
        return diagnostic.field(read::path_of(&duplicate.path, &duplicate.key));
    }
    let path = &duplicate.path[usize::from(combined)..];
    match path {
        [] => diagnostic.workflow(&duplicate.key),
        [Step::Key(workflow)] => diagnostic.workflow(workflow).node(&duplicate.key),
        [Step::Key(workflow), Step::Key(node), inner @ ..] => {
            let field = read::path_of(inner, &duplicate.key);
            diagnostic.workflow(workflow).node(node).field(field)
        }
        _ => diagnostic.field(read::path_of(&duplicate.path, &duplicate.key)),
    }
}

pub(super) fn nothing_injected() -> Diagnostic {
    Diagnostic::new(
        EMPTY_CONFIG,
        "the text is empty: it needs the configuration of a node or of a workflow",
    )
}

pub(super) fn empty_config() -> Diagnostic {
    Diagnostic::new(
        EMPTY_CONFIG,
        "the configuration is empty: it needs at least one workflow",
    )
}
