//! Persisting what the machine says, then performing it.

use std::sync::Arc;

use soe_backends::Status;

use super::super::EngineError;
use super::super::shared::Message;
use super::super::store::changes_workflows;
use super::super::taken::Taken;
use super::Coordinator;
use crate::machine::{Denial, Effect, Spawn};

impl Coordinator {
    /// Persists, then performs.
    pub(super) async fn store(&mut self, mut taken: Taken) -> Result<(), EngineError> {
        let commits = std::mem::take(&mut taken.commits);
        let other_workflows = commits.iter().any(changes_workflows);
        if let Err(error) = self.claim.shared.commit(&self.claim.execution, commits).await {
            return Err(taken.fail(error));
        }
        if other_workflows {
            self.claim.shared.show_workflows(self.machine.state()).await;
        }
        let effects = std::mem::take(&mut taken.effects);
        let turns = self.store_turns(&effects).await;
        if turns.is_ok() {
            self.perform(effects);
        }
        taken.answer();
        turns
    }

    /// Puts turns of the conversation into their store before anybody acts on what they follow.
    async fn store_turns(&mut self, effects: &[Effect]) -> Result<(), EngineError> {
        let shared = self.claim.shared.clone();
        for effect in effects {
            let (Effect::StoreTurns(turns), Some(store)) = (effect, shared.backends.conversations()) else {
                continue;
            };
            let stored = shared.call(store.append_turns(&self.performer.main, turns)).await;
            stored.map_err(|error| error.of(&self.claim.execution))?;
            self.machine.turns_stored(turns.len());
        }
        Ok(())
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        // All runs of an execution are aborted together: when it has failed or is cancelled. What was dispatched just
        // before is not begun any more.
        let aborted = effects.iter().any(|effect| matches!(effect, Effect::Abort { .. }));
        if aborted {
            self.performer.run.cancellation.cancel();
        } else if self.performer.run.cancellation.is_cancelled() && self.machine.state().status == Status::Running {
            // It was resumed.
            self.performer = Arc::new(self.performer.resumed(&self.claim, &self.machine));
            self.cause = None;
        }
        for effect in effects {
            match effect {
                Effect::Tell { parent, message } => self.performer.tell(parent, message),
                Effect::Acknowledge { child, number } => {
                    if let Some(reply) = self.answers.remove(&(child, number)) {
                        // Whoever delivered it may be gone: then it comes again.
                        let _ = reply.send(Ok(()));
                    }
                }
                Effect::Descend { what, children } => {
                    self.descents += 1;
                    self.performer.descend(what, children);
                }
                _ if aborted => {}
                Effect::Spawn(spawn) => self.spawn(spawn),
                Effect::CallTool(call) => self.performer.call_tool(call),
                Effect::RunNode(run) => self.performer.run_node(run),
                Effect::CallLlm(call) => self.performer.call_llm(call),
                Effect::Reserve { run, call } => {
                    let denied = self.reserve();
                    self.queue.push_back(Message::Granted { run, call, denied });
                }
                Effect::Complete { run, attempt, outcome } => {
                    self.queue.push_back(Message::Completed {
                        run,
                        attempt,
                        outcome,
                        cause: None,
                    });
                }
                Effect::Continue => self.more = true,
                Effect::StoreTurns(_) | Effect::Abort { .. } | Effect::Answer { .. } => {}
            }
        }
    }

    /// Creates children, if the tree may have so many more.
    fn spawn(&mut self, spawn: Spawn) {
        let allowed = self.machine.state().limits.children;
        let reserved = match self.recovering {
            // They are registered, and so known already.
            true => Ok(()),
            false => self.performer.budget.reserve_children(spawn.children.len(), allowed),
        };
        match reserved {
            Ok(()) => self.performer.spawn_children(spawn),
            Err(denial) => self.queue.push_back(Message::Exceeded(denial)),
        }
    }

    /// Reserves a request to an LLM; gives the reason if none may be made.
    pub(super) fn reserve(&self) -> Option<Denial> {
        self.performer.budget.reserve(&self.machine.state().limits).err()
    }
}
