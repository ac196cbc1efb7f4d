//! Forks: executions that go on with a copy of another's state, as that was at one of its versions.

use std::sync::Arc;

use soe_backends::{
    ApplyError, Change, EventKind, ExecutionId, ExecutionState, Forked, Genesis, History, Limits, RegistryDocument,
    Run, Status, Timestamp, TreeShared, Turn,
};

use super::transaction::{Applied, Transaction};
use super::{Machine, MachineError, Specs, Step, check_fields};
use crate::config::Registry;
use crate::llm::written_by;

/// How a fork begins.
#[derive(Clone, Debug)]
pub struct Fork {
    /// Its id.
    pub id: ExecutionId,
    /// The state that it goes on with.
    pub source: ExecutionState,
    /// What the source's tree shared then.
    pub shared: TreeShared,
    /// The registries that the source needs to go on: [`Machine::needed_registries`].
    pub registries: Vec<Arc<Registry>>,
    /// Values that are appended to the source's fields. Names that begin with `__` are refused.
    pub fields: Vec<(Arc<str>, History)>,
    /// What its tree may use; `None` for what the source's may.
    pub limits: Option<Arc<Limits>>,
}

impl Machine {
    /// Creates an execution that goes on with another's state: the root of a tree of its own. The step's commit is its first.
    ///
    /// Everything is as it was, with these exceptions. Runs in flight start again, on the context of the fork. There are no
    /// children, and no parent: what they would have told never comes. What the source had failed with is tried again; one
    /// that was cancelled has nothing in flight, and rests.
    ///
    /// # Errors
    /// The fields are refused, or a registry is missing.
    pub fn fork(at: Timestamp, fork: Fork, specs: impl Into<Specs>) -> Result<(Self, Step), MachineError> {
        let source = fork.source;
        let limits = fork.limits.unwrap_or_else(|| source.limits.clone());
        let merged: Vec<Arc<str>> = fork.fields.iter().map(|(name, _)| name.clone()).collect();
        let fields = with_appended(&source, fork.fields);
        let genesis = Genesis {
            workflow: source.workflow.clone(),
            registry: source.registry.clone(),
            main_execution_id: fork.id.clone(),
            parent: None,
            schedule: source.schedule,
            context_bytes: check_fields(&fields, &limits)?,
            limits,
            fields,
            forked: Some(Box::new(Forked::of(&source))),
        };
        let state = ExecutionState::genesis(fork.id, &genesis, at);
        let mut machine = Self::of(state, fork.registries, specs.into());
        for id in Self::needed_registries(&source) {
            machine.registry(&id).ok_or(MachineError::MissingRegistry(id))?;
        }
        machine.look_up_stack()?;
        let document = machine.registry(&source.registry).map(|registry| RegistryDocument {
            id: registry.id.clone(),
            workflows: registry.document.clone(),
        });

        let mut transaction = Transaction::begin(&mut machine, at);
        transaction.created(genesis);
        transaction.forked_events(&source, merged);
        transaction.turns = turns_of(&source, fork.shared.turns);
        transaction.go_on_as(&source)?;
        transaction.registry = document.map(Arc::new);
        transaction.definitions =
            Some(Box::new(fork.shared.definitions)).filter(|shared| **shared != Default::default());
        let step = transaction.end()?;
        Ok((machine, step))
    }
}

impl Transaction<'_> {
    fn forked_events(&mut self, source: &ExecutionState, merged: Vec<Arc<str>>) {
        self.event(EventKind::ExecutionForked {
            source_execution_id: source.id.clone(),
            version: source.version,
        });
        self.event(EventKind::OrchestrationStart {
            workflow_name: source.workflow.clone(),
        });
        if !merged.is_empty() {
            let fields = merged.into();
            self.event(EventKind::ContextMerge { fields });
        }
    }

    /// Takes up what the source had not finished.
    fn go_on_as(&mut self, source: &ExecutionState) -> Applied {
        let status = match source.status {
            Status::Prepared => return Ok(()),
            Status::Rested | Status::Cancelled => Status::Rested,
            _ => Status::Running,
        };
        self.change(Change::Status {
            status,
            at: self.at,
            failure: None,
        })?;
        if status == Status::Rested {
            self.event(EventKind::ExecutionRested {});
            return Ok(());
        }
        for run in source.runs.values() {
            self.restart(run)?;
        }
        self.cascade()
    }

    /// Starts a run again, from its beginning: under a number of its own, with the node that it was pinned to.
    fn restart(&mut self, before: &Run) -> Applied {
        let node = self.node_of(before)?;
        let progress = self.beginning(&node);
        let run = Run {
            number: self.state().next_run,
            snapshot: self.state().version + 1,
            started_at: self.at,
            progress: progress.ok_or(ApplyError::Mismatch("a run in flight is that of a router"))?,
            ..before.clone()
        };
        self.put_in_flight(run, &node, Change::Restarted)
    }
}

/// The histories of the source, and what is appended to them.
fn with_appended(source: &ExecutionState, more: Vec<(Arc<str>, History)>) -> Vec<(Arc<str>, History)> {
    let mut fields = source.context.fields.clone();
    for (name, history) in more {
        let field = fields.entry(&name);
        history.iter().for_each(|value| field.push(value.clone()));
    }
    fields
        .iter()
        .map(|(name, history)| (name.clone(), history.clone()))
        .collect()
}

/// The conversation as it was: without what the source has said since, and without what runs have said that start again. What
/// was on its way to a separate store is part of it.
fn turns_of(source: &ExecutionState, stored: Vec<Turn>) -> Vec<Turn> {
    let is_kept = |turn: &Turn| match written_by(turn) {
        Some((run, _)) if run.execution == source.id => {
            run.number < source.next_run && !source.runs.contains_key(&run.number)
        }
        _ => true,
    };
    let is_stored = |turn: &&Turn| stored.iter().any(|stored| stored.key == turn.key);
    let waiting: Vec<Turn> = source.turns.iter().filter(|turn| !is_stored(turn)).cloned().collect();
    stored.into_iter().chain(waiting).filter(is_kept).collect()
}
