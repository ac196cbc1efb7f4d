//! Going on with an execution: one that was loaded, one that has failed or was suspended.

use std::sync::Arc;

use soe_backends::{
    Awaits, Change, ChildStatus, DialogueStep, EventKind, ExecutionId, Limits, Progress, Run, Status, Tell,
};

use super::nodes::attempt_of;
use super::transaction::{Applied, Transaction};
use super::{Descend, Effect, Heard};
use crate::config::NodeKind;

impl Transaction<'_> {
    /// Performs again what is under way in a stored execution, and goes on with its cascade.
    pub(super) fn recover(&mut self) -> Applied {
        self.machine.under_way = true;
        self.store_turns_again();
        self.deliver_again();
        let descending = self.family().is_some_and(|family| family.descending);
        match self.state().status {
            Status::Running => {}
            status => {
                match status {
                    _ if !descending => {}
                    Status::Cancelled => self.descend(Descend::Cancel),
                    Status::Failed | Status::Suspended => self.descend(Descend::Suspend),
                    _ => self.descend_to_children(),
                }
                return Ok(());
            }
        }
        self.change(Change::Status {
            status: Status::Running,
            at: self.at,
            failure: None,
        })?;
        self.go_on(None)
    }

    /// Goes on with an execution that has failed or is suspended; sees to it that others are taken up.
    pub(super) fn resume(&mut self, limits: Option<Arc<Limits>>, parent: Option<Heard>) -> Applied {
        let changed = limits.filter(|limits| *limits != self.state().limits);
        let more = changed.is_some();
        if let Some(limits) = changed {
            self.change(Change::Limits(limits))?;
        }
        let fresh = !std::mem::replace(&mut self.machine.under_way, true);
        if let Some(received) = parent.map(|parent| parent.received)
            && self.has_unacknowledged(received)
        {
            self.change(Change::Acknowledged(received))?;
        }
        let told = self.family().map_or(0, |family| family.told);
        let unheard = parent.is_some_and(|parent| told > parent.received);
        match self.state().status {
            Status::Running if fresh => self.recover(),
            Status::Running => {
                if unheard {
                    self.deliver_again();
                }
                if more || self.family().is_some_and(|family| family.descending) {
                    self.descend_to_children();
                }
                self.cascade()
            }
            // The parent makes of a failure what it would have made of it without the interruption.
            Status::Failed | Status::Suspended if !(unheard && self.state().status == Status::Failed) => {
                if fresh {
                    self.store_turns_again();
                }
                if !unheard && parent.is_some_and(|parent| !parent.waits) {
                    // For the parent it rests.
                    self.status_before = Status::Rested;
                }
                self.resumed()?;
                if self.status_before == self.state().status {
                    // It has failed again at once: the parent, which takes it for active, has to hear of that.
                    self.status_before = Status::Running;
                }
                Ok(())
            }
            status => {
                if fresh {
                    self.recover()?;
                } else if unheard {
                    self.deliver_again();
                }
                match parent {
                    Some(Heard { waits: true, .. }) if status == Status::Rested && !unheard => self.tell(Tell {
                        status: Some(ChildStatus::Rested),
                        ..Tell::default()
                    }),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Before an execution that was only loaded to be stopped is: nobody does what is left to do for it.
    pub(super) fn catch_up(&mut self) -> Applied {
        match self.state().status {
            _ if self.machine.under_way => Ok(()),
            Status::Running => {
                self.machine.under_way = true;
                self.store_turns_again();
                self.deliver_again();
                Ok(())
            }
            _ => self.recover(),
        }
    }

    /// Stores turns that may not be in their store yet, before anything else is done for the execution.
    fn store_turns_again(&mut self) {
        if !self.state().turns.is_empty() {
            let turns = self.state().turns.clone();
            self.effects.push(Effect::StoreTurns(turns));
        }
    }

    fn resumed(&mut self) -> Applied {
        let failed = self.state().failure.as_ref().and_then(|failure| failure.node.clone());
        self.event(EventKind::ExecutionResumed {
            runs: self.state().runs.len() as u64,
        });
        self.change(Change::Status {
            status: Status::Running,
            at: self.at,
            failure: None,
        })?;
        self.deliver_again();
        let children = self.family().into_iter().flat_map(|family| &family.children);
        let stopped =
            children.filter(|(_, child)| child.status == ChildStatus::Failed && child.failure_signal.is_none());
        let stopped: Vec<ExecutionId> = stopped.map(|(id, _)| id.clone()).collect();
        for child in stopped {
            self.change(Change::Revived { child })?;
        }
        self.must_descend()?;
        self.go_on(failed.as_ref())
    }

    /// Performs the runs in flight again, has the children go on, and works the cascade off. The run of the node `failed`
    /// has failed the execution.
    fn go_on(&mut self, failed: Option<&Arc<str>>) -> Applied {
        let runs: Vec<Arc<Run>> = self.state().runs.values().cloned().collect();
        for run in runs {
            if self.is_running() {
                self.run_again(&run, failed == Some(&run.node))?;
            }
        }
        if self.is_running() {
            self.descend_to_children();
        }
        self.cascade()
    }

    /// Has the children go on that aren't over.
    fn descend_to_children(&mut self) {
        self.descend(Descend::Resume {
            limits: self.state().limits.clone(),
        });
    }

    fn run_again(&mut self, run: &Arc<Run>, failed: bool) -> Applied {
        let (node, context) = (self.node_of(run)?, self.snapshot(run)?);
        let awaits = run.progress.dialogue().map(|dialogue| dialogue.awaits);
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
                let effect = self.llm_effect(run.number, &node, &context)?;
                self.effects.push(effect);
            }
            (None, kind) => {
                // A limit may have come before its beginning.
                if let (NodeKind::Child(child), Progress::Child(spawning)) = (kind, &run.progress)
                    && spawning.total == 0
                {
                    self.begin_children(run.number, &node, child, &context)?;
                }
                let attempt = self.state().runs.get(&run.number).map_or(1, |run| attempt_of(run));
                if self.is_running() {
                    let effect = self.effect_of(run.number, attempt, &node, &context)?;
                    self.effects.push(effect);
                }
            }
        }
        Ok(())
    }

    /// The last effects of an execution that takes no signals are performed.
    pub(super) fn settled(&mut self) -> Applied {
        if self.family().is_some_and(|family| family.descending) && !self.is_unheard() {
            self.change(Change::Descending(false))?;
        }
        let stored = std::mem::take(&mut self.machine.turns_stored);
        match stored {
            0 => Ok(()),
            stored => self.change(Change::TurnsStored(stored)),
        }
    }
}
