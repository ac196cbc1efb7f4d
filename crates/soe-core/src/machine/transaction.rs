//! One event, while it is being worked off: changes are applied as they are made, and collected for the commit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use soe_backends::{
    Accepted, ApplyError, Change, Commit, Definitions, Delivery, Event, EventKind, Excess, ExecutionChange,
    ExecutionState, Limits, Owed, Owner, RegistryDocument, Run, Schedule, Spawn, Status, Timestamp, Turn, Value,
};

use super::nodes::Brood;
use super::{Effect, Inherited, Machine, MachineError, Step, Target};
use crate::config::Node;

pub(super) struct Transaction<'m> {
    pub(super) machine: &'m mut Machine,
    pub(super) at: Timestamp,
    /// The execution in which something happens now.
    pub(super) here: u64,
    changes: Vec<Change>,
    events: Vec<Event>,
    /// The fence under which the event began.
    fence: u64,
    pub(super) effects: Vec<Effect>,
    /// The registries that this event makes.
    pub(super) registries: Vec<Arc<RegistryDocument>>,
    /// What the tree shares after this event, if it changes that.
    pub(super) definitions: Option<Arc<Definitions>>,
    /// What this event adds to the conversation history.
    pub(super) turns: Vec<Turn>,
    pub(super) work: Working,
    /// The runs that were dispatched since the last snapshots: they read the context of the end of their round.
    pub(super) dispatched: Vec<Dispatched>,
    /// The first of them in each execution.
    pub(super) first: BTreeMap<u64, u64>,
    /// The executions that may have come to rest.
    pub(super) touched: Vec<u64>,
    /// Whether something above an execution of this event has ended.
    pub(super) ended: bool,
    /// Routers and children since the last time that the driver had its turn.
    pub(super) pure_steps: usize,
    /// The run that creates children now, with what they have in common.
    pub(super) brood: Option<Brood>,
    /// Whether the driver gets its turn before the rest of the work list.
    pub(super) paused: bool,
    /// Whether a commit may be made for what stores of their own were given alone.
    pub(super) settles: bool,
}

/// The work list, as far as it differs from that of the state.
#[derive(Default)]
pub(super) struct Working {
    /// Whether this event comes between the commits of a longer one: what is on the work list already is left alone.
    pub(super) between: bool,
    /// The frames of the stack that belong to the longer one.
    pub(super) base: usize,
    /// How many deliveries of the state were taken.
    pub(super) delivered: usize,
    pub(super) deliveries: VecDeque<Arc<Delivery>>,
    /// Deliveries to executions that have a part in the longer event.
    pub(super) late: Vec<Arc<Delivery>>,
    pub(super) spawns: VecDeque<Spawn>,
    /// How many of them were there before, and are left alone between the commits of a longer event.
    pub(super) spawns_before: usize,
    pub(super) spawns_changed: bool,
    /// How many accepted batches of the state were taken.
    pub(super) taken: usize,
    pub(super) accepted: Vec<Accepted>,
    /// A batch that a limit forbids: the first to be broadcast when what that fails is resumed under other limits.
    pub(super) held_back: Option<Accepted>,
}

/// A run that was dispatched.
pub(super) struct Dispatched {
    pub(super) execution: u64,
    pub(super) run: u64,
    pub(super) node: Arc<Node>,
}

pub(super) type Applied = Result<(), ApplyError>;

impl<'m> Transaction<'m> {
    pub(super) fn begin(machine: &'m mut Machine, at: Timestamp) -> Self {
        let work = &machine.state.work;
        let work = Working {
            spawns: work.spawns.clone(),
            spawns_before: work.spawns.len(),
            ..Working::default()
        };
        Self {
            fence: machine.state.fence(),
            machine,
            at,
            here: 0,
            // Enough for a completion and its first broadcasts without growing.
            changes: Vec::with_capacity(8),
            events: Vec::with_capacity(8),
            effects: Vec::new(),
            registries: Vec::new(),
            definitions: None,
            turns: Vec::new(),
            work,
            dispatched: Vec::new(),
            first: BTreeMap::new(),
            touched: Vec::new(),
            ended: false,
            pure_steps: 0,
            brood: None,
            paused: false,
            settles: false,
        }
    }

