//! Versions of an execution's workflows: one replaces another as a whole, within an event.

use std::sync::Arc;

use soe_backends::{EditedBy, EventKind, ExecutionChange, Status, WorkflowChange, WorkflowEdit, WorkflowVersion};

use super::transaction::{Applied, Transaction};
use super::{MachineError, document_of};
use crate::config::Registry;

impl Transaction<'_> {
    /// The workflows are again those of an earlier version.
    pub(super) fn revert(&mut self, to: u64, registry: Arc<Registry>) -> Result<(), MachineError> {
        if self.status() == Status::Cancelled {
            return Err(MachineError::NotAccepting(Status::Cancelled));
        }
        let versions = self.state().workflow_versions();
        let is_it = |version: &Arc<WorkflowVersion>| version.number == to && version.registry == registry.id;
        if !versions.iter().any(is_it) {
            return Err(MachineError::UnknownVersion(to));
        }
        Ok(self.go_on_with(registry, WorkflowEdit::Reverted { to }, None)?)
    }

    /// Goes on with other workflows, if they are others. Runs and batches in progress stay with those that they began with.
    pub(super) fn go_on_with(&mut self, registry: Arc<Registry>, edit: WorkflowEdit, by: Option<EditedBy>) -> Applied {
        let replaces = self.state().registry.clone();
        if registry.id == replaces {
            return Ok(());
        }
        let number = self.state().workflow_version() + 1;
        self.change(ExecutionChange::Registry(Box::new(WorkflowVersion {
            number,
            registry: registry.id.clone(),
            at: self.at,
            edit: edit.clone(),
            by: by.clone(),
        })))?;
        self.event(EventKind::WorkflowChanged(Box::new(WorkflowChange {
            version: number,
            edit,
            by,
            registry: registry.id.clone(),
            replaces,
        })));
        self.registries.push(document_of(&registry));
        self.machine.keep(registry);
        Ok(())
    }
}
