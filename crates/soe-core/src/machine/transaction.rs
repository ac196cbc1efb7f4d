//! One event, while it is being worked off: changes are applied as they are made, and collected for the commit.

use std::sync::Arc;

use soe_backends::{
    ApplyError, Batch, Change, Commit, Definitions, Event, EventKind, Excess, ExecutionState, Failure, Frame, Genesis,
    Owner, RegistryDocument, Run, Status, Timestamp, TreeTurns, Turn, Value,
};

use super::{Descend, Effect, Inherited, Machine, Step};
use crate::config::Node;

pub(super) struct Transaction<'m> {
    pub(super) machine: &'m mut Machine,
    pub(super) at: Timestamp,
    changes: Vec<Change>,
    events: Vec<Event>,
    pub(super) effects: Vec<Effect>,
    /// The registry that this event makes.
    pub(super) registry: Option<Arc<RegistryDocument>>,
    /// What the tree shares after this event, if it changes that.
    pub(super) definitions: Option<Box<Definitions>>,
    /// What this event adds to the conversation history.
    pub(super) turns: Vec<Turn>,
    /// The runs that this event dispatches, with their nodes; their inputs are the context at the event's end.
    pub(super) dispatched: Vec<(u64, Arc<Node>)>,
    /// Where the execution stood before the event.
    pub(super) status_before: Status,
    /// The messages that it had told its parent before the event.
    pub(super) told_before: u64,
    /// Routers since the last time that the driver had its turn.
    pub(super) pure_steps: usize,
}

pub(super) type Applied = Result<(), ApplyError>;

impl<'m> Transaction<'m> {
    pub(super) fn begin(machine: &'m mut Machine, at: Timestamp) -> Self {
        let (status_before, told_before) = (
            machine.state.status,
            machine.state.family.as_ref().map_or(0, |f| f.told),
        );
        Self {
            machine,
            at,
            status_before,
            told_before,
            // Enough for a completion and its first broadcasts without growing.
            changes: Vec::with_capacity(8),
            events: Vec::with_capacity(8),
            effects: Vec::new(),
            registry: None,
            definitions: None,
            turns: Vec::new(),
            dispatched: Vec::new(),
            pure_steps: 0,
        }
    }

    pub(super) fn state(&self) -> &ExecutionState {
        &self.machine.state
    }

    pub(super) fn is_running(&self) -> bool {
        self.state().status == Status::Running
    }

    /// Records the creation; the machine's state has it already.
    pub(super) fn created(&mut self, genesis: Genesis) {
        self.changes.push(Change::Created(Box::new(genesis)));
    }

    /// The first events of an execution.
    pub(super) fn begin_events(&mut self, workflow_name: Arc<str>, inherited: Inherited) {
        if let Some(source_execution_id) = inherited.config_from {
            self.event(EventKind::ConfigInheritanceStart { source_execution_id });
        }
        self.event(EventKind::OrchestrationStart { workflow_name });
        if let Some(source_execution_id) = inherited.context_from {
            self.event(EventKind::ContextInheritanceStart { source_execution_id });
            if !inherited.merged.is_empty() {
                let fields = inherited.merged.into();
                self.event(EventKind::ContextMerge { fields });
            }
        }
    }

    pub(super) fn change(&mut self, change: Change) -> Applied {
        self.machine.state.change(&change)?;
        self.changes.push(change);
        Ok(())
    }

