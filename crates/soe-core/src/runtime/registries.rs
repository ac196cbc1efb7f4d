//! The registries in use, compiled once and shared by all executions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use soe_backends::{BackendError, BackendErrorKind, Backends, ExecutionId, RegistryId, TreeState};

use super::EngineError;
use crate::config::Registry;

/// Compiled registries by id. Those that no execution uses any more are forgotten.
#[derive(Default)]
pub(super) struct Registries(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_id: HashMap<RegistryId, Entry>,
    /// Forgotten ones are swept out when the map has grown to this size.
    sweep_at: usize,
}

struct Entry {
    registry: Weak<Registry>,
    /// The workflows that this engine has everything for.
    checked: Vec<Arc<str>>,
}

impl Registries {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is known that the engine has everything for a workflow.
    pub(super) fn is_checked(&self, registry: &Registry, workflow: &str) -> bool {
        let known = self.known();
        let entry = known
            .by_id
            .get(&registry.id)
            .filter(|entry| entry.registry.strong_count() > 0);
        entry.is_some_and(|entry| entry.checked.iter().any(|checked| checked.as_ref() == workflow))
    }

    /// Keeps in mind that the engine has everything for a workflow.
    pub(super) fn insert_checked(&self, registry: &Arc<Registry>, workflow: &Arc<str>) {
        self.insert(registry);
        if let Some(entry) = self.known().by_id.get_mut(&registry.id) {
            entry.checked.push(workflow.clone());
        }
    }

    fn insert(&self, registry: &Arc<Registry>) {
        let mut known = self.known();
        if known
            .by_id
            .get(&registry.id)
            .is_some_and(|entry| entry.registry.strong_count() > 0)
        {
            return;
        }
        if known.by_id.len() >= known.sweep_at {
            known.by_id.retain(|_, entry| entry.registry.strong_count() > 0);
            known.sweep_at = (known.by_id.len() * 2).max(64);
        }
        let entry = Entry {
            registry: Arc::downgrade(registry),
            checked: Vec::new(),
        };
        known.by_id.insert(registry.id.clone(), entry);
    }

    fn get(&self, id: &RegistryId) -> Option<Arc<Registry>> {
        self.known().by_id.get(id)?.registry.upgrade()
    }

    /// The registry `id` that `execution` uses or has used.
    pub(super) async fn find(
        &self,
        backends: &Backends,
        id: &RegistryId,
        execution: &ExecutionId,
    ) -> Result<Arc<Registry>, EngineError> {
        if let Some(registry) = self.get(id) {
            return Ok(registry);
        }
        let Some(document) = backends.workflows().registry(id).await? else {
            let message = format!("its workflow registry {id} is missing in the store");
            return Err(BackendError::new(BackendErrorKind::Corrupt, message)
                .execution(execution)
                .into());
        };
        let registry = Arc::new(Registry::from_document(document.workflows.clone())?);
        self.insert(&registry);
        Ok(registry)
    }

    /// The registries that are needed to go on with a tree.
    pub(super) async fn load(&self, backends: &Backends, tree: &TreeState) -> Result<Vec<Arc<Registry>>, EngineError> {
        let mut registries = Vec::new();
        for id in tree.needed_registries() {
            registries.push(self.find(backends, &id, &tree.root).await?);
        }
        Ok(registries)
    }
}
