//! Versions of an execution's workflows: what it was started with, and what came of each change.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ExecutionState, RegistryId, Timestamp};

/// One version of an execution's workflows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowVersion {
    /// Its number: 0 is what the execution was started with.
    pub number: u64,
    /// The registry that it consists of.
    pub registry: RegistryId,
    /// Since when.
    pub at: Timestamp,
    /// What made it.
    #[serde(flatten)]
    pub edit: WorkflowEdit,
    /// The call that made it; `None` if the application did.
    #[serde(flatten)]
    pub by: Option<EditedBy>,
}

/// What made a version of an execution's workflows. Written as `{"what": "changed", ...}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkflowEdit {
    /// The execution was started with it.
    Started {},
    /// A workflow or a node was injected, changed or removed.
    Changed {
        /// The workflow.
        workflow_name: Arc<str>,
        /// The node, if it wasn't the whole workflow.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changed_node: Option<Arc<str>>,
    },
    /// The workflows are again those of an earlier version.
    Reverted {
        /// That version's number.
        to: u64,
    },
}

/// The call of a built-in tool that changed workflows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditedBy {
    /// The node that made it.
    pub node_name: Arc<str>,
    /// The run's number.
    pub run: u64,
    /// The built-in tool.
    pub tool_name: Arc<str>,
}

/// So many versions are kept: what an execution was started with, and the newest.
const MOST: usize = 1_000;

impl ExecutionState {
    /// The versions of its workflows, oldest first; the last is the current one. Of more than 1,000, those between what the
    /// execution was started with and the newest are left out.
    pub fn workflow_versions(&self) -> Vec<Arc<WorkflowVersion>> {
        match self.versions.is_empty() {
            false => self.versions.values().cloned().collect(),
            true => vec![Arc::new(self.started_with())],
        }
    }

    /// The number of the current version of its workflows.
    pub fn workflow_version(&self) -> u64 {
        self.versions.last_before(u64::MAX).map_or(0, |(number, _)| number)
    }

    /// What an execution without a change was started with.
    fn started_with(&self) -> WorkflowVersion {
        WorkflowVersion {
            number: 0,
            registry: self.registry.clone(),
            at: self.created_at,
            edit: WorkflowEdit::Started {},
            by: None,
        }
    }

    /// Goes on with another version.
    pub(crate) fn put_version(&mut self, version: &WorkflowVersion) {
        if self.versions.is_empty() {
            // Kept from the first change on: most executions have none.
            self.versions.insert(0, Arc::new(self.started_with()));
        }
        if self.versions.len() >= MOST
            && let Some((oldest, _)) = self.versions.first_from(1)
        {
            self.versions.remove(oldest);
        }
        self.registry = version.registry.clone();
        self.workflow_changes += u64::from(version.by.is_some());
        self.versions.insert(version.number, Arc::new(version.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExecutionId, Genesis, Limits, Schedule, TreeGenesis, TreeState};

    fn version(number: u64, by_a_node: bool) -> WorkflowVersion {
        let node = |name: &str| EditedBy {
            node_name: name.into(),
            run: number,
            tool_name: "soe_inject_node".into(),
        };
        WorkflowVersion {
            number,
            registry: RegistryId::from_digest([2; 32]),
            at: Timestamp::from_micros(number),
            edit: match by_a_node {
                true => WorkflowEdit::Changed {
                    workflow_name: "flow".into(),
                    changed_node: None,
                },
                false => WorkflowEdit::Reverted { to: 0 },
            },
            by: by_a_node.then(|| node("N")),
        }
    }

    fn state() -> ExecutionState {
        let id = ExecutionId::new("x").unwrap();
        let root = Genesis {
            id: id.clone(),
            origin: None,
            workflow: "flow".into(),
            registry: RegistryId::from_digest([1; 32]),
            parent: None,
            fields: Vec::new(),
            context_bytes: 0,
        };
        let genesis = TreeGenesis {
            schedule: Schedule::Concurrent,
            limits: Arc::new(Limits::default()),
            definitions: Arc::default(),
            root,
        };
        let tree = TreeState::genesis(id, &genesis, Timestamp::from_micros(0));
        tree.root_state().unwrap().as_ref().clone()
    }

    #[test]
    fn the_first_and_the_newest_versions_are_kept() {
        let mut state = state();
        assert_eq!(state.workflow_versions().len(), 1);
        for number in 1..=5_000 {
            state.put_version(&version(number, true));
        }
        let numbers: Vec<u64> = state.workflow_versions().iter().map(|version| version.number).collect();
        assert_eq!(numbers.len(), MOST);
        assert_eq!((numbers[0], numbers[1], state.workflow_version()), (0, 4_002, 5_000));
        assert_eq!(state.workflow_versions()[0].registry, RegistryId::from_digest([1; 32]));
        assert_eq!(state.workflow_changes, 5_000);
        state.put_version(&version(5_001, false));
        assert_eq!(
            state.workflow_changes, 5_000,
            "the application's changes are not the nodes'"
        );
    }

    #[test]
    fn versions_survive_their_json() {
        for version in [version(1, true), version(2, false)] {
            let json = serde_json::to_value(&version).unwrap();
            assert_eq!(serde_json::from_value::<WorkflowVersion>(json).unwrap(), version);
        }
    }
}