    /// What happens from now on happens in this execution.
    pub(super) fn enter(&mut self, execution: u64) -> Applied {
        if self.machine.state.get(execution).is_none() {
            return Err(ApplyError::Mismatch("there is no such execution"));
        }
        self.here = execution;
        if self.touched.last() != Some(&execution) {
            self.touched.push(execution);
        }
        Ok(())
    }

    /// As [`Transaction::enter`], for an execution that an input names.
    pub(super) fn enter_named(&mut self, execution: u64) -> Result<(), MachineError> {
        self.enter(execution).map_err(|_| MachineError::NoSuchExecution)?;
        self.ended = self.machine.state.ended_at(execution).is_some();
        Ok(())
    }

    pub(super) fn state(&self) -> &ExecutionState {
        let state = self.machine.state.get(self.here);
        state.expect("an execution that was entered exists, and none is ever removed")
    }

    pub(super) fn limits(&self) -> &Arc<Limits> {
        &self.machine.state.limits
    }

    pub(super) fn depth_first(&self) -> bool {
        self.machine.state.schedule == Schedule::DepthFirst
    }

    /// Whether the execution runs, and nothing above it has ended.
    pub(super) fn is_running(&self) -> bool {
        self.runs(self.here)
    }

    pub(super) fn runs(&self, execution: u64) -> bool {
        let tree = &self.machine.state;
        let runs = tree.get(execution).is_some_and(|state| state.status == Status::Running);
        runs && !(self.ended && tree.ended_at(execution).is_some())
    }

    /// Where the execution stands, what is above it considered.
    pub(super) fn status(&self) -> Status {
        self.machine.state.status(self.here).unwrap_or(self.state().status)
    }

    pub(super) fn target(&self) -> Target {
        Target {
            number: self.here,
            id: self.state().id.clone(),
        }
    }

