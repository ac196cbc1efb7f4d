//! Every code that a [`Diagnostic`](super::Diagnostic) can carry. Each is explained in `docs/validation.md`.

use super::Severity;

/// A stable name for one kind of problem, and how bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) name: &'static str,
    pub(crate) severity: Severity,
}

macro_rules! codes {
    ($($id:ident = $name:literal, $severity:ident;)*) => {
        $(pub(crate) const $id: Code = Code { name: $name, severity: Severity::$severity };)*

        /// All codes, in the order of the documentation.
        #[cfg(test)]
        pub(crate) const ALL: &[Code] = &[$($id),*];
    };
}

codes! {
    INVALID_YAML = "invalid-yaml", Error;
    DUPLICATE_KEY = "duplicate-key", Error;
    NON_FINITE_NUMBER = "non-finite-number", Error;
    TOO_DEEP = "too-deep", Error;
    NOT_SERIALIZABLE = "not-serializable", Error;
    EMPTY_CONFIG = "empty-config", Error;
    INVALID_CONFIG = "invalid-config", Error;
    INVALID_SECTION = "invalid-section", Error;
    INVALID_IDENTITY = "invalid-identity", Error;
    INVALID_SCHEMA = "invalid-schema", Error;
    INVALID_WORKFLOW = "invalid-workflow", Error;
    EMPTY_WORKFLOW = "empty-workflow", Error;
    INVALID_NODE = "invalid-node", Error;
    RESERVED_NAME = "reserved-name", Error;
    MISSING_FIELD = "missing-field", Error;
    INVALID_VALUE = "invalid-value", Error;
    UNKNOWN_NODE_TYPE = "unknown-node-type", Error;
    INVALID_EMISSION = "invalid-emission", Error;
    MISSING_SIGNAL_NAME = "missing-signal-name", Error;
    INVALID_CONDITION = "invalid-condition", Error;
    TEMPLATE_ERROR = "template-error", Error;
    CONFLICTING_FIELDS = "conflicting-fields", Error;
    REMOVED_FIELD = "removed-field", Error;
    UNKNOWN_CHILD_WORKFLOW = "unknown-child-workflow", Error;
    UNKNOWN_TOOL = "unknown-tool", Error;
    UNKNOWN_WORKFLOW = "unknown-workflow", Error;
    NO_INITIAL_SIGNALS = "no-initial-signals", Error;
    UNREGISTERED_NODE_TYPE = "unregistered-node-type", Warning;
    MISPLACED_FIELD = "misplaced-field", Warning;
    MISSPELLED_FIELD = "misspelled-field", Warning;
    MISSPELLED_NAME = "misspelled-name", Warning;
    MISSPELLED_SECTION = "misspelled-section", Warning;
    BOOLEAN_LIKE_NAME = "boolean-like-name", Warning;
    SHADOWING_NAME = "shadowing-name", Warning;
    PLAIN_TEXT_CONDITION = "plain-text-condition", Warning;
    UNKNOWN_SCHEMA_TYPE = "unknown-schema-type", Warning;
    IGNORED_SCHEMA_PART = "ignored-schema-part", Warning;
    UNSENT_TRIGGER = "unsent-trigger", Warning;
    UNSENT_SIGNAL = "unsent-signal", Warning;
    UNHEARD_EMISSION = "unheard-emission", Warning;
    UNREACHABLE_NODE = "unreachable-node", Warning;
    UNCONDITIONAL_LOOP = "unconditional-loop", Warning;
    INEXACT_JOIN = "inexact-join", Warning;
    JOINS_NOT_CHECKED = "joins-not-checked", Warning;
    MORE_PROBLEMS = "more-problems", Warning;
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_code_is_documented() {
        let docs = include_str!("../../../../docs/validation.md");
        for code in ALL {
            assert!(
                docs.contains(&format!("| `{}` |", code.name)),
                "'{}' is not in docs/validation.md",
                code.name
            );
        }
    }

    #[test]
    fn every_code_is_tested() {
        // What no single YAML file shows has a test of its own.
        let elsewhere = [
            TOO_DEEP,
            NOT_SERIALIZABLE,
            UNKNOWN_WORKFLOW,
            NO_INITIAL_SIGNALS,
            JOINS_NOT_CHECKED,
            MORE_PROBLEMS,
        ];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validate");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let expected = files.filter(|file| file.extension().is_some_and(|extension| extension == "expected"));
        let reported: String = expected.map(|file| fs::read_to_string(file).unwrap()).collect();
        for code in ALL.iter().filter(|code| !elsewhere.contains(code)) {
            assert!(
                reported.contains(&format!("[{}]", code.name)),
                "no file shows '{}'",
                code.name
            );
        }
    }

    #[test]
    fn names_are_kebab_case_and_unique() {
        for (i, code) in ALL.iter().enumerate() {
            assert!(
                code.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{code:?}"
            );
            assert!(ALL[..i].iter().all(|other| other.name != code.name), "{code:?}");
        }
    }
}
