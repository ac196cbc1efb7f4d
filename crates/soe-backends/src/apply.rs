//! From commits to states: [`TreeState::apply`] is the one fold, in the live engine, in every store, at recovery.

use std::sync::Arc;

use crate::tree::FORMAT;
use crate::{
    ApplyError, Change, Children, Commit, Context, DialogueStep, Entry, ExecutionChange, ExecutionId, ExecutionState,
    Genesis, NumberMap, Owed, Progress, Run, Status, Timestamp, TreeGenesis, TreeState, Used, Work, WorkChange,
};

impl TreeState {
    /// The state that the first commit of a tree makes.
    ///
    /// # Errors
    /// [`ApplyError`] if it is not a first commit.
    pub fn create(commit: &Commit) -> Result<Self, ApplyError> {
        let mut state = match commit.changes.first() {
            Some(Change::Created(genesis)) => Self::genesis(commit.tree.clone(), genesis, commit.at),
            Some(Change::Forked(state)) => state.as_ref().clone(),
            _ => return Err(ApplyError::NotCreated),
        };
        state.check(commit)?;
        for change in &commit.changes[1..] {
            state.change(change, commit.at)?;
        }
        state.seal(commit.at, commit.events.len());
        Ok(state)
    }

    /// The state at version 0, before its first commit is complete.
    pub fn genesis(root: ExecutionId, genesis: &TreeGenesis, at: Timestamp) -> Self {
        let mut executions = NumberMap::default();
        executions.insert(0, Arc::new(ExecutionState::genesis(0, &root, &genesis.root, at)));
        Self {
            format: FORMAT,
            root,
            version: 0,
            updated_at: at,
            owner: None,
            schedule: genesis.schedule,
            limits: genesis.limits.clone(),
            used: Used::default(),
            definitions: genesis.definitions.clone(),
            next_event: 0,
            executions,
            work: Arc::default(),
            inbox: 0,
            owed: Arc::default(),
        }
    }

    /// Applies a commit.
    ///
    /// # Errors
    /// [`ApplyError`] if it was computed from another state; this one must not be used any more if the error is a mismatch.
    pub fn apply(&mut self, commit: &Commit) -> Result<(), ApplyError> {
        self.check(commit)?;
        for change in &commit.changes {
            self.change(change, commit.at)?;
        }
        self.seal(commit.at, commit.events.len());
        Ok(())
    }

    fn check(&self, commit: &Commit) -> Result<(), ApplyError> {
        if commit.tree != self.root {
            return Err(ApplyError::Tree(commit.tree.clone()));
        }
        match self.version.checked_add(1) == Some(commit.version) {
            true => Ok(()),
            false => Err(ApplyError::Version {
                commit: commit.version,
                state: self.version,
            }),
        }
    }

    /// Ends a commit: counts it and its events.
    pub fn seal(&mut self, at: Timestamp, events: usize) {
        self.version += 1;
        self.updated_at = at;
        self.next_event += events as u64;
    }

    /// Applies one change.
    ///
    /// # Errors
    /// It contradicts the state.
    pub fn change(&mut self, change: &Change, at: Timestamp) -> Result<(), ApplyError> {
        match change {
            Change::In { execution, change } => return self.change_in(*execution, change, at),
            Change::Created(_) | Change::Forked(_) => return Err(ApplyError::Mismatch("it exists already")),
            Change::Started(genesis) => return self.start(genesis, at),
            Change::Work(change) => return Arc::make_mut(&mut self.work).change(change),
            Change::Limits(limits) => self.limits = limits.clone(),
            Change::Defined(definitions) => self.definitions = definitions.clone(),
            Change::Owned(owner) => self.owner = Some(owner.clone()),
            Change::Taken(seq) => self.inbox = *seq,
            Change::Owed(owed) => self.owe(owed),
            Change::Paid {
                definitions,
                turns,
                events,
            } => {
                let owed = Arc::make_mut(&mut self.owed);
                owed.definitions &= !definitions;
                owed.turns.drain(..(*turns).min(owed.turns.len()));
                owed.events.drain(..(*events).min(owed.events.len()));
            }
        }
        Ok(())
    }

    fn owe(&mut self, more: &Owed) {
        let owed = Arc::make_mut(&mut self.owed);
        owed.definitions |= more.definitions;
        owed.turns.extend_from_slice(&more.turns);
        owed.events.extend_from_slice(&more.events);
    }