    /// Records the creation; the machine's state has it already.
    pub(super) fn created(&mut self, change: Change) {
        self.changes.push(change);
        self.touched.push(0);
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

    /// Changes the execution in which something happens now.
    pub(super) fn change(&mut self, change: ExecutionChange) -> Applied {
        self.apply(Change::In {
            execution: self.here,
            change,
        })
    }

    /// Changes the tree.
    pub(super) fn apply(&mut self, change: Change) -> Applied {
        self.machine.state.change(&change, self.at)?;
        self.changes.push(change);
        Ok(())
    }

    /// How many changes were made so far.
    pub(super) fn changed(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn event(&mut self, kind: EventKind) {
        let seq = self.machine.state.next_event + self.events.len() as u64;
        let execution = self.state().id.clone();
        self.events.push(Event {
            seq,
            time: self.at,
            execution,
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
        let limits = self.limits().clone();
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
            .get(run.number)
            .and_then(|run| run.progress.dialogue());
        let tokens = dialogue.map(|dialogue| dialogue.tokens);
        self.finish(run.number)?;
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
        self.change(ExecutionChange::Appended {
            field: field.clone(),
            value,
            size,
            delivered: false,
        })?;
        self.updated(field);
        Ok(())
    }

    /// A value was appended to a field.
    pub(super) fn updated(&mut self, field: Arc<str>) {
        let history = self.state().context.history(&field);
        let length = history.map_or(0, |history| history.len() as u64);
        self.event(EventKind::ContextUpdated { field, length });
    }

    /// A run is over.
    pub(super) fn finish(&mut self, run: u64) -> Applied {
        if self.depth_first() {
            self.machine.awaited.remove(&(self.here, run));
        }
        self.change(ExecutionChange::Finished { run })
    }

    /// Dispatches a run of `node`: it gets the context as of the end of this round.
    pub(super) fn dispatch(&mut self, node: &Arc<Node>, progress: soe_backends::Progress) -> Applied {
        let number = self.state().next_run;
        let snapshot = *self.first.entry(self.here).or_insert(number);
        let run = Run {
            number,
            node: node.name.clone(),
            workflow: self.state().workflow.clone(),
            registry: self.machine.registry_of_listener(self.here, node),
            snapshot,
            started_at: self.at,
            progress,
        };
        self.change(ExecutionChange::Dispatched(Arc::new(run)))?;
        self.event(EventKind::NodeExecution {
            node_name: node.name.clone(),
            node_type: node.type_name.clone(),
            run: Some(number),
        });
        self.dispatched.push(Dispatched {
            execution: self.here,
            run: number,
            node: node.clone(),
        });
        Ok(())
    }

    /// What one value has too much of.
    fn fail_for_excess(&mut self, node: &Node, field: &str, excess: Excess) -> Applied {
        match excess {
            Excess::Bytes => {
                let allowed = self.limits().value_bytes;
                let message = format!("a value for field '{field}' has more than the {allowed} bytes that are allowed");
                self.fail_for_limit("value_bytes", message)
            }
            Excess::Depth => self.fail(soe_backends::Failure {
                message: format!(
                    "a value for field '{field}' nests deeper than {} levels",
                    Value::MAX_DEPTH
                ),
                node: Some(node.name.clone()),
                limit: None,
            }),
        }
    }

    /// Ends the event: what has come to rest, the rest of the work list, what is owed, the owner, the commit.
    pub(super) fn end(mut self) -> Result<Step, ApplyError> {
        self.rest()?;
        while !self.work.deliveries.is_empty() && !self.paused {
            // A parent that can't take what a resting child leaves to it fails.
            self.drain()?;
            self.rest()?;
        }
        self.keep_work()?;
        if self.paused || !self.work.spawns.is_empty() {
            self.effects.push(Effect::Continue);
        }
        if let Some(definitions) = &self.definitions
            && self.machine.state.definitions != *definitions
        {
            self.apply(Change::Defined(definitions.clone()))?;
        }
        self.settle_debts()?;
        if self.changes.is_empty() && self.events.is_empty() {
            return Ok(Step {
                commit: None,
                effects: self.effects,
            });
        }
        self.own()?;
        self.machine.state.seal(self.at, self.events.len());
        let state = &self.machine.state;
        let commit = Commit {
            tree: state.root.clone(),
            version: state.version,
            fence: self.fence,
            at: self.at,
            changes: self.changes,
            registries: self.registries,
            definitions: self.definitions,
            turns: self.turns,
            events: self.events,
        };
        Ok(Step {
            commit: Some(commit),
            effects: self.effects,
        })
    }

    /// What this event changes is the first thing that this process does to the tree: it is the owner from here on.
    fn own(&mut self) -> Applied {
        let Some(process) = self.machine.specs.process.clone() else {
            return Ok(());
        };
        let owner = self.machine.state.owner.as_ref();
        if owner.is_some_and(|owner| owner.process == process) {
            return Ok(());
        }
        let fence = owner.map_or(0, |owner| owner.fence) + 1;
        self.apply(Change::Owned(Owner { process, fence }))
    }

    /// Forgets what stores of their own were given, and notes what they are owed by this event.
    fn settle_debts(&mut self) -> Applied {
        let paid = &self.machine.paid;
        if !paid.is_empty() && (!self.changes.is_empty() || self.settles) {
            let change = Change::Paid {
                definitions: paid.definitions,
                turns: paid.turns.len(),
                events: paid.events.len(),
            };
            self.machine.paid = Owed::default();
            self.apply(change)?;
        }
        let sections = self.machine.specs.sections;
        let owed = Owed {
            definitions: !sections.definitions && self.definitions.is_some(),
            turns: if sections.turns {
                Vec::new()
            } else {
                std::mem::take(&mut self.turns)
            },
            events: if sections.events {
                Vec::new()
            } else {
                self.events.clone()
            },
        };
        if owed.is_empty() {
            return Ok(());
        }
        self.apply(Change::Owed(Box::new(owed.clone())))?;
        // Before anybody acts on it, and after what was owed before.
        let earlier = self.effects.iter().rposition(|effect| matches!(effect, Effect::Pay(_)));
        self.effects
            .insert(earlier.map_or(0, |place| place + 1), Effect::Pay(owed));
        Ok(())
    }
}
