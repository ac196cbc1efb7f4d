//! The documentation is checked: its workflows are valid, those that it says can be run do what it says, its links lead
//! somewhere, and its Rust blocks are compiled (as doctests, see `src/docs.rs`).

mod blocks;
mod links;
mod run;
mod script;

use std::path::{Path, PathBuf};
use std::{fs, io};

use blocks::Block;
use soe_core::config::{ValidateOptions, validate};
use soe_core::testing::MockLlm;

/// What is wrong, and where: `docs/router.md:17: ...`.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn add(&mut self, file: &Path, line: usize, problem: impl std::fmt::Display) {
        self.0.push(format!("{}:{line}: {problem}", shown(file)));
    }

    #[track_caller]
    fn assert_none(self) {
        assert!(self.0.is_empty(), "\n{}\n", self.0.join("\n"));
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A path as people know it, counted from the top of the repository.
fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// `README.md` and everything in `docs/`, with its text.
fn documents() -> io::Result<Vec<(PathBuf, String)>> {
    let mut files = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.retain(|file| file.exists());
    assert!(files.len() > 1, "there are no documents");
    let with_text = |file: PathBuf| fs::read_to_string(&file).map(|text| (file, text));
    files.into_iter().map(with_text).collect()
}

/// All fenced blocks, with the file that each stands in.
fn all_blocks() -> io::Result<Vec<(PathBuf, Block)>> {
    let blocks = |(file, text): (PathBuf, String)| {
        let blocks = blocks::of(&text);
        blocks.into_iter().map(move |block| (file.clone(), block))
    };
    Ok(documents()?.into_iter().flat_map(blocks).collect())
}

#[test]
fn every_block_says_what_it_is() {
    let mut failures = Failures::default();
    for (file, block) in all_blocks().unwrap() {
        match block.language() {
            "" => failures.add(
                &file,
                block.line,
                "the block names no language; write ```text for plain text",
            ),
            "yaml" => {
                for mark in block
                    .marks()
                    .filter(|mark| !["fragment", "mock", "run", "tools"].contains(mark))
                {
                    failures.add(&file, block.line, format!("unknown mark '{mark}' on a yaml block"));
                }
            }
            _ => {}
        }
    }
    failures.assert_none();
}

#[test]
fn workflows_are_valid() {
    let mut failures = Failures::default();
    let mut checked = 0;
    for (file, block) in all_blocks().unwrap() {
        let whole = !["fragment", "mock", "tools"].iter().any(|mark| block.has(mark));
        if block.language() != "yaml" || !whole {
            continue;
        }
        checked += 1;
        let report = validate(&block.text, &ValidateOptions::default());
        for problem in report.errors() {
            let line = block.line + problem.line.unwrap_or(0) as usize;
            failures.add(&file, line, problem);
        }
    }
    assert!(checked > 0, "no workflow was found");
    failures.assert_none();
}

#[test]
fn scripts_of_a_mock_are_valid() {
    let mut failures = Failures::default();
    for (file, block) in all_blocks().unwrap() {
        if block.language() == "yaml"
            && block.has("mock")
            && let Err(problem) = MockLlm::from_yaml(&block.text)
        {
            failures.add(&file, block.line, problem);
        }
    }
    failures.assert_none();
}

// Time passes only when nothing else happens: latencies and intervals order what happens, whatever the machine is doing.
#[tokio::test(start_paused = true)]
async fn workflows_that_can_be_run_do_what_they_say() {
    let mut failures = Failures::default();
    let mut ran = 0;
    for (file, block) in all_blocks().unwrap() {
        if block.language() == "yaml" && block.has("run") {
            ran += 1;
            if let Err(problem) = run::run(&block.text).await {
                failures.add(&file, block.line, problem);
            }
        }
    }
    assert!(ran > 0, "no workflow was run");
    failures.assert_none();
}

#[test]
fn links_lead_somewhere() {
    let documents = documents().unwrap();
    let mut failures = Failures::default();
    for (file, text) in &documents {
        for (line, target) in links::of(text) {
            if let Err(problem) = links::check(file, &target, &documents) {
                failures.add(file, line, problem);
            }
        }
    }
    failures.assert_none();
}

#[test]
fn rust_blocks_are_doctests() {
    let doctests = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs.rs")).unwrap();
    let mut failures = Failures::default();
    for (file, block) in all_blocks().unwrap() {
        let shown = shown(&file);
        let listed = match shown.strip_prefix("docs/") {
            Some(inside) => format!("\"{inside}\""),
            None => format!("\"../{shown}\""),
        };
        if block.language() == "rust" && !doctests.contains(&listed) {
            failures.add(
                &file,
                block.line,
                format!("add {listed} to tests/src/docs.rs, so that its Rust blocks are compiled"),
            );
        }
    }
    failures.assert_none();
}
