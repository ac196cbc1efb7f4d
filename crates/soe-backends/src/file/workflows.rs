//! `workflows/registries/HASH.json`: each registry once. `workflows/ID_workflows.json` and `workflows/ID_current.txt` show
//! people what an execution uses; nothing reads them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::disk::{self, Lock, Staged, failed};
use super::layout::temporary;
use super::trees::pretty;
use super::{Durability, Inner};
use crate::{BackendError, ExecutionId, RegistryDocument, RegistryId};

impl Inner {
    pub(super) fn put_registry(&self, registry: &RegistryDocument) -> Result<(), BackendError> {
        let path = self.layout.registry(&registry.id);
        let _lock = Lock::take(&self.layout.registries_lock())?;
        if disk::open(&path)?.is_none() {
            let content = pretty(&registry.workflows)?;
            Staged::replace(path.clone(), &[&content], self.durability)?.publish(self.durability)?;
            protect(&path);
        } else if self.durability == Durability::Full {
            // Whoever made it may have died before it was durable.
            disk::sync_folder(&path)?;
        }
        Ok(())
    }

    pub(super) fn registry(&self, id: &RegistryId) -> Result<Option<Arc<RegistryDocument>>, BackendError> {
        let path = self.layout.registry(id);
        let Some(content) = disk::read(&path)? else {
            return Ok(None);
        };
        let workflows = disk::parse(&content, &path)?;
        Ok(Some(Arc::new(RegistryDocument {
            id: id.clone(),
            workflows,
        })))
    }

    pub(super) fn set_current(
        &self,
        id: &ExecutionId,
        registry: &RegistryId,
        workflow: &str,
    ) -> Result<(), BackendError> {
        let _lock = Lock::take(&self.layout.lock(id))?;
        self.show_current(id, registry, workflow)
    }

    pub(super) fn delete_current(&self, id: &ExecutionId) -> Result<(), BackendError> {
        let _lock = Lock::take(&self.layout.lock(id))?;
        Staged::remove(self.layout.current_workflows(id)).publish(Durability::Relaxed)?;
        Staged::remove(self.layout.current_name(id)).publish(Durability::Relaxed)
    }

    /// Shows people what an execution uses. Not synced: the state says it too. The caller holds the lock.
    pub(super) fn show_current(
        &self,
        id: &ExecutionId,
        registry: &RegistryId,
        workflow: &str,
    ) -> Result<(), BackendError> {
        let stored = self.layout.registry(registry);
        let shown = self.layout.current_workflows(id);
        if stored.exists() {
            link(&stored, &shown)?;
        } else {
            Staged::remove(shown).publish(Durability::Relaxed)?;
        }
        Staged::replace(
            self.layout.current_name(id),
            &[workflow.as_bytes()],
            Durability::Relaxed,
        )?
        .publish(Durability::Relaxed)
    }
}

/// Makes `target` another name of `original`, or a copy where that can't be (a file system without links, or too many).
fn link(original: &Path, target: &Path) -> Result<(), BackendError> {
    let temporary = temporary(target);
    let _ = fs::remove_file(&temporary);
    if fs::hard_link(original, &temporary).is_err() {
        fs::copy(original, &temporary).map_err(|error| failed("write", &temporary, error))?;
    }
    let renamed = fs::rename(&temporary, target).map_err(|error| failed("replace", target, error));
    // Renaming a name to another name of the same file leaves both.
    let _ = fs::remove_file(&temporary);
    renamed
}

/// Keeps people from editing what they believe to be the workflows of one execution.
fn protect(registry: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Only a precaution: nothing is lost without it.
        let _ = fs::set_permissions(registry, fs::Permissions::from_mode(0o444));
    }
    #[cfg(not(unix))]
    let _ = registry;
}
