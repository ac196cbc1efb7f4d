//! Forks: trees that go on with a copy of another's state, as that was at one of its versions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use soe_backends::{
    Change, Context, Definitions, EventKind, ExecutionChange, ExecutionId, ExecutionState, FORMAT, History, Limits,
    NumberMap, Owed, ParentInfo, Progress, Run, Status, Timestamp, TreeState, Turn,
};

use super::transaction::{Applied, Transaction};
use super::{Machine, MachineError, Specs, Step, check_fields, document_of};
use crate::config::Registry;
use crate::llm::written_by;

/// How a fork begins.
#[derive(Clone, Debug)]
pub struct Fork {
    /// The id of its root.
    pub id: ExecutionId,
    /// The state that it goes on with.
    pub source: Arc<TreeState>,
    /// The conversation history of the source then.
    pub turns: Vec<Turn>,
    /// The registries that the source needs to go on: [`TreeState::needed_registries`].
    pub registries: Vec<Arc<Registry>>,
    /// Values that are appended to the fields of the root. Names that begin with `__` are refused.
    pub fields: Vec<(Arc<str>, History)>,
    /// What the fork may use; `None` for what the source may.
    pub limits: Option<Arc<Limits>>,
}

impl Machine {
    /// Creates a tree that goes on with another's state: its executions, their runs in flight, its work list. The step's commit is
    /// its first.
    ///
    /// Everything is as it was, with these exceptions. Its executions are named after the new root, so runs in flight start
    /// again under new keys; those of the root begin anew if fields are given, and read them. What the root had failed with is tried again; a root that was cancelled has nothing in flight, and
    /// rests. The inbox and the owner are the source's own.
    ///
    /// # Errors
    /// The fields are refused, or a registry is missing.
    pub fn fork(at: Timestamp, fork: Fork, specs: impl Into<Specs>) -> Result<(Self, Step), MachineError> {
        let limits = fork.limits.unwrap_or_else(|| fork.source.limits.clone());
        check_fields(&fork.fields, &limits)?;
        let state = Renaming::of(&fork.source, &fork.id).tree(limits);
        let mut machine = Self::of(state.clone(), fork.registries, specs.into());
        for id in machine.state.needed_registries() {
            machine.registry(&id).ok_or(MachineError::MissingRegistry(id))?;
        }
        machine.look_up_stack()?;
        let documents: Vec<_> = machine
            .registries
            .values()
            .map(|registry| document_of(registry))
            .collect();

        let mut transaction = Transaction::begin(&mut machine, at);
        transaction.created(Change::Forked(Box::new(state)));
        transaction.registries = documents;
        let definitions = transaction.machine.state.definitions.clone();
        transaction.definitions = Some(definitions).filter(|shared| **shared != Definitions::default());
        transaction.turns = turns_of(&fork.source, fork.turns, &fork.id, !fork.fields.is_empty());
        transaction.forked_events(&fork.source);
        transaction.merge(fork.fields)?;
        transaction.go_on_as(&fork.source)?;
        transaction.drain()?;
        let step = transaction.end()?;
        Ok((machine, step))
    }
}

impl Transaction<'_> {
    fn forked_events(&mut self, source: &TreeState) {
        self.event(EventKind::ExecutionForked {
            source_execution_id: source.root.clone(),
            version: source.version,
        });
        let workflow_name = self.state().workflow.clone();
        self.event(EventKind::OrchestrationStart { workflow_name });
    }

    fn merge(&mut self, fields: Vec<(Arc<str>, History)>) -> Result<(), MachineError> {
        if fields.is_empty() {
            return Ok(());
        }
        let mut total = self.state().context_bytes;
        let names: Vec<Arc<str>> = fields.iter().map(|(name, _)| name.clone()).collect();
        for (field, history) in fields {
            for value in history.iter() {
                let size = value.size();
                total = total.saturating_add(size);
                self.append(field.clone(), value.clone(), size)?;
            }
        }
        let allowed = self.limits().context_bytes;
        if total > allowed {
            return Err(MachineError::TooLarge {
                limit: "context_bytes",
                allowed,
                what: "the whole context".to_owned(),
                size: total,
            });
        }
        self.event(EventKind::ContextMerge { fields: names.into() });
        Ok(self.begin_anew()?)
    }

    /// The root was given other values: its runs in flight begin anew and read them, but for those that start children.
    fn begin_anew(&mut self) -> Applied {
        let runs: Vec<Arc<Run>> = self.state().runs.values().cloned().collect();
        for run in runs.iter().filter(|run| !matches!(run.progress, Progress::Child(_))) {
            let node = self.node_of(run)?;
            if let Some(progress) = self.beginning(&node) {
                let run = run.number;
                self.change(ExecutionChange::Progressed { run, progress })?;
            }
        }
        let snapshots: BTreeSet<u64> = runs.iter().map(|run| run.snapshot).collect();
        for run in snapshots {
            self.change(ExecutionChange::Snapshot { run })?;
        }
        Ok(())
    }

    /// Takes up what the source had not finished.
    fn go_on_as(&mut self, source: &TreeState) -> Applied {
        match source.root_state().map(|root| root.status) {
            Some(Status::Failed) => self.resume(0, None).or_else(|error| match error {
                MachineError::Broken(error) => Err(error),
                _ => Ok(()),
            }),
            Some(Status::Running) => {
                // What ran keeps its snapshots; runs of which something is in flight begin their attempts again.
                self.recover()
            }
            _ => Ok(()),
        }
    }
}

