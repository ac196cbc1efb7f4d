//! From the commits of format 1 to its states.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::ConvertError;
use super::changes::{Change, Genesis, Started, Tell};
use super::old::{Child, ChildStatus, Family, Progress, Run, State, Told};
use crate::{
    Context, DialogueStep, Entry, ExecutionId, Failure, NumberMap, Status, Timestamp, TreeTotals, Value, WorkflowEdit,
    WorkflowVersion,
};

fn read(version: u64, changes: &[u8]) -> Result<Vec<Change>, ConvertError> {
    crate::stored::read(changes).map_err(|error| unfit(version, &error.to_string()))
}

fn unfit(version: u64, why: &str) -> ConvertError {
    let why = why.to_owned();
    ConvertError::Commit { version, why }
}

pub(super) fn create(id: &ExecutionId, at: Timestamp, changes: &[u8], events: u64) -> Result<State, ConvertError> {
    let mut changes = read(1, changes)?.into_iter();
    let Some(Change::Created(genesis)) = changes.next() else {
        return Err(unfit(1, "it doesn't create the execution"));
    };
    let mut state = State::genesis(id.clone(), *genesis, at);
    state.all(changes, at, events)?;
    Ok(state)
}

pub(super) fn apply(state: &mut State, at: Timestamp, changes: &[u8], events: u64) -> Result<(), ConvertError> {
    let changes = read(state.version + 1, changes)?;
    state.all(changes.into_iter(), at, events)
}

impl State {
    fn genesis(id: ExecutionId, genesis: Genesis, at: Timestamp) -> Self {
        let mut context = Context {
            parent: genesis.parent,
            ..Context::default()
        };
        context.fields = genesis.fields.into_iter().collect();
        let mut state = Self {
            format: super::FORMAT,
            id,
            version: 0,
            status: Status::Prepared,
            status_since: None,
            active_us: 0,
            failure: None,
            workflow: genesis.workflow,
            registry: genesis.registry,
            schedule: genesis.schedule,
            limits: genesis.limits,
            created_at: at,
            updated_at: at,
            context: Arc::default(),
            context_bytes: genesis.context_bytes,
            broadcasts: 0,
            runs_started: 0,
            runs: BTreeMap::new(),
            next_run: 1,
            snapshots: NumberMap::default(),
            stack: Vec::new(),
            pending: VecDeque::new(),
            family: None,
            turns: Vec::new(),
            answers: Default::default(),
            workflow_changes: 0,
            versions: Vec::new(),
            next_event: 0,
            owner: None,
        };
        if let Some(forked) = genesis.forked {
            context.operational = forked.operational;
            state.active_us = forked.active_us;
            state.broadcasts = forked.broadcasts;
            state.runs_started = forked.runs_started;
            state.next_run = forked.next_run;
            state.stack = forked.stack;
            state.pending = forked.pending;
            state.workflow_changes = forked.workflow_changes;
            state.versions = forked.versions;
        }
        context.operational.main_execution_id = Some(genesis.main_execution_id);
        state.context = Arc::new(context);
        state
    }

    fn all(&mut self, changes: impl Iterator<Item = Change>, at: Timestamp, events: u64) -> Result<(), ConvertError> {
        let version = self.version + 1;
        for change in changes {
            self.change(change).map_err(|why| unfit(version, why))?;
        }
        self.version = version;
        self.updated_at = at;
        self.next_event += events;
        let dispatched_now = self
            .runs
            .last_key_value()
            .is_some_and(|(_, run)| run.snapshot == version);
        if dispatched_now {
            self.snapshots.insert(version, self.context.clone());
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), &'static str> {
        match change {
            Change::Created(_) => return Err("it creates the execution once more"),
            Change::Status { status, at, failure } => self.stands(status, at, failure),
            Change::Broadcast(signals) => {
                self.broadcasts += 1;
                let log = &mut self.context_mut().operational.signals;
                signals.iter().for_each(|signal| log.push(signal.clone()));
            }
            Change::Routed { node } => self.count_run(&node),
            Change::Dispatched(run) => {
                self.count_run(&run.node);
                if matches!(run.progress, Progress::Tool { .. }) {
                    self.count_tool_call();
                }
                self.put_in_flight(run);
            }
            Change::Restarted(run) => self.put_in_flight(run),
            Change::Progressed { run, progress } => match self.runs.get_mut(&run) {
                Some(run) => run.progress = progress,
                None => return Err("a run that is not in flight made progress"),
            },
            Change::Dialogue { run, step } => self.converse(run, &step)?,
            Change::Turns(turns) => self.turns.extend(turns),
            Change::TurnsStored(count) => drop(self.turns.drain(..count.min(self.turns.len()))),
            Change::Finished { run } => self.finish(run)?,
            Change::Error => self.context_mut().operational.errors += 1,
            Change::Appended { field, value, size } => self.append(field, value, size),
            Change::Replaced {
                field,
                history,
                before,
                size,
            } => {
                self.context_bytes = self.context_bytes.saturating_sub(before).saturating_add(size);
                *self.context_mut().fields.entry(&field) = history;
            }
            Change::ToolCalled => self.count_tool_call(),
            Change::Answered(answer) => self.answers.keep(&answer),
            Change::Accepted(batch) => self.pending.push_back(batch),
            Change::TakenUp => drop(self.pending.pop_front()),
            Change::Stack { kept, frames } => {
                self.stack.truncate(kept);
                self.stack.extend(frames);
            }
            Change::Registry(version) => self.put_version(*version),
            Change::Limits(limits) => self.limits = limits,
            Change::Owned(owner) => self.owner = Some(owner),
            Change::Descending(_) => {}
            Change::Children(started) => {
                self.context_mut().operational.tree.children += started.children.len() as u64;
                self.family_mut().start(&started);
            }
            Change::Told(tell) => {
                let totals = self.context.operational.tree;
                self.family_mut().tell(*tell, totals);
            }
            Change::Acknowledged(number) => self.family_mut().outbox.retain(|message| message.number > number),
            Change::Received { child, message } => {
                let known = self
                    .family_mut()
                    .children
                    .get_mut(&child)
                    .ok_or("a message came from no child")?;
                known.received = message.number;
                known.status = message.status.unwrap_or(known.status);
                let before = std::mem::replace(&mut known.totals, message.totals);
                self.context_mut().operational.tree.add(message.totals.since(before));
            }
            Change::Kept(incoming) => self.family_mut().inbox.push_back(*incoming),
            Change::TakenIn => drop(self.family_mut().inbox.pop_front()),
            Change::Revived { child } => match self.family_mut().children.get_mut(&child) {
                Some(child) => child.status = ChildStatus::Active,
                None => return Err("an execution was resumed that is no child"),
            },
        }
        Ok(())
    }

