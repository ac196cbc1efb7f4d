//! What is particular to each type of node that awaits something: its inputs, its completion.

mod agent;
mod child;
mod custom;
mod llm;
mod tool;

#[cfg(feature = "runtime")]
pub(crate) use child::could_be_a_childs;

use std::sync::Arc;

use soe_backends::{ApplyError, Awaits, Change, Context, DialogueStep, EventKind, Progress, Run, Status};

use super::Descend;
use super::transaction::{Applied, Transaction};
use super::{Effect, Outcome};
use crate::config::{Node, NodeKind};

impl Transaction<'_> {
    /// What comes with the dispatch of a run, before its effect.
    pub(super) fn begin_run(&mut self, run: u64, node: &Arc<Node>) -> Applied {
        match &node.kind {
            NodeKind::Child(child) => self.begin_children(run, node, child),
            NodeKind::Llm(_) => self.ask(run, node),
            NodeKind::Agent(agent) => {
                self.tools_loaded(run, node, agent);
                self.ask(run, node)
            }
            _ => Ok(()),
        }
    }

    /// The effect that performs an attempt of a run.
    pub(super) fn effect_of(
        &mut self,
        run: u64,
        attempt: u32,
        node: &Arc<Node>,
        context: &Arc<Context>,
    ) -> Result<Effect, ApplyError> {
        match &node.kind {
            NodeKind::Tool(tool) => Ok(self.tool_effect(run, attempt, node, tool, context)),
            NodeKind::Llm(_) | NodeKind::Agent(_) => self.llm_effect(run, node, context),
            NodeKind::Child(_) => self.spawn_effect(run, node, context),
            _ => Ok(custom::effect(run, node, context)),
        }
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
        let status = self.state().status;
        self.event(EventKind::CompletionDiscarded { run, status });
        Ok(())
    }

    /// An attempt of a run is over.
    pub(super) fn complete(&mut self, number: u64, attempt: u32, outcome: Outcome) -> Applied {
        let run = self.state().runs.get(&number);
        let in_flight = run.filter(|run| waits_for(run, attempt, &outcome));
        let Some(run) = in_flight.filter(|_| self.is_running()).cloned() else {
            return self.discarded(number);
        };
        let node = self.node_of(&run)?;
        match (&node.kind, outcome) {
            (NodeKind::Tool(tool), Outcome::Tool(result)) => self.tool_completed(&run, attempt, &node, tool, result)?,
            (NodeKind::Custom(_), Outcome::Node(result)) => self.custom_completed(&run, &node, result)?,
            (NodeKind::Child(_), Outcome::Spawned(result)) => self.spawned(&run, &node, result)?,
            (_, Outcome::Llm(answer)) => self.llm_answered(&run, &node, answer)?,
            (_, Outcome::AgentTool { index, result }) => self.agent_tool_completed(&run, &node, index, result)?,
            _ => return Err(ApplyError::Mismatch("a run completed as a node of another type")),
        }
        self.cascade()
    }

    /// Performs the runs in flight of a stored execution again, and goes on with its cascade.
    pub(super) fn recover(&mut self) -> Applied {
        if !self.state().turns.is_empty() {
            let turns = self.state().turns.clone();
            self.effects.push(Effect::StoreTurns(turns));
        }
        self.deliver_again();
        match self.state().status {
            Status::Running => {}
            // What was to be done to its children may not have been.
            Status::Cancelled => {
                self.descend(Descend::Cancel);
                return Ok(());
            }
            Status::Failed | Status::Suspended => {
                self.descend(Descend::Suspend);
                return Ok(());
            }
            _ => return Ok(()),
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
            match run.progress.dialogue() {
                Some(dialogue) if dialogue.awaits == Awaits::Tools => {
                    for index in dialogue.open.keys() {
                        self.call_tool(&run, &node, *index)?;
                    }
                }
                Some(dialogue) => {
                    // It is made again under the same number, and counts again: it may have reached the endpoint.
                    if dialogue.awaits == Awaits::Reply {
                        self.converse(run.number, DialogueStep::Lost)?;
                        self.same_protocol(&run, &node)?;
                        self.ask(run.number, &node)?;
                    }
                    let effect = self.llm_effect(run.number, &node, &context)?;
                    self.effects.push(effect);
                }
                None => {
                    let effect = self.effect_of(run.number, attempt_of(&run), &node, &context)?;
                    self.effects.push(effect);
                }
            }
        }
        self.cascade()
    }
}

/// Whether a run in flight waits for this outcome.
fn waits_for(run: &Run, attempt: u32, outcome: &Outcome) -> bool {
    match (run.progress.dialogue(), outcome) {
        (Some(dialogue), Outcome::Llm(_)) => dialogue.awaits == Awaits::Reply && dialogue.calls == attempt,
        (Some(dialogue), Outcome::AgentTool { index, .. }) => dialogue.open.get(index) == Some(&attempt),
        (None, Outcome::Tool(_) | Outcome::Node(_) | Outcome::Spawned(_)) => attempt_of(run) == attempt,
        _ => false,
    }
}

fn attempt_of(run: &Run) -> u32 {
    match run.progress {
        Progress::Tool { attempt } => attempt,
        Progress::Child(spawning) => u32::try_from(spawning.next).unwrap_or(u32::MAX),
        _ => 1,
    }
}
