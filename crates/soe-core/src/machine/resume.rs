//! Going on with a tree: one that was loaded, and what has failed in it.

use std::sync::Arc;

use soe_backends::{
    ApplyError, Awaits, Change, DialogueStep, EventKind, ExecutionChange, Limits, Progress, Run, Status, Stopped,
};

use super::nodes::attempt_of;
use super::transaction::{Applied, Transaction};
use super::{Effect, MachineError};
use crate::config::NodeKind;

impl Transaction<'_> {
    /// Performs again what is under way in a stored tree, and goes on with its work list.
    ///
    /// | of an execution | what happens |
    /// |---|---|
    /// | running | its runs in flight are performed again, under their numbers |
    /// | prepared, rested | nothing: there is nothing in flight |
    /// | failed, cancelled, or below such a one | nothing: its end holds |
    pub(super) fn recover(&mut self) -> Applied {
        self.machine.under_way = true;
        let owed = self.machine.state.owed.as_ref().clone();
        if !owed.is_empty() {
            self.effects.push(Effect::Pay(owed));
        }
        if !self
            .machine
            .state
            .root_state()
            .is_some_and(|root| root.status == Status::Running)
        {
            return Ok(());
        }
        self.enter(0)?;
        // The time since the last commit doesn't count as active.
        self.change(ExecutionChange::Status {
            status: Status::Running,
            at: self.at,
            failure: None,
        })?;
        for execution in self.alive(0) {
            self.enter(execution)?;
            self.perform_again(None)?;
        }
        Ok(())
    }

    /// Goes on with an execution that has failed and all below it that stopped with it, or because of which it failed.
    pub(super) fn resume(&mut self, execution: u64, limits: Option<Arc<Limits>>) -> Result<(), MachineError> {
        self.enter(execution).map_err(|_| MachineError::NoSuchExecution)?;
        if let Some(above) = self
            .machine
            .state
            .ended_at(execution)
            .filter(|above| above.number != execution)
        {
            return Err(MachineError::EndedAbove(above.id.clone(), above.status));
        }
        if self.state().status == Status::Cancelled {
            return Err(MachineError::NotAccepting(Status::Cancelled));
        }
        let limits = limits.filter(|limits| limits != self.limits());
        if let Some(limits) = limits {
            self.apply(Change::Limits(limits))?;
        }
        if self.state().status == Status::Failed {
            self.resume_failed(execution)?;
        }
        Ok(())
    }

    fn resume_failed(&mut self, execution: u64) -> Applied {
        let mut failed = Vec::new();
        let mut left = vec![execution];
        while let Some(number) = left.pop() {
            let Some(state) = self.machine.state.get(number) else {
                continue;
            };
            let handled = number != execution
                && state
                    .origin
                    .as_ref()
                    .is_some_and(|origin| origin.failure_signal.is_some());
            if state.status == Status::Cancelled || state.status == Status::Failed && handled {
                continue;
            }
            if state.status == Status::Failed {
                failed.push(number);
            }
            left.extend(state.children.iter().flat_map(|children| children.numbers()));
        }
        let mut nodes = std::collections::BTreeMap::new();
        for number in failed {
            self.enter(number)?;
            if let Some(node) = self.state().failure.as_ref().and_then(|failure| failure.node.clone()) {
                nodes.insert(number, node);
            }
            self.event(EventKind::ExecutionResumed {
                runs: self.state().runs.len() as u64,
            });
            let stopped = self.state().stopped.clone();
            self.change(ExecutionChange::Status {
                status: Status::Running,
                at: self.at,
                failure: None,
            })?;
            if let Some(stopped) = stopped {
                self.change(ExecutionChange::Stopped(None))?;
                self.put_back(&stopped)?;
            }
        }
        self.wake_above(execution)?;
        for number in self.alive(execution) {
            self.enter(number)?;
            self.perform_again(nodes.get(&number))?;
        }
        Ok(())
    }

    /// Makes what is above a resumed execution run.
    fn wake_above(&mut self, execution: u64) -> Applied {
        self.enter(execution)?;
        match self.state().parent() {
            Some(parent) => {
                self.enter(parent)?;
                self.wake()
            }
            None => Ok(()),
        }
    }

    /// Puts back what an execution had on the work list.
    fn put_back(&mut self, stopped: &Stopped) -> Applied {
        for frame in &stopped.stack {
            let cursor = self.machine.cursor(frame);
            let lost = ApplyError::Mismatch("its work list refers to a workflow that the registry doesn't have");
            self.machine.stack.push(cursor.ok_or(lost)?);
        }
        self.work.deliveries.extend(stopped.deliveries.iter().cloned());
        self.work.accepted.extend(stopped.accepted.iter().cloned());
        Ok(())
    }

    /// The executions from this one downwards that run.
    fn alive(&self, execution: u64) -> Vec<u64> {
        let tree = &self.machine.state;
        let mut alive = Vec::new();
        let mut left = vec![execution];
        while let Some(state) = left.pop().and_then(|number| tree.get(number)) {
            if state.status == Status::Running {
                alive.push(state.number);
                left.extend(state.children.iter().flat_map(|children| children.numbers()));
            }
        }
        alive.sort_unstable();
        alive
    }

    /// Performs the runs in flight of an execution again. The run of the node `failed` has failed it.
    fn perform_again(&mut self, failed: Option<&Arc<str>>) -> Applied {
        let runs: Vec<Arc<Run>> = self.state().runs.values().cloned().collect();
        let here = self.here;
        for run in runs {
            self.enter(here)?;
            if self.is_running() {
                self.run_again(&run, failed == Some(&run.node))?;
            }
        }
        Ok(())
    }

    fn run_again(&mut self, run: &Arc<Run>, failed: bool) -> Applied {
        let (node, context) = (self.node_of(run)?, self.snapshot(run)?);
        let awaits = run.progress.dialogue().map(|dialogue| dialogue.awaits);
        if self.depth_first() && !matches!(run.progress, Progress::Child(_)) {
            self.machine.awaited.insert((self.here, run.number));
        }
        if failed && awaits.is_some() {
            self.converse(run.number, DialogueStep::Resumed)?;
        }
        match (awaits, &node.kind) {
            (Some(Awaits::Tools), NodeKind::Agent(agent)) => {
                let open: Vec<u32> = self.dialogue(run.number)?.open.keys().copied().collect();
                for index in &open {
                    self.call_tool(run, &node, *index)?;
                }
                if open.is_empty() {
                    let stage = self.turn_stage(agent);
                    self.converse(run.number, DialogueStep::Question(stage.into()))?;
                    self.ask_next(run, &node)?;
                }
                Ok(())
            }
            (Some(awaits), _) => {
                if awaits == Awaits::Reply {
                    if !failed {
                        // It is made again under the same number, and counts again: it may have reached the endpoint.
                        self.converse(run.number, DialogueStep::Lost)?;
                    }
                    self.same_protocol(run, &node)?;
                    self.ask(run.number, &node)?;
                }
                self.perform_llm(run.number, &node, &context)
            }
            (None, NodeKind::Child(_)) => {
                // A limit may have come before its beginning.
                if matches!(&run.progress, Progress::Child(spawning) if spawning.total.is_none()) {
                    self.begin_children(run.number, &node, &context)?;
                }
                match self.is_running() {
                    true => self.spawn_again(run.number),
                    false => Ok(()),
                }
            }
            (None, _) => self.perform(run.number, attempt_of(run), &node, &context),
        }
    }
}