    /// How many changes were made so far.
    pub(super) fn changed(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn event(&mut self, kind: EventKind) {
        let seq = self.state().next_event + self.events.len() as u64;
        self.events.push(Event {
            seq,
            time: self.at,
            kind,
        });
    }

    pub(super) fn warn(&mut self, node: &Arc<str>, message: impl Into<Arc<str>>) {
        self.event(EventKind::ContextWarning {
            node_name: node.clone(),
            message: message.into(),
        });
    }

    /// Ends a run with what it wrote. If that exceeds a limit, the execution fails instead, with the run still in flight, so
    /// that it can be resumed under other limits; then this is false.
    pub(super) fn finish_with(
        &mut self,
        run: &Run,
        node: &Node,
        writes: Vec<(Arc<str>, Value)>,
    ) -> Result<bool, ApplyError> {
        let limits = self.state().limits.clone();
        let mut total = self.state().context_bytes;
        let mut sized = Vec::with_capacity(writes.len());
        for (field, value) in writes.into_iter().filter(|(_, value)| !value.is_null()) {
            let size = match value.size_within(limits.value_bytes, Value::MAX_DEPTH) {
                Ok(size) => size,
                Err(excess) => return self.fail_for_excess(node, &field, excess).map(|()| false),
            };
            total = total.saturating_add(size);
            if total > limits.context_bytes {
                let allowed = limits.context_bytes;
                let message = format!("with field '{field}' the context has {total} bytes, {allowed} are allowed");
                return self.fail_for_limit("context_bytes", message).map(|()| false);
            }
            sized.push((field, value, size));
        }
        let duration_us = u64::try_from(self.at.since(run.started_at).as_micros()).unwrap_or(u64::MAX);
        let dialogue = self
            .state()
            .runs
            .get(&run.number)
            .and_then(|run| run.progress.dialogue());
        let tokens = dialogue.map(|dialogue| dialogue.tokens);
        self.change(Change::Finished { run: run.number })?;
        self.event(EventKind::NodeFinished {
            node_name: node.name.clone(),
            run: run.number,
            duration_us,
            tokens,
        });
        for (field, value, size) in sized {
            self.append(field, value, size)?;
        }
        Ok(true)
    }

    /// Appends a value of a size that is known to be allowed.
    pub(super) fn append(&mut self, field: Arc<str>, value: Value, size: u64) -> Applied {
        self.change(Change::Appended {
            field: field.clone(),
            value,
            size,
        })?;
        let history = self.state().context.history(&field);
        let length = history.map_or(0, |history| history.len() as u64);
        self.event(EventKind::ContextUpdated { field, length });
        Ok(())
    }

    /// Makes a resting execution run.
    pub(super) fn wake(&mut self) -> Applied {
        if self.is_running() {
            return Ok(());
        }
        self.change(Change::Status {
            status: Status::Running,
            at: self.at,
            failure: None,
        })
    }

    /// Dispatches a run of `node`: it gets the context as of the end of this event.
    pub(super) fn dispatch(&mut self, node: &Arc<Node>, progress: soe_backends::Progress) -> Applied {
        let state = self.state();
        let run = Run {
            number: state.next_run,
            node: node.name.clone(),
            workflow: state.workflow.clone(),
            registry: self.machine.registry_of_listener(node),
            snapshot: state.version + 1,
            started_at: self.at,
            progress,
        };
        self.put_in_flight(run, node, Change::Dispatched)
    }

    /// Puts a run in flight by this change.
    pub(super) fn put_in_flight(&mut self, run: Run, node: &Arc<Node>, change: fn(Arc<Run>) -> Change) -> Applied {
        let number = run.number;
        self.change(change(Arc::new(run)))?;
        self.event(EventKind::NodeExecution {
            node_name: node.name.clone(),
            node_type: node.type_name.clone(),
            run: Some(number),
        });
        self.dispatched.push((number, node.clone()));
        Ok(())
    }

    /// Takes signals from outside: at once, or when the cascade in progress is over.
    pub(super) fn accept(&mut self, signals: Batch) -> Applied {
        if self.can_take_up() || !self.is_running() {
            self.broadcast(signals)
        } else {
            self.change(Change::Accepted(signals))
        }
    }

    /// Wakes the execution and works a batch off.
    pub(super) fn broadcast(&mut self, signals: Batch) -> Applied {
        self.wake()?;
        self.take_up(signals)?;
        self.cascade()
    }

    pub(super) fn fail_for_limit(&mut self, limit: &'static str, message: String) -> Applied {
        let message = format!("limit {limit} exceeded: {message}");
        self.fail(Failure {
            message,
            node: None,
            limit: Some(limit.into()),
        })
    }

    fn fail_for_excess(&mut self, node: &Node, field: &str, excess: Excess) -> Applied {
        match excess {
            Excess::Bytes => {
                let allowed = self.state().limits.value_bytes;
                let message = format!("a value for field '{field}' has more than the {allowed} bytes that are allowed");
                self.fail_for_limit("value_bytes", message)
            }
            Excess::Depth => self.fail(Failure {
                message: format!(
                    "a value for field '{field}' nests deeper than {} levels",
                    Value::MAX_DEPTH
                ),
                node: Some(node.name.clone()),
                limit: None,
            }),
        }
    }

    /// Fails the execution. Its runs in flight are kept, to be run again when it is resumed.
    pub(super) fn fail(&mut self, failure: Failure) -> Applied {
        if !self.state().status.accepts_signals() {
            return Ok(());
        }
        self.event(EventKind::ExecutionFailed {
            error: failure.to_string().into(),
        });
        self.change(Change::Status {
            status: Status::Failed,
            at: self.at,
            failure: Some(failure),
        })?;
        self.abort_all();
        self.must_descend()?;
        self.descend(Descend::Suspend);
        Ok(())
    }

    /// Cancels the execution for good.
    pub(super) fn cancel(&mut self) -> Applied {
        self.catch_up()?;
        if self.state().status == Status::Cancelled {
            return Ok(());
        }
        let runs: Vec<u64> = self.state().runs.keys().copied().collect();
        self.event(EventKind::ExecutionCancelled {
            aborted_runs: runs.len() as u64,
        });
        self.change(Change::Status {
            status: Status::Cancelled,
            at: self.at,
            failure: None,
        })?;
        self.abort_all();
        self.must_descend()?;
        self.descend(Descend::Cancel);
        for run in runs {
            self.change(Change::Finished { run })?;
        }
        for _ in 0..self.state().pending.len() {
            self.change(Change::TakenUp)?;
        }
        self.discard_kept()?;
        self.machine.stack.clear();
        self.machine.stack_kept = 0;
        Ok(())
    }

    pub(super) fn abort_all(&mut self) {
        self.dispatched.clear();
        self.release_senders();
        // What runs would have done is not done any more, but everything else is.
        self.effects.retain(|effect| {
            matches!(
                effect,
                Effect::Acknowledge { .. } | Effect::Tell { .. } | Effect::Descend { .. } | Effect::StoreTurns(_)
            )
        });
        self.effects
            .extend(self.machine.state.runs.keys().map(|run| Effect::Abort { run: *run }));
    }

    /// Ends the event: inputs of the runs that it dispatched, the rest of its cascade, rest, the commit.
    pub(super) fn end(mut self) -> Result<Step, ApplyError> {
        let dispatched = std::mem::take(&mut self.dispatched);
        // Requests are counted first: the context that all of them read is that of the commit.
        for (run, node) in &dispatched {
            if self.is_running() {
                self.begin_run(*run, node)?;
            }
        }
        for (run, node) in dispatched {
            if !self.is_running() {
                break;
            }
            let context = self.state().context.clone();
            let effect = self.effect_of(run, 1, &node, &context)?;
            self.effects.push(effect);
        }
        self.keep_stack()?;
        let state = self.state();
        let family = state.family.as_ref();
        let family_rests =
            family.is_none_or(|family| family.active == 0 && family.inbox.is_empty()) && !self.must_wait();
        let at_rest = state.runs.is_empty() && state.stack.is_empty() && state.pending.is_empty() && family_rests;
        if at_rest && self.is_running() && self.parent_looks_after_it() {
            self.change(Change::Status {
                status: Status::Rested,
                at: self.at,
                failure: None,
            })?;
            self.event(EventKind::ExecutionRested {});
        }
        self.tell_status()?;
        self.must_be_heard()?;
        self.deliver_told();
        let turns = self.keep_turns()?;
        self.own()?;
        if self.changes.is_empty() && self.events.is_empty() {
            return Ok(Step {
                commit: None,
                effects: self.effects,
            });
        }
        self.machine.state.seal(self.at, self.events.len());
        let commit = Commit {
            execution: self.machine.state.id.clone(),
            version: self.machine.state.version,
            at: self.at,
            changes: self.changes,
            registry: self.registry,
            definitions: self.definitions,
            turns,
            events: self.events,
        };
        Ok(Step {
            commit: Some(commit),
            effects: self.effects,
        })
    }

    /// What this event changes is the first thing that this process does to the execution: it is the owner from here on.
    fn own(&mut self) -> Applied {
        let Some(process) = self.machine.specs.process.clone() else {
            return Ok(());
        };
        let owner = self.state().owner.as_ref();
        if self.changes.is_empty() || owner.is_some_and(|owner| owner.process == process) {
            return Ok(());
        }
        let fence = owner.map_or(0, |owner| owner.fence) + 1;
        self.change(Change::Owned(Owner { process, fence }))
    }

    /// Turns for the commit, or for the state where they follow it.
    fn keep_turns(&mut self) -> Result<Option<Box<TreeTurns>>, ApplyError> {
        let stored = std::mem::take(&mut self.machine.turns_stored);
        if stored > 0 && !self.changes.is_empty() {
            self.change(Change::TurnsStored(stored))?;
        } else {
            self.machine.turns_stored = stored;
        }
        let turns = std::mem::take(&mut self.turns);
        if turns.is_empty() {
            return Ok(None);
        }
        if self.machine.specs.turns_follow {
            self.change(Change::Turns(turns.clone()))?;
            self.effects.insert(0, Effect::StoreTurns(turns));
            return Ok(None);
        }
        let main = self.state().main_execution_id().clone();
        Ok(Some(Box::new(TreeTurns { main, turns })))
    }

    /// Puts what is left of the cascade into the state, where it changed.
    fn keep_stack(&mut self) -> Applied {
        self.machine.pop_worked_off();
        let (kept, depth) = (self.machine.stack_kept, self.machine.stack.len());
        if kept == depth && depth == self.state().stack.len() {
            return Ok(());
        }
        let frame = |cursor: &super::Cursor| Frame {
            signals: cursor.signals.clone(),
            registry: cursor.registry.clone(),
            next: cursor.next,
            then: cursor.then.clone(),
        };
        let frames = self.machine.stack[kept..].iter().map(frame).collect();
        self.machine.stack_kept = depth;
        self.change(Change::Stack { kept, frames })
    }
}
