//! Every `validate/NAME.yaml` is checked, and what is reported is compared with `validate/NAME.expected`.
//!
//! Comments at the head of a file (`# tools: a, b`, `# node_types: x`, `# sent_signals: START`) are its options.
//! `UPDATE_EXPECTED=1 cargo test -p soe-core --test validate` writes the expected files anew.

// Helpers are no tests to clippy.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use soe_core::config::{Config, ValidateOptions, validate};

#[test]
fn reports_what_is_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validate");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty());
    let failed: Vec<String> = files.iter().filter_map(|file| check(file)).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn the_examples_in_the_reference_are_valid() {
    let reference = include_str!("../../../docs/node-reference.md");
    let examples: Vec<_> = reference
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 2);
    for example in examples {
        let config = Config::from_yaml(example).unwrap();
        assert!(config.warnings().is_empty(), "{example}\n{:?}", config.warnings());
    }
}

fn check(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).unwrap();
    let options = options(&text);
    let report = validate(&text, &options);
    let config = Config::from_yaml_with(&text, &options);
    assert_eq!(config.is_ok(), report.is_usable(), "{file:?}");
    match &config {
        Ok(config) => assert_eq!(config.warnings(), report.diagnostics, "{file:?}"),
        Err(error) => assert_eq!(error.report(), &report, "{file:?}"),
    }
    let mut actual = report.to_string();
    if !actual.is_empty() {
        actual.push('\n');
    }
    let expected_file = file.with_extension("expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&expected_file, &actual).unwrap();
    }
    let expected = fs::read_to_string(&expected_file).unwrap_or_default();
    (actual != expected).then(|| format!("{}\n--- expected\n{expected}--- reported\n{actual}", file.display()))
}

fn options(text: &str) -> ValidateOptions {
    let names = |option: &str| -> Option<BTreeSet<String>> {
        let prefix = format!("# {option}:");
        let names = text.lines().find_map(|line| line.strip_prefix(&prefix))?;
        Some(names.split(',').map(|name| name.trim().to_owned()).collect())
    };
    ValidateOptions {
        tools: names("tools"),
        node_types: names("node_types"),
        sent_signals: names("sent_signals"),
    }
}