/// Gives executions the names that they have in a fork.
struct Renaming<'s> {
    source: &'s TreeState,
    root: &'s ExecutionId,
    /// Those that executions share.
    parents: HashMap<*const ParentInfo, Arc<ParentInfo>>,
}

impl<'s> Renaming<'s> {
    fn of(source: &'s TreeState, root: &'s ExecutionId) -> Self {
        Self {
            source,
            root,
            parents: HashMap::new(),
        }
    }

    fn tree(mut self, limits: Arc<Limits>) -> TreeState {
        let source = self.source;
        let cancelled = source.root_state().is_some_and(|root| root.status == Status::Cancelled);
        let mut executions: NumberMap<Arc<ExecutionState>> = NumberMap::default();
        for state in source.executions.values() {
            let mut state = self.execution(state, &executions);
            if cancelled {
                // The end of the root held for all below it: they keep it, and the root rests.
                state.status = match state.number {
                    0 => Status::Rested,
                    _ => Status::Cancelled,
                };
                let children = state.children.as_deref().cloned();
                state.children = children.map(|children| soe_backends::Children { active: 0, ..children }.into());
            }
            executions.insert(state.number, Arc::new(state));
        }
        TreeState {
            format: FORMAT,
            root: self.root.clone(),
            version: 0,
            owner: None,
            limits,
            next_event: 0,
            executions,
            inbox: 0,
            owed: Arc::new(Owed::default()),
            ..source.clone()
        }
    }

    fn execution(&mut self, state: &ExecutionState, above: &NumberMap<Arc<ExecutionState>>) -> ExecutionState {
        let id = match state.id.path_below(&self.source.root) {
            None => self.root.clone(),
            Some(path) => self.child(state, path, above),
        };
        let snapshots = state.snapshots.iter();
        let snapshots = snapshots.map(|(run, context)| (run, self.context(context))).collect();
        ExecutionState {
            id,
            context: self.context(&state.context),
            snapshots,
            ..state.clone()
        }
    }

    fn child(&self, state: &ExecutionState, path: &str, above: &NumberMap<Arc<ExecutionState>>) -> ExecutionId {
        let place = path.rsplit('.').next().and_then(|place| place.parse().ok());
        let origin = state.origin.as_ref().filter(|_| !path.starts_with("0."));
        let named = origin.zip(place).and_then(|(origin, place)| {
            let parent = above.get(origin.parent)?;
            Some(parent.id.child(self.root, origin.run, place, state.number))
        });
        named.unwrap_or_else(|| self.root.by_number(state.number))
    }

    fn context(&mut self, context: &Arc<Context>) -> Arc<Context> {
        let mut renamed = context.as_ref().clone();
        renamed.operational.main_execution_id = Some(self.root.clone());
        renamed.parent = context.parent.as_ref().map(|parent| self.parent(parent));
        Arc::new(renamed)
    }

    fn parent(&mut self, parent: &Arc<ParentInfo>) -> Arc<ParentInfo> {
        let (source, root) = (self.source, self.root);
        let renamed = self.parents.entry(Arc::as_ptr(parent)).or_insert_with(|| {
            let of_parent = renamed(&parent.parent_execution_id, &source.root, root);
            Arc::new(ParentInfo {
                parent_execution_id: of_parent,
                main_execution_id: root.clone(),
                ..parent.as_ref().clone()
            })
        });
        renamed.clone()
    }
}

/// An execution's name in a tree with another root.
fn renamed(id: &ExecutionId, source: &ExecutionId, root: &ExecutionId) -> ExecutionId {
    let path = id.path_below(source);
    let named = path.and_then(|path| ExecutionId::new(format!("{root}.{path}")).ok());
    named.unwrap_or_else(|| root.clone())
}

/// The conversation as it was: without what runs have said later, or that begin `anew`. What was on its way to a store of its own
/// is part of it.
fn turns_of(source: &TreeState, stored: Vec<Turn>, root: &ExecutionId, anew: bool) -> Vec<Turn> {
    let left_out = |turn: &Turn| {
        let (run, _) = written_by(turn)?;
        let state = source.find(&run.execution)?;
        let begins_anew = anew && state.number == 0 && state.runs.contains(run.number);
        Some(run.number >= state.next_run || begins_anew)
    };
    let is_stored = |turn: &&Turn| stored.iter().any(|stored| stored.key == turn.key);
    let owed: Vec<Turn> = source
        .owed
        .turns
        .iter()
        .filter(|turn| !is_stored(turn))
        .cloned()
        .collect();
    let kept = stored
        .into_iter()
        .chain(owed)
        .filter(|turn| !left_out(turn).unwrap_or(false));
    let rename = |turn: Turn| match written_by(&turn) {
        Some((run, number)) => Turn {
            key: Some(
                format!(
                    "{}:{}/{number}",
                    renamed(&run.execution, &source.root, root),
                    run.number
                )
                .into(),
            ),
            ..turn
        },
        None => turn,
    };
    kept.map(rename).collect()
}