    fn start(&mut self, genesis: &Genesis, at: Timestamp) -> Result<(), ApplyError> {
        let Some((origin, place)) = &genesis.origin else {
            return Err(ApplyError::Mismatch("a child has no origin"));
        };
        let number = self.executions.len() as u64;
        let root = self.root.clone();
        let parent = self.get_mut(origin.parent)?;
        parent.context_mut().operational.tree.children += 1;
        let children = Arc::make_mut(parent.children.get_or_insert_with(|| Arc::new(Children::default())));
        if !children.by_run.contains(origin.run) {
            children.by_run.insert(origin.run, NumberMap::default());
        }
        let of_run = children.by_run.get_mut(origin.run);
        if of_run.is_none_or(|of_run| of_run.insert(*place, number).is_some()) {
            return Err(ApplyError::Mismatch("a child was created twice"));
        }
        self.used.children += 1;
        let state = ExecutionState::genesis(number, &root, genesis, at);
        self.executions.insert(number, Arc::new(state));
        Ok(())
    }

    fn get_mut(&mut self, number: u64) -> Result<&mut ExecutionState, ApplyError> {
        let state = self.executions.get_mut(number);
        state
            .map(Arc::make_mut)
            .ok_or(ApplyError::Mismatch("there is no such execution"))
    }

    fn change_in(&mut self, execution: u64, change: &ExecutionChange, at: Timestamp) -> Result<(), ApplyError> {
        let used = &mut self.used;
        match change {
            ExecutionChange::Broadcast(_) => used.broadcasts += 1,
            ExecutionChange::Routed { .. } => used.runs += 1,
            ExecutionChange::Dispatched(run) => {
                used.runs += 1;
                used.tool_calls += u64::from(matches!(run.progress, Progress::Tool { .. }));
            }
            ExecutionChange::ToolCalled => used.tool_calls += 1,
            ExecutionChange::Dialogue { step, .. } => match step {
                DialogueStep::Asked => used.llm_calls += 1,
                DialogueStep::Replied { usage: Some(usage) } => used.tokens = used.tokens.saturating_add(usage.total()),
                DialogueStep::Entry(Entry::Called { refused: false, .. }) => used.tool_calls += 1,
                _ => {}
            },
            ExecutionChange::Status { status, .. } => self.count_active(execution, *status)?,
            _ => {}
        }
        let last = self.updated_at;
        let state = self.get_mut(execution)?;
        state.updated_at = at;
        state.change(change, last)
    }

    /// The parent knows how many of its children are running.
    fn count_active(&mut self, execution: u64, now: Status) -> Result<(), ApplyError> {
        let state = self
            .get(execution)
            .ok_or(ApplyError::Mismatch("there is no such execution"))?;
        let (before, now) = (state.status == Status::Running, now == Status::Running);
        let Some(parent) = state.parent().filter(|_| before != now) else {
            return Ok(());
        };
        let parent = self.get_mut(parent)?;
        let children = Arc::make_mut(parent.children.get_or_insert_with(|| Arc::new(Children::default())));
        match now {
            true => children.active += 1,
            false => children.active = children.active.saturating_sub(1),
        }
        Ok(())
    }
}

impl Work {
    fn change(&mut self, change: &WorkChange) -> Result<(), ApplyError> {
        let too_much = change.kept > self.stack.len()
            || change.delivered > self.deliveries.len()
            || change.taken > self.accepted.len();
        if too_much {
            return Err(ApplyError::Mismatch("it takes more of the work list than there is"));
        }
        self.stack.truncate(change.kept);
        self.stack.extend_from_slice(&change.frames);
        self.deliveries.drain(..change.delivered);
        self.deliveries.extend(change.deliveries.iter().cloned());
        if let Some(spawns) = &change.spawns {
            self.spawns = spawns.iter().copied().collect();
        }
        self.accepted.drain(..change.taken);
        self.accepted.extend(change.accepted.iter().cloned());
        Ok(())
    }
}

impl ExecutionState {
    fn genesis(number: u64, root: &ExecutionId, genesis: &Genesis, at: Timestamp) -> Self {
        let mut context = Context {
            parent: genesis.parent.clone(),
            ..Context::default()
        };
        context.operational.main_execution_id = Some(root.clone());
        context.fields = genesis.fields.iter().cloned().collect();
        Self {
            number,
            id: genesis.id.clone(),
            origin: genesis.origin.as_ref().map(|(origin, _)| origin.clone()),
            status: Status::Prepared,
            status_since: None,
            active_us: 0,
            failure: None,
            workflow: genesis.workflow.clone(),
            registry: genesis.registry.clone(),
            created_at: at,
            updated_at: at,
            context: Arc::new(context),
            context_bytes: genesis.context_bytes,
            runs: NumberMap::default(),
            next_run: 1,
            snapshots: NumberMap::default(),
            children: None,
            unsent: NumberMap::default(),
            sent: Default::default(),
            stopped: None,
            answers: Default::default(),
            workflow_changes: 0,
            versions: NumberMap::default(),
        }
    }

