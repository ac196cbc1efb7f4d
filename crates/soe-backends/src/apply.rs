//! From commits to states: [`ExecutionState::apply`] is the one fold, in the live engine, in every store, at recovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::state::FORMAT;
use crate::{
    ApplyError, Change, Commit, Context, DialogueStep, Entry, ExecutionId, ExecutionState, Forked, Genesis,
    Operational, Progress, Run, Status, Timestamp,
};

impl ExecutionState {
    /// The state that the first commit of an execution makes.
    ///
    /// # Errors
    /// [`ApplyError`] if it is not a first commit.
    pub fn create(commit: &Commit) -> Result<Self, ApplyError> {
        let Some(Change::Created(genesis)) = commit.changes.first() else {
            return Err(ApplyError::NotCreated);
        };
        let mut state = Self::genesis(commit.execution.clone(), genesis, commit.at);
        state.apply_changes(commit, &commit.changes[1..])?;
        Ok(state)
    }

    /// The state at version 0, before its first commit is complete.
    pub fn genesis(id: ExecutionId, genesis: &Genesis, at: Timestamp) -> Self {
        let mut context = Context {
            parent: genesis.parent.clone(),
            ..Context::default()
        };
        context.operational.main_execution_id = Some(genesis.main_execution_id.clone());
        context.fields = genesis.fields.iter().cloned().collect();
        let state = Self {
            format: FORMAT,
            id,
            version: 0,
            status: Status::Prepared,
            status_since: None,
            active_us: 0,
            failure: None,
            workflow: genesis.workflow.clone(),
            registry: genesis.registry.clone(),
            schedule: genesis.schedule,
            limits: genesis.limits.clone(),
            created_at: at,
            updated_at: at,
            context: Arc::new(context),
            context_bytes: genesis.context_bytes,
            broadcasts: 0,
            runs_started: 0,
            runs: Default::default(),
            next_run: 1,
            snapshots: Default::default(),
            stack: Vec::new(),
            pending: Default::default(),
            family: None,
            turns: Vec::new(),
            answers: Default::default(),
            workflow_changes: 0,
            versions: Vec::new(),
            next_event: 0,
            owner: None,
        };
        match &genesis.forked {
            Some(forked) => state.taking_over(forked),
            None => state,
        }
    }

    /// What a fork begins with: what it has of its own, and what it takes over.
    fn taking_over(mut self, forked: &Forked) -> Self {
        let main_execution_id = self.context.operational.main_execution_id.clone();
        self.context_mut().operational = Operational {
            main_execution_id,
            ..forked.operational.clone()
        };
        Self {
            active_us: forked.active_us,
            broadcasts: forked.broadcasts,
            runs_started: forked.runs_started,
            next_run: forked.next_run,
            stack: forked.stack.clone(),
            pending: forked.pending.clone(),
            workflow_changes: forked.workflow_changes,
            versions: forked.versions.clone(),
            ..self
        }
    }

    /// Applies a commit.
    ///
    /// # Errors
    /// [`ApplyError`] if it was computed from another state; this one must not be used any more if the error is a mismatch.
    pub fn apply(&mut self, commit: &Commit) -> Result<(), ApplyError> {
        if commit.execution != self.id {
            return Err(ApplyError::Execution(commit.execution.clone()));
        }
        self.apply_changes(commit, &commit.changes)
    }

    fn apply_changes(&mut self, commit: &Commit, changes: &[Change]) -> Result<(), ApplyError> {
        if commit.version != self.version + 1 {
            return Err(ApplyError::Version {
                commit: commit.version,
                state: self.version,
            });
        }
        for change in changes {
            self.change(change)?;
        }
        self.seal(commit.at, commit.events.len());
        Ok(())
    }

