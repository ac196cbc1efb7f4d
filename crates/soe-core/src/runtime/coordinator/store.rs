//! Persisting what the machine says, then performing it.

use std::sync::Arc;

use soe_backends::{Posted, Status};

use super::super::EngineError;
use super::super::shared::{Message, ended};
use super::super::store::changes_workflows;
use super::super::taken::Taken;
use super::Coordinator;
use crate::machine::{Effect, Input};

/// What may be owed to stores of their own before the tree waits for them.
const MOST_UNPAID: usize = 10_000;

/// How many messages of the inbox are taken together.
const INBOX: usize = 64;

impl Coordinator {
    /// Persists, then performs.
    pub(super) async fn store(&mut self, mut taken: Taken) -> Result<(), EngineError> {
        let commits = std::mem::take(&mut taken.commits);
        if !commits.is_empty() {
            let other_workflows = commits.iter().any(changes_workflows);
            let after = Arc::new(self.machine.state().clone());
            if let Err(error) = self.claim.shared.commit(&self.claim.tree, commits, after).await {
                return Err(taken.fail(error));
            }
            self.stored = true;
            if other_workflows && let Some(root) = self.machine.state().root_state() {
                self.claim.shared.show_workflows(root).await;
            }
        }
        let effects = std::mem::take(&mut taken.effects);
        let paid = self.pay(&effects).await;
        if paid.is_ok() {
            self.perform(effects);
        }
        taken.answer();
        self.answer_waiters();
        paid
    }

    /// Gives stores of their own what commits owe them, before anybody acts on what these say.
    async fn pay(&mut self, effects: &[Effect]) -> Result<(), EngineError> {
        for effect in effects {
            if let Effect::Pay(owed) = effect {
                self.unpaid.definitions |= owed.definitions;
                self.unpaid.turns.extend_from_slice(&owed.turns);
                self.unpaid.events.extend_from_slice(&owed.events);
            }
        }
        if self.unpaid.is_empty() {
            return Ok(());
        }
        let needed = self.unpaid.definitions || !self.unpaid.turns.is_empty();
        match self.claim.shared.pay(self.machine.state(), &self.unpaid).await {
            Ok(()) => {
                self.machine.paid(&std::mem::take(&mut self.unpaid));
                Ok(())
            }
            // Telemetry alone may come later: it waits in the state, and the tree goes on.
            Err(error) if !needed && self.unpaid.events.len() < MOST_UNPAID => {
                tracing::warn!(error = %format_args!("{error:#}"), "events wait for the telemetry store");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Tries once more to pay what is owed.
    pub(super) async fn pay_debts(&mut self) {
        if let Err(error) = self.pay(&[]).await {
            tracing::warn!(error = %format_args!("{error:#}"), "a store of its own is owed something still");
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let performer = self.performer.clone();
        if self.is_running() {
            self.cause = None;
        }
        if self.missing.is_some() {
            return;
        }
        let tree = self.machine.state();
        let mut left: Vec<Effect> = Vec::with_capacity(effects.len());
        for effect in effects {
            let Effect::Abort { execution } = effect else {
                left.push(effect);
                continue;
            };
            performer.abort(tree, execution);
            // What came before an end is not begun any more, also if it was resumed since: that performs it again.
            let stays = |effect: &Effect| {
                !effect
                    .performs_for()
                    .is_some_and(|number| tree.is_within(number, execution))
            };
            left.retain(stays);
        }
        for effect in left {
            let tree = self.machine.state();
            if effect
                .performs_for()
                .is_some_and(|execution| tree.status(execution) != Some(Status::Running))
            {
                continue;
            }
            match effect {
                Effect::CallTool(call) => performer.call_tool(tree, call),
                Effect::RunNode(run) => performer.run_node(tree, run),
                Effect::CallLlm(call) => performer.call_llm(tree, call),
                Effect::Wait { execution, run, due } => performer.wait(tree, execution, run, due),
                Effect::Complete {
                    execution,
                    run,
                    attempt,
                    outcome,
                } => self.queue.push_back(Message::Completed {
                    execution,
                    run,
                    attempt,
                    outcome,
                    cause: None,
                }),
                _ => {}
            }
        }
        performer.forget(self.machine.state());
    }

    /// Tells those who wait for an execution that is at rest, or has ended.
    pub(super) fn answer_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let tree = self.machine.state();
        let is_over = |number: u64| tree.status(number) != Some(Status::Running);
        let (over, waiting) = self.waiters.drain(..).partition(|(number, _)| is_over(*number));
        self.waiters = waiting;
        let over: Vec<_> = over;
        for (number, reply) in over {
            let _ = reply.send(ended(tree, number, None));
        }
    }

    /// Takes what waits in the inbox, in its order: some of it, so that others have their turn in between.
    pub(super) async fn take_inbox(&mut self) -> Result<(), EngineError> {
        let posted = self.posted().await;
        match posted.is_empty() {
            true => Ok(()),
            false => self.take_posted(None, posted).await,
        }
    }

    /// What waits in the inbox. That it can't be read stops nothing: senders go on looking whether it was taken, and so does the
    /// engine.
    pub(super) async fn posted(&mut self) -> Vec<Posted> {
        let (shared, after) = (&self.claim.shared, self.machine.state().inbox);
        let posted = shared
            .call(shared.backends.context().inbox(&self.claim.tree, after, INBOX))
            .await;
        let posted = posted.unwrap_or_else(|error: EngineError| {
            tracing::warn!(error = %format_args!("{error:#}"), "the inbox can't be read");
            Vec::new()
        });
        self.look = posted.len() >= INBOX;
        posted
    }

    /// Takes messages of the inbox after another input, and stores all of it together.
    pub(super) async fn take_posted(&mut self, first: Option<Input>, posted: Vec<Posted>) -> Result<(), EngineError> {
        let mut taken = Taken::new(&self.claim.tree);
        for input in first.into_iter().chain(posted.into_iter().map(Input::Message)) {
            match self.machine.step(self.claim.shared.now(), input) {
                Ok(step) => taken.add(step, &mut self.more),
                Err(error) => return Err(taken.fail(EngineError::from(error).of(&self.claim.tree))),
            }
        }
        self.store(taken).await
    }
}