    /// Applies a change; `last` is when the tree was changed before.
    fn change(&mut self, change: &ExecutionChange, last: Timestamp) -> Result<(), ApplyError> {
        match change {
            ExecutionChange::Status { status, at, failure } => {
                // A process that goes on with an execution ran nothing since the last commit: the time until then counts, the
                // time since then doesn't.
                let until = if *status == Status::Running { last } else { *at };
                self.active_us = self.active_us_until(until);
                self.status = *status;
                self.status_since = Some(*at);
                self.failure = failure.clone();
            }
            ExecutionChange::Broadcast(signals) => {
                let log = &mut self.context_mut().operational.signals;
                signals.iter().for_each(|signal| log.push(signal.clone()));
            }
            ExecutionChange::Routed { node } => self.count_run(node),
            ExecutionChange::Dispatched(run) => {
                self.put_in_flight(run)?;
                self.count_run(&run.node);
                if matches!(run.progress, Progress::Tool { .. }) {
                    self.count_tool_call();
                }
            }
            ExecutionChange::Restarted(run) => self.put_in_flight(run)?,
            ExecutionChange::Snapshot { run } => {
                self.snapshots.insert(*run, self.context.clone());
            }
            ExecutionChange::Progressed { run, progress } => match self.runs.get_mut(*run) {
                Some(run) => Arc::make_mut(run).progress = progress.clone(),
                None => return Err(ApplyError::Mismatch("a run that is not in flight made progress")),
            },
            ExecutionChange::Dialogue { run, step } => self.converse(*run, step)?,
            ExecutionChange::Finished { run } => self.finish(*run)?,
            ExecutionChange::Error => self.context_mut().operational.errors += 1,
            ExecutionChange::Appended { field, value, size, .. } => {
                self.context_bytes += size;
                self.context_mut().append(field, value.clone());
                let parent = self.context.parent.as_ref();
                if parent.is_some_and(|parent| parent.context_updates_to_parent.contains(field)) {
                    let next = self.unsent.len() as u64;
                    self.unsent.insert(next, (field.clone(), value.clone()));
                }
            }
            ExecutionChange::Replaced {
                field,
                history,
                before,
                size,
            } => {
                self.context_bytes = self.context_bytes.saturating_sub(*before).saturating_add(*size);
                *self.context_mut().fields.entry(field) = history.clone();
            }
            ExecutionChange::ToolCalled => self.count_tool_call(),
            ExecutionChange::Answered(answer) => {
                if answer.execution.is_none() && !self.runs.contains(answer.run) {
                    return Err(ApplyError::Mismatch("a run was answered that is not in flight"));
                }
                self.answers.keep(answer);
            }
            ExecutionChange::Sent => {
                self.unsent = NumberMap::default();
                self.sent = self.context.operational.tree;
            }
            ExecutionChange::Stopped(stopped) => self.stopped = stopped.clone(),
            ExecutionChange::Used(more) => self.context_mut().operational.tree.add(*more),
            ExecutionChange::Registry(version) => self.put_version(version),
        }
        Ok(())
    }

    /// The context, to be changed. Snapshots of it stay as they are.
    fn context_mut(&mut self) -> &mut Context {
        Arc::make_mut(&mut self.context)
    }

    fn count_run(&mut self, node: &Arc<str>) {
        *self.context_mut().operational.nodes.entry(node) += 1;
    }

    fn put_in_flight(&mut self, run: &Arc<Run>) -> Result<(), ApplyError> {
        if run.number != self.next_run {
            return Err(ApplyError::Mismatch(
                "a run was dispatched under a number that is not the next",
            ));
        }
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
        let Some(run) = self.runs.get_mut(run) else {
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
        let run = self.runs.remove(number);
        let run = run.ok_or(ApplyError::Mismatch("a run finished that is not in flight"))?;
        self.answers.forget(number);
        // Runs with the same snapshot have consecutive numbers: a neighbour tells whether it is still needed.
        let neighbours = [self.runs.last_before(number), self.runs.first_from(number)];
        let needed = |other: (u64, &Arc<Run>)| other.1.snapshot == run.snapshot;
        if !neighbours.into_iter().flatten().any(needed) {
            self.snapshots.remove(run.snapshot);
        }
        Ok(())
    }

    /// The context that a run in flight reads.
    pub fn snapshot(&self, run: &Run) -> Option<&Arc<Context>> {
        self.snapshots.get(run.snapshot)
    }
}
