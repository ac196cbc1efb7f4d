//! Versions of an execution's workflows: one replaces another as a whole, within an event.

use std::sync::Arc;

use soe_backends::{
    Change, EditedBy, EventKind, RegistryDocument, Status, WorkflowChange, WorkflowEdit, WorkflowVersion,
};

use super::transaction::{Applied, Transaction};
use super::{Machine, MachineError};
use crate::config::Registry;

impl Transaction<'_> {
    /// The workflows are again those of an earlier version.
    pub(super) fn revert(&mut self, to: u64, registry: Arc<Registry>) -> Result<(), MachineError> {
        if self.state().status == Status::Cancelled {
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
        self.change(Change::Registry(Box::new(WorkflowVersion {
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
        self.registry = Some(Arc::new(RegistryDocument {
            id: registry.id.clone(),
            workflows: registry.document.clone(),
        }));
        let needed = Machine::needed_registries(&self.machine.state);
        let registries = &mut self.machine.registries;
        registries.retain(|other| other.id != registry.id && needed.contains(&other.id));
        registries.insert(0, registry);
        Ok(())
    }
}
