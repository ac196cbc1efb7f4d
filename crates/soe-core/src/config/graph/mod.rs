//! What can be seen in the graph of nodes and signals.

use std::sync::Arc;

use indexmap::IndexMap;

use super::diagnostic::Problems;
use super::yaml::Mapping;
use super::{ValidateOptions, Workflow};

/// Warns about the workflows in `checked`. `workflows` are all that could be read; `complete` says whether none is missing.
pub(super) fn check(
    workflows: &IndexMap<Arc<str>, Arc<Workflow>>,
    checked: &Mapping,
    complete: bool,
    options: &ValidateOptions,
    problems: &mut Problems,
) {
    let _ = (workflows, checked, complete, options, problems);
}
