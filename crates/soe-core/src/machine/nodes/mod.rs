//! What is particular to each type of node that awaits something: its inputs, its completion.

mod agent;
mod child;
mod custom;
mod llm;
mod tool;

pub(super) use child::Brood;

use std::sync::Arc;

use soe_backends::{ApplyError, Awaits, Context, EventKind, Progress, Run};

use super::Outcome;
use super::transaction::{Applied, Transaction};
use crate::config::{Node, NodeKind};

impl Transaction<'_> {
    /// What comes with the dispatch of a run, before its effect.
    pub(super) fn begin_run(&mut self, run: u64, node: &Arc<Node>) -> Applied {
        match &node.kind {
            NodeKind::Child(_) => {
                let context = self.state().context.clone();
                self.begin_children(run, node, &context)
            }
            NodeKind::Llm(_) => self.ask(run, node),
            NodeKind::Agent(agent) => {
                self.tools_loaded(run, node, agent);
                self.ask(run, node)
            }
            _ => Ok(()),
        }
    }

    /// Performs an attempt of a run that starts no children.
    pub(super) fn perform(&mut self, run: u64, attempt: u32, node: &Arc<Node>, context: &Arc<Context>) -> Applied {
        let effect = match &node.kind {
            NodeKind::Tool(tool) => self.tool_effect(run, attempt, node, tool, context),
            NodeKind::Llm(_) | NodeKind::Agent(_) => return self.perform_llm(run, node, context),
            _ => self.custom_effect(run, node, context),
        };
        self.effects.push(effect);
        Ok(())
    }

    /// The node that a run is pinned to.
    pub(super) fn node_of(&self, run: &Run) -> Result<Arc<Node>, ApplyError> {
        let node = self.machine.node(&run.registry, &run.workflow, &run.node);
        node.ok_or(ApplyError::Mismatch(
            "a run is pinned to a node that its registry doesn't have",
        ))
    }

    /// Something came for a run that doesn't wait for it any more.
    fn discarded(&mut self, run: u64) -> Applied {
        let status = self.status();
        self.event(EventKind::CompletionDiscarded { run, status });
        Ok(())
    }

    /// An attempt of a run is over.
    pub(super) fn complete(&mut self, number: u64, attempt: u32, outcome: Outcome) -> Applied {
        let run = self.state().runs.get(number);
        let in_flight = run.filter(|run| waits_for(run, attempt, &outcome));
        let Some(run) = in_flight.filter(|_| self.is_running()).cloned() else {
            return self.discarded(number);
        };
        let node = self.node_of(&run)?;
        match (&node.kind, outcome) {
            (NodeKind::Tool(tool), Outcome::Tool(result)) => self.tool_completed(&run, attempt, &node, tool, result)?,
            (NodeKind::Custom(_), Outcome::Node(result)) => self.custom_completed(&run, &node, result)?,
            (_, Outcome::Llm(answer)) => self.llm_answered(&run, &node, answer)?,
            (_, Outcome::AgentTool { index, result }) => self.agent_tool_completed(&run, &node, index, result)?,
            _ => return Err(ApplyError::Mismatch("a run completed as a node of another type")),
        }
        Ok(())
    }
}

/// Whether a run in flight waits for this outcome.
fn waits_for(run: &Run, attempt: u32, outcome: &Outcome) -> bool {
    match (run.progress.dialogue(), outcome) {
        (Some(dialogue), Outcome::Llm(_)) => dialogue.awaits == Awaits::Reply && dialogue.calls == attempt,
        (Some(dialogue), Outcome::AgentTool { index, .. }) => dialogue.open.get(index) == Some(&attempt),
        (None, Outcome::Tool(_) | Outcome::Node(_)) => attempt_of(run) == attempt,
        _ => false,
    }
}

pub(super) fn attempt_of(run: &Run) -> u32 {
    match run.progress {
        Progress::Tool { attempt } => attempt,
        _ => 1,
    }
}
