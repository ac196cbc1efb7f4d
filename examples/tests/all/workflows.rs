//! The workflow files of all examples.

use soe_core::config::{ValidateOptions, validate};

use super::support::examples;

#[test]
fn every_workflow_is_valid_and_gives_no_warning() {
    let folders = std::fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files: Vec<_> = folders
        .map(|folder| folder.join("workflow.yaml"))
        .filter(|file| file.is_file())
        .collect();
    assert_eq!(files.len(), 19, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // What the examples register is known to their programs only: running them checks it.
        let mut report = validate(&text, &ValidateOptions::default());
        report
            .diagnostics
            .retain(|problem| problem.is_error() || !problem.message.contains("node_type"));
        assert!(report.diagnostics.is_empty(), "{}:\n{report}", file.display());
    }
}

#[test]
fn every_example_says_what_it_shows_and_how_to_run_it() {
    for entry in std::fs::read_dir(examples()).unwrap() {
        let folder = entry.unwrap().path();
        if folder.join("workflow.yaml").is_file() {
            let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
            let number = &folder.file_name().unwrap().to_str().unwrap()[..2];
            assert!(readme.starts_with(&format!("# {number} ")), "{}", folder.display());
            assert!(readme.contains("cargo run -q -p soe-"), "{}", folder.display());
        }
    }
}
