//! Tools that are commands: described in a tools file, run as processes of their own.

mod command;
mod fields;
mod file;
mod parameters;
mod position;
mod process;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use soe_core::tools::{ToolRegistry, builtin};

use crate::problems::{Problem, Source};

pub(crate) use position::Positions;
pub(crate) use process::kill_all;

/// The name of the tools file that is used without being named.
pub(crate) const DEFAULT_FILE: &str = "tools.yaml";

/// The tools of all tools files of a command.
pub(crate) struct Loaded {
    pub(crate) registry: ToolRegistry,
    /// The names that the files give, those with problems included, and those of the built-in tools.
    pub(crate) names: BTreeSet<String>,
    /// What is wrong with each file.
    pub(crate) files: Vec<(Source, Vec<Problem>)>,
    pub(crate) paths: Vec<PathBuf>,
}

impl Loaded {
    pub(crate) fn is_usable(&self) -> bool {
        !self
            .files
            .iter()
            .any(|(_, problems)| problems.iter().any(Problem::is_error))
    }

    /// The signals that tools send when they have failed.
    pub(crate) fn failure_signals(&self) -> impl Iterator<Item = String> {
        let signals = self.registry.specs();
        let signals: Vec<_> = signals
            .iter()
            .filter_map(|spec| spec.failure_signal.as_deref())
            .map(str::to_owned)
            .collect();
        signals.into_iter()
    }
}

/// Reads tools files. What is wrong inside them is in the result; one that can't be read is an error.
pub(crate) fn load(paths: &[PathBuf]) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded {
        registry: ToolRegistry::new(),
        names: builtin::names().map(str::to_owned).collect(),
        files: Vec::new(),
        paths: paths.to_vec(),
    };
    for path in paths {
        let source = Source::read(path).context("the tools file")?;
        let problems = file::read(&source, &mut loaded.registry, &mut loaded.names);
        loaded.files.push((source, problems));
    }
    Ok(loaded)
}

/// The tools files for a workflow file: those that are named, else the one beside it.
pub(crate) fn files_for(named: &[PathBuf], workflow: &Source) -> Vec<PathBuf> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let beside = workflow.folder.as_ref().map(|folder| folder.join(DEFAULT_FILE));
    beside.into_iter().filter(|path| path.is_file()).collect()
}

/// Whether a file is a tools file by its name.
pub(crate) fn is_tools_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == DEFAULT_FILE || name.ends_with(&format!(".{DEFAULT_FILE}"))
}
