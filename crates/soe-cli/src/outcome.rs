//! What came of an execution and its tree, as a document.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use soe_backends::{ExecutionId, ExecutionState, Failure, Status, TreeState};

use crate::awaited::Awaited;
use crate::llm::LlmUsage;
use crate::waits::{Waiting, Waits};

/// The most executions that have failed that are named.
const MOST_FAILED: usize = 1_000;

/// How an execution ended, or where it stands: the last line of `--json`. What was used and what went wrong is said of the whole
/// tree.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) execution: ExecutionId,
    pub(crate) workflow: Arc<str>,
    pub(crate) status: Status,
    pub(crate) failure: Option<Arc<Failure>>,
    /// Signals that were never sent to it and that nothing in the workflow sends.
    pub(crate) waits_for: Vec<Arc<str>>,
    /// The executions of the tree that wait for a signal from outside.
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) signals: Vec<Arc<str>>,
    pub(crate) llm_calls: u64,
    /// Tokens that LLMs took, as the endpoints report them; `usage` has them apart.
    pub(crate) tokens: u64,
    pub(crate) usage: LlmUsage,
    pub(crate) tool_calls: u64,
    pub(crate) errors: u64,
    pub(crate) children: u64,
    /// The children that have failed.
    pub(crate) failed: Vec<Failed>,
    /// The fields with their current values.
    pub(crate) context: Map<String, Value>,
}

/// A child that has failed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failed {
    pub(crate) execution: ExecutionId,
    pub(crate) node: Arc<str>,
    pub(crate) failure: Option<Arc<Failure>>,
}

impl Outcome {
    pub(crate) fn new(
        tree: &TreeState,
        state: &ExecutionState,
        awaited: &Awaited,
        waits: &Waits,
        usage: LlmUsage,
    ) -> Self {
        let totals = Totals::of(tree);
        Self {
            execution: state.id.clone(),
            workflow: state.workflow.clone(),
            status: tree.status(state.number).unwrap_or(state.status),
            failure: state.failure.clone(),
            waits_for: awaited.all().cloned().collect(),
            waiting: waits.waiting.clone(),
            signals: state.context.operational.signals.iter().cloned().collect(),
            llm_calls: tree.used.llm_calls,
            tokens: tree.used.tokens,
            usage,
            tool_calls: tree.used.tool_calls,
            errors: totals.errors,
            children: tree.used.children,
            failed: totals.failed,
            context: current_values(state),
        }
    }
}

/// What is counted by looking at each execution of a tree.
#[derive(Default)]
pub(crate) struct Totals {
    /// Failed attempts of any kind.
    pub(crate) errors: u64,
    /// The children that have failed; of very many the first.
    pub(crate) failed: Vec<Failed>,
    pub(crate) failed_count: u64,
    /// The children by where they stand.
    pub(crate) running: u64,
    pub(crate) cancelled: u64,
}

impl Totals {
    pub(crate) fn of(tree: &TreeState) -> Self {
        let mut totals = Self::default();
        for state in tree.executions.values() {
            totals.errors = totals.errors.saturating_add(state.context.operational.errors);
            let Some(origin) = &state.origin else { continue };
            match tree.status(state.number) {
                Some(Status::Running) => totals.running += 1,
                Some(Status::Cancelled) => totals.cancelled += 1,
                Some(Status::Failed) => {
                    totals.failed_count += 1;
                    if totals.failed.len() < MOST_FAILED {
                        totals.failed.push(Failed {
                            execution: state.id.clone(),
                            node: origin.node.clone(),
                            failure: state.failure.clone(),
                        });
                    }
                }
                _ => {}
            }
        }
        totals
    }
}

pub(crate) fn current_values(state: &ExecutionState) -> Map<String, Value> {
    let fields = state.context.fields.iter();
    let current =
        |(name, history): (&Arc<str>, &soe_backends::History)| Some((name.to_string(), history.last()?.to_json()));
    fields.filter_map(current).collect()
}
