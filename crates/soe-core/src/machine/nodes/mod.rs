//! What is particular to each type of node that awaits something: its inputs, its completion.

mod custom;
mod tool;

use std::sync::Arc;

use soe_backends::{ApplyError, Change, Context, EventKind, Failure, Progress, Run, Status};

use super::transaction::{Applied, Transaction};
use super::{Effect, Outcome};
use crate::config::{Node, NodeKind};

impl Transaction<'_> {
    /// The effect that performs an attempt of a run.
    pub(super) fn effect_of(&mut self, run: u64, attempt: u32, node: &Arc<Node>, context: &Arc<Context>) -> Effect {
        match &node.kind {
            NodeKind::Tool(tool) => self.tool_effect(run, attempt, node, tool, context),
            _ => custom::effect(run, node, context),
        }
    }

    /// An attempt of a run is over.
    pub(super) fn complete(&mut self, number: u64, attempt: u32, outcome: Outcome) -> Applied {
        let in_flight = self.state().runs.get(&number).filter(|run| attempt_of(run) == attempt);
        let Some(run) = in_flight.filter(|_| self.is_running()).cloned() else {
            let status = self.state().status;
            self.event(EventKind::CompletionDiscarded { run: number, status });
            return Ok(());
        };
        let Some(node) = self.machine.node(&run.registry, &run.workflow, &run.node) else {
            return Err(ApplyError::Mismatch(
                "a run is pinned to a node that its registry doesn't have",
            ));
        };
        match (&node.kind, outcome) {
            (NodeKind::Tool(tool), Outcome::Tool(result)) => self.tool_completed(&run, attempt, &node, tool, result)?,
            (NodeKind::Custom(_), Outcome::Node(result)) => self.custom_completed(&run, &node, result)?,
            _ => return Err(ApplyError::Mismatch("a run completed as a node of another type")),
        }
        self.cascade()
    }

    /// Performs the runs in flight of a stored execution again, and goes on with its cascade.
    pub(super) fn recover(&mut self) -> Applied {
        if !self.is_running() {
            return Ok(());
        }
        self.change(Change::Status {
            status: Status::Running,
            at: self.at,
            failure: None,
        })?;
        let runs: Vec<Arc<Run>> = self.state().runs.values().cloned().collect();
        for run in runs {
            let node = self.machine.node(&run.registry, &run.workflow, &run.node);
            let context = self.state().snapshots.get(&run.snapshot).cloned();
            let (Some(node), Some(context)) = (node, context) else {
                return Err(ApplyError::Mismatch(
                    "a run in flight has lost its node or its snapshot",
                ));
            };
            let effect = self.effect_of(run.number, attempt_of(&run), &node, &context);
            self.effects.push(effect);
        }
        self.cascade()
    }
}

fn attempt_of(run: &Run) -> u32 {
    match run.progress {
        Progress::Tool { attempt } => attempt,
        _ => 1,
    }
}

/// Why a node of a type that this version doesn't run fails its execution.
pub(super) fn unsupported(node: &Node) -> Failure {
    let message = format!(
        "this version of the engine doesn't run nodes of type '{}'",
        node.type_name
    );
    Failure {
        message,
        node: Some(node.name.clone()),
        limit: None,
    }
}
