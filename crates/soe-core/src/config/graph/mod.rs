//! What can be seen in the graph of nodes and signals. All of it is warnings: signals can come from outside, and nodes
//! can be injected while a workflow runs.

mod joins;
mod loops;
mod reach;
mod signals;
mod source;
mod terms;

use std::sync::Arc;

use indexmap::IndexMap;

use self::signals::{SignalGraph, children_by_workflow};
use self::source::Source;
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
    let children = children_by_workflow(workflows);
    let source = Source(checked);
    let mut budget = joins::Budget::default();
    for name in checked.keys() {
        let Some(workflow) = workflows.get(name) else {
            continue;
        };
        let graph = SignalGraph::new(workflow);
        // Without the workflows that couldn't be read, it isn't known what is sent to this one.
        if complete {
            let starters = children.get(name.as_ref()).map_or(&[][..], Vec::as_slice);
            reach::check(name, &graph, starters, workflows, options, source, problems);
        }
        loops::check(name, &graph, source, problems);
        joins::check(name, &graph, source, &mut budget, problems);
    }
    budget.report(problems);
}
