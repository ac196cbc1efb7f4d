//! From a document to typed workflows: every field is checked where it is read, and reading goes on after a problem.

mod emissions;
mod fields;
mod kinds;
mod names;
mod references;
mod stored;
mod suspicious;
mod workflow;

use std::collections::HashSet;
use std::sync::Arc;

pub(crate) use names::{closest, similar_signals};
pub(crate) use references::check_references;
pub(crate) use stored::{path_of, tree_of_json, tree_of_stored, tree_of_value, value_or_problem};
pub(crate) use suspicious::check_shadowing;
pub(crate) use workflow::{read_node, read_workflow};

use super::ValidateOptions;

/// What a node is checked against, beside itself.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) options: &'a ValidateOptions,
    /// The names of all workflows; `None` if children may name any.
    pub(crate) workflows: Option<&'a HashSet<Arc<str>>>,
    /// Whether it was accepted before, and is only read again: then a workflow may have lost its nodes, and node types
    /// were compared with what was registered at the time.
    pub(crate) stored: bool,
}

/// What a configuration may nest, and what a value that was never text may nest as well.
pub(crate) const MAX_DEPTH: usize = 128;