    /// Applies one change of the commit that is being made. [`ExecutionState::seal`] ends the commit.
    ///
    /// # Errors
    /// [`ApplyError::Mismatch`] if the change contradicts the state.
    pub fn change(&mut self, change: &Change) -> Result<(), ApplyError> {
        match change {
            Change::Created(_) => return Err(ApplyError::Mismatch("it exists already")),
            Change::Status { status, at, failure } => {
                // Running on means that it was interrupted: the time since its last commit doesn't count.
                let until = if *status == Status::Running {
                    self.updated_at
                } else {
                    *at
                };
                self.active_us = self.active_us_until(until);
                self.status = *status;
                self.status_since = Some(*at);
                self.failure = failure.clone();
            }
            Change::Broadcast(signals) => {
                self.broadcasts += 1;
                let log = &mut self.context_mut().operational.signals;
                signals.iter().for_each(|signal| log.push(signal.clone()));
            }
            Change::Routed { node } => self.count_run(node),
            Change::Dispatched(run) => {
                self.put_in_flight(run)?;
                self.count_run(&run.node);
                if matches!(run.progress, Progress::Tool { .. }) {
                    self.count_tool_call();
                }
            }
            Change::Restarted(run) => self.put_in_flight(run)?,
            Change::Progressed { run, progress } => match self.runs.get_mut(run) {
                Some(run) => Arc::make_mut(run).progress = progress.clone(),
                None => return Err(ApplyError::Mismatch("a run that is not in flight made progress")),
            },
            Change::Dialogue { run, step } => self.converse(*run, step)?,
            Change::Turns(turns) => self.turns.extend_from_slice(turns),
            Change::TurnsStored(count) => drop(self.turns.drain(..(*count).min(self.turns.len()))),
            Change::Finished { run } => self.finish(*run)?,
            Change::Error => self.context_mut().operational.errors += 1,
            Change::Appended { field, value, size } => {
                self.context_bytes += size;
                self.context_mut().append(field, value.clone());
                let parent = self.context.parent.as_ref();
                if parent.is_some_and(|parent| parent.context_updates_to_parent.contains(field)) {
                    let family = self.family.get_or_insert_default();
                    family.unsent.push((field.clone(), value.clone()));
                }
            }
            Change::Replaced {
                field,
                history,
                before,
                size,
            } => {
                self.context_bytes = self.context_bytes.saturating_sub(*before).saturating_add(*size);
                *self.context_mut().fields.entry(field) = history.clone();
            }
            Change::ToolCalled => self.count_tool_call(),
            Change::Answered(answer) => {
                if answer.execution.is_none() && !self.runs.contains_key(&answer.run) {
                    return Err(ApplyError::Mismatch("a run was answered that is not in flight"));
                }
                self.answers.keep(answer);
            }
            Change::Accepted(batch) => self.pending.push_back(batch.clone()),
            Change::TakenUp => {
                self.pending.pop_front();
            }
            Change::Stack { kept, frames } => {
                if *kept > self.stack.len() {
                    return Err(ApplyError::Mismatch("it keeps more of the stack than there is"));
                }
                self.stack.truncate(*kept);
                self.stack.extend_from_slice(frames);
            }
            Change::Children(started) => {
                self.family.get_or_insert_default().start(started);
                self.context_mut().operational.tree.children += started.children.len() as u64;
            }
            Change::Told(tell) => {
                let totals = self.context.operational.tree;
                self.family.get_or_insert_default().tell(tell, totals);
            }
            Change::Acknowledged(number) => {
                if let Some(family) = &mut self.family {
                    family.acknowledged(*number);
                }
            }
            Change::Received { child, message } => {
                let family = self.family.as_mut();
                let totals = family.and_then(|family| family.received(child, message));
                let (before, now) = totals.ok_or(ApplyError::Mismatch("a message came from no child"))?;
                self.context_mut().operational.tree.replace(before, now);
            }
            Change::Kept(incoming) => self.family.get_or_insert_default().inbox.push_back(incoming.clone()),
            Change::TakenIn => {
                if let Some(family) = &mut self.family {
                    family.inbox.pop_front();
                }
            }
            Change::Registry(version) => self.put_version(version),
            Change::Limits(limits) => self.limits = limits.clone(),
            Change::Owned(owner) => self.owner = Some(owner.clone()),
            Change::Revived { child } => {
                let revived = self.family.as_mut().and_then(|family| family.revive(child));
                revived.ok_or(ApplyError::Mismatch("an execution was resumed that is no child"))?;
            }
            Change::Descending(descending) => self.family.get_or_insert_default().descending = *descending,
        }
        Ok(())
    }