    fn stands(&mut self, status: Status, at: Timestamp, failure: Option<Failure>) {
        let until = if status == Status::Running { self.updated_at } else { at };
        if let Some(since) = self.status_since.filter(|_| self.status == Status::Running) {
            self.active_us += u64::try_from(until.since(since).as_micros()).unwrap_or(u64::MAX);
        }
        self.status = status;
        self.status_since = Some(at);
        self.failure = failure;
    }

    fn context_mut(&mut self) -> &mut Context {
        Arc::make_mut(&mut self.context)
    }

    fn family_mut(&mut self) -> &mut Family {
        self.family.get_or_insert_default()
    }

    fn count_run(&mut self, node: &Arc<str>) {
        self.runs_started += 1;
        *self.context_mut().operational.nodes.entry(node) += 1;
    }

    fn count_tool_call(&mut self) {
        let operational = &mut self.context_mut().operational;
        operational.tool_calls += 1;
        operational.tree.tool_calls += 1;
    }

    fn put_in_flight(&mut self, run: Run) {
        self.next_run = run.number + 1;
        self.runs.insert(run.number, run);
    }

    fn append(&mut self, field: Arc<str>, value: Value, size: u64) {
        self.context_bytes += size;
        self.context_mut().append(&field, value.clone());
        let parent = self.context.parent.as_ref();
        if parent.is_some_and(|parent| parent.context_updates_to_parent.contains(&field)) {
            self.family_mut().unsent.push((field, value));
        }
    }

    fn converse(&mut self, run: u64, step: &DialogueStep) -> Result<(), &'static str> {
        let run = self
            .runs
            .get_mut(&run)
            .ok_or("a run that is not in flight asked or was answered")?;
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

    fn finish(&mut self, number: u64) -> Result<(), &'static str> {
        let run = self
            .runs
            .remove(&number)
            .ok_or("a run finished that is not in flight")?;
        self.answers.forget(number);
        // Runs of one commit have consecutive numbers: a neighbour tells whether the snapshot is still needed.
        let before = self.runs.range(..number).next_back();
        let after = self.runs.range(number..).next();
        let neighbours = [before, after].into_iter().flatten();
        if !neighbours.into_iter().any(|(_, other)| other.snapshot == run.snapshot) {
            self.snapshots.remove(run.snapshot);
        }
        Ok(())
    }

    fn put_version(&mut self, version: WorkflowVersion) {
        const MOST: usize = 1_000;
        if self.versions.is_empty() {
            self.versions.push(Arc::new(WorkflowVersion {
                number: 0,
                registry: self.registry.clone(),
                at: self.created_at,
                edit: WorkflowEdit::Started {},
                by: None,
            }));
        }
        if self.versions.len() >= MOST {
            self.versions.remove(1);
        }
        self.registry = version.registry.clone();
        self.workflow_changes += u64::from(version.by.is_some());
        self.versions.push(Arc::new(version));
    }
}

impl Family {
    fn start(&mut self, started: &Started) {
        for id in &started.children {
            let child = Child {
                run: started.run,
                node: started.node.clone(),
                failure_signal: started.failure_signal.clone(),
                status: ChildStatus::Active,
                received: 0,
                totals: TreeTotals::default(),
            };
            self.children.insert(id.clone(), child);
        }
    }

    fn tell(&mut self, tell: Tell, totals: TreeTotals) {
        let mut updates = std::mem::take(&mut self.unsent);
        match self.outbox.back_mut() {
            Some(last) if tell.joined => {
                last.updates.append(&mut updates);
                last.status = tell.status.or(last.status);
                last.error = tell.error.or(last.error.take());
                last.totals = totals;
            }
            _ => {
                self.told += 1;
                self.outbox.push_back(Told {
                    number: self.told,
                    signals: tell.signals,
                    updates,
                    status: tell.status,
                    error: tell.error,
                    totals,
                });
            }
        }
    }
}
