//! The files for people, under the names that the original gave them: what each execution is, what its tree shares. They follow
//! the journal, are not synced, and nothing of ours reads them, but the older part of the telemetry.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::ser::{self, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::disk::Staged;
use super::open::{Entry, remove};
use super::trees::{pretty, stage_yaml};
use super::{Inner, telemetry};
use crate::{
    BackendError, Change, Commit, Context, Durability, ExecutionChange, ExecutionId, ExecutionState, FORMAT, TreeState,
};

/// The names that fields can't have, since they stand for something else in the file of an execution.
pub(super) const OPERATIONAL: &str = "__operational__";
pub(super) const PARENT: &str = "__parent__";
pub(super) const ENGINE: &str = "__engine__";

/// Which files are no more as they should be.
pub(super) struct Changed {
    /// Those of these executions, with whether their workflows are others; `None`: of all.
    executions: Option<BTreeMap<u64, bool>>,
    /// The executions from this number on are new.
    new_from: u64,
    pub(super) definitions: bool,
    pub(super) turns: bool,
}

impl Changed {
    pub(super) const NOTHING: Self = Self {
        executions: Some(BTreeMap::new()),
        new_from: u64::MAX,
        definitions: false,
        turns: false,
    };

    pub(super) const EVERYTHING: Self = Self {
        executions: None,
        new_from: 0,
        definitions: true,
        turns: true,
    };

    pub(super) const DEFINITIONS: Self = Self {
        executions: Some(BTreeMap::new()),
        new_from: u64::MAX,
        definitions: true,
        turns: false,
    };

    pub(super) const TURNS: Self = Self {
        executions: Some(BTreeMap::new()),
        new_from: u64::MAX,
        definitions: false,
        turns: true,
    };

    /// What commits change of the tree that was `before`.
    pub(super) fn by(commits: &[Commit], before: Option<&TreeState>) -> Self {
        let mut touched = BTreeMap::new();
        for change in commits.iter().flat_map(|commit| &commit.changes) {
            let (number, workflows) = match change {
                Change::In { execution, change } => (*execution, matches!(change, ExecutionChange::Registry(_))),
                Change::Started(genesis) => match &genesis.origin {
                    Some((origin, _)) => (origin.parent, false),
                    None => continue,
                },
                _ => continue,
            };
            *touched.entry(number).or_default() |= workflows;
        }
        Self {
            executions: before.map(|_| touched),
            new_from: before.map_or(0, |before| before.executions.len() as u64),
            definitions: commits.iter().any(|commit| commit.definitions.is_some()),
            turns: commits.iter().any(|commit| !commit.turns.is_empty()),
        }
    }

    /// The executions whose files are no more as they should be, and whether their workflows are others.
    fn executions(&self, tree: &TreeState) -> Vec<(Arc<ExecutionState>, bool)> {
        let new = |number: u64| number >= self.new_from;
        let Some(touched) = &self.executions else {
            return tree.executions.values().map(|state| (state.clone(), true)).collect();
        };
        let old = touched
            .iter()
            .map(|(number, workflows)| (*number, *workflows))
            .filter(|(number, _)| !new(*number));
        let all = old.chain((self.new_from..tree.executions.len() as u64).map(|number| (number, true)));
        all.filter_map(|(number, workflows)| Some((tree.get(number)?.clone(), workflows)))
            .collect()
    }
}

impl Inner {
    /// Makes the files for people say what the tree is. The caller holds its lock.
    pub(super) fn show(&self, id: &ExecutionId, entry: &mut Entry, changed: &Changed) -> Result<(), BackendError> {
        let tree = &entry.tree;
        if let Some(state) = &tree.state {
            for (execution, workflows) in changed.executions(state) {
                self.show_execution(&execution, workflows)?;
            }
        }
        if changed.turns {
            let path = self.layout.conversation(id);
            let staged = match tree.turns.is_empty() {
                true => Staged::remove(path),
                false => Staged::replace(path, &[&pretty(&tree.turns)?], Durability::Relaxed)?,
            };
            staged.publish(Durability::Relaxed)?;
        }
        if changed.definitions {
            stage_yaml(self.layout.identities(id), &tree.identities)?.publish(Durability::Relaxed)?;
            stage_yaml(self.layout.schemas(id), &tree.schemas)?.publish(Durability::Relaxed)?;
        }
        telemetry::show(&self.layout.telemetry(id), entry)
    }

    fn show_execution(&self, state: &ExecutionState, workflows: bool) -> Result<(), BackendError> {
        let content = pretty(&Written(state))?;
        let context = self.layout.context(&state.id);
        Staged::replace(context, &[&content], Durability::Relaxed)?.publish(Durability::Relaxed)?;
        match workflows {
            true => self.show_current(&state.id, &state.registry, &state.workflow),
            false => Ok(()),
        }
    }

    /// Removes the files of all executions of a tree, and of those that it had in the form of before. The files of the tree
    /// itself stay: they have what is left of it.
    pub(super) fn remove_shown(&self, id: &ExecutionId, tree: &TreeState, converted: bool) -> Result<(), BackendError> {
        for state in tree.executions.values() {
            self.remove_execution(&state.id)?;
        }
        if converted {
            for old in self.old_executions(id)? {
                self.remove_execution(&old)?;
                if old != *id {
                    remove(&self.layout.telemetry(&old), Durability::Relaxed)?;
                }
            }
        }
        // Nothing that has the form of before may be found once the journal is gone.
        remove(&self.layout.context(id), self.durability)
    }

    pub(super) fn remove_execution(&self, id: &ExecutionId) -> Result<(), BackendError> {
        let files = [
            self.layout.context(id),
            self.layout.current_workflows(id),
            self.layout.current_name(id),
        ];
        let remove = |file: &PathBuf| Staged::remove(file.clone()).publish(Durability::Relaxed);
        files.iter().try_for_each(remove)
    }
}

/// The file of an execution: fields first, the engine's bookkeeping last. A version that kept its state there reads that it has a
/// format that it doesn't know.
struct Written<'a>(&'a ExecutionState);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(state) = self;
        let mut map = serializer.serialize_map(None)?;
        let reserved = |name: &str| [OPERATIONAL, PARENT, ENGINE].contains(&name);
        for (name, history) in state.context.fields.iter().filter(|(name, _)| !reserved(name)) {
            map.serialize_entry(name, history)?;
        }
        map.serialize_entry(OPERATIONAL, &state.context.operational)?;
        if let Some(parent) = &state.context.parent {
            map.serialize_entry(PARENT, parent)?;
        }
        map.serialize_entry(ENGINE, &engine(state).map_err(ser::Error::custom)?)?;
        map.end()
    }
}

/// The state without its contexts.
fn engine(state: &ExecutionState) -> Result<Json, serde_json::Error> {
    let bare = ExecutionState {
        context: Arc::new(Context::default()),
        snapshots: Default::default(),
        ..state.clone()
    };
    let mut engine = serde_json::Map::new();
    engine.insert("format".to_owned(), FORMAT.into());
    if let Json::Object(rest) = serde_json::to_value(&bare)? {
        engine.extend(rest);
    }
    engine.shift_remove("context");
    engine.shift_remove("snapshots");
    Ok(Json::Object(engine))
}