    /// The time for which it has run until then, in microseconds.
    pub(crate) fn active_us_until(&self, until: Timestamp) -> u64 {
        let since = self.status_since.filter(|_| self.status == Status::Running);
        self.active_us + since.map_or(0, |since| micros(until.since(since)))
    }

    /// Ends a commit: counts it, and keeps the context for the runs that it dispatched.
    pub fn seal(&mut self, at: Timestamp, events: usize) {
        self.version += 1;
        self.updated_at = at;
        self.next_event += events as u64;
        let dispatched_now = self
            .runs
            .last_key_value()
            .is_some_and(|(_, run)| run.snapshot == self.version);
        if dispatched_now {
            self.snapshots.insert(self.version, self.context.clone());
        }
    }

    /// The context, to be changed. Snapshots of it stay as they are.
    fn context_mut(&mut self) -> &mut Context {
        Arc::make_mut(&mut self.context)
    }

    fn count_run(&mut self, node: &Arc<str>) {
        self.runs_started += 1;
        *self.context_mut().operational.nodes.entry(node) += 1;
    }

    fn put_in_flight(&mut self, run: &Arc<Run>) -> Result<(), ApplyError> {
        run.check_dispatch(self.next_run, self.version)?;
        self.next_run += 1;
        self.runs.insert(run.number, run.clone());
        Ok(())
    }

    fn count_tool_call(&mut self) {
        let operational = &mut self.context_mut().operational;
        operational.tool_calls += 1;
        operational.tree.tool_calls += 1;
    }

    fn converse(&mut self, run: u64, step: &DialogueStep) -> Result<(), ApplyError> {
        let Some(run) = self.runs.get_mut(&run) else {
            return Err(ApplyError::Mismatch(
                "a run that is not in flight asked or was answered",
            ));
        };
        let run = Arc::make_mut(run);
        if let Some(dialogue) = run.progress.dialogue_mut() {
            dialogue.change(step);
        }
        let node = run.node.clone();
        match step {
            DialogueStep::Asked => {
                let operational = &mut self.context_mut().operational;
                operational.llm_calls += 1;
                operational.tree.llm_calls += 1;
            }
            DialogueStep::Replied { usage: Some(usage) } => {
                let operational = &mut self.context_mut().operational;
                let tokens = usage.total();
                operational.tokens = operational.tokens.saturating_add(tokens);
                operational.tree.tokens = operational.tree.tokens.saturating_add(tokens);
                let of_node = operational.node_tokens.entry(&node);
                *of_node = of_node.saturating_add(tokens);
            }
            DialogueStep::Entry(Entry::Called { refused: false, .. }) => self.count_tool_call(),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, number: u64) -> Result<(), ApplyError> {
        let run = self
            .runs
            .remove(&number)
            .ok_or(ApplyError::Mismatch("a run finished that is not in flight"))?;
        self.answers.forget(number);
        // Runs of one commit have consecutive numbers: a neighbour tells whether the snapshot is still needed.
        let before = self.runs.range(..number).next_back();
        let after = self.runs.range(number..).next();
        let needed = [before, after]
            .into_iter()
            .flatten()
            .any(|(_, other)| other.snapshot == run.snapshot);
        if !needed {
            self.snapshots.remove(&run.snapshot);
        }
        if self.runs.is_empty() {
            // An empty map keeps its last node, and an execution at rest should hold no more than it needs.
            self.runs = BTreeMap::new();
            self.snapshots = BTreeMap::new();
        }
        Ok(())
    }
}

impl Run {
    /// Whether the run can be dispatched next, by the commit after `version`.
    pub(crate) fn check_dispatch(&self, next_run: u64, version: u64) -> Result<(), ApplyError> {
        if self.number != next_run {
            return Err(ApplyError::Mismatch(
                "a run was dispatched under a number that is not the next",
            ));
        }
        if self.snapshot != version + 1 {
            return Err(ApplyError::Mismatch("a run was dispatched on another commit's context"));
        }
        Ok(())
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
