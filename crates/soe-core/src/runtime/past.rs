//! Earlier versions of trees: what each commit changed, and what came of it.

use std::sync::Arc;

use soe_backends::{Commit, Context, ExecutionId, TreeState};

use super::shared::Shared;
use super::wait::number_in;
use super::{Engine, EngineError, EngineErrorKind};

impl Engine {
    /// The history of the tree of an execution: at most `limit` of its commits from version `from` on, in order. Each says when it
    /// was made, what it changed, and, where telemetry is stored, what happened. The first is version 1; none come after the last.
    ///
    /// # Errors
    /// It doesn't exist; the store [keeps no commits](soe_backends::ContextBackend::keeps_commits)
    /// ([`EngineErrorKind::Unsupported`]), or fails.
    pub async fn commits(&self, execution: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Commit>, EngineError> {
        let shared = &self.shared;
        shared.load(execution).await?;
        shared.check_keeps_commits(execution)?;
        let root = execution.root();
        let commits = shared.call(shared.backends.context().commits(&root, from, limit));
        commits.await.map_err(|error| error.of(execution))
    }

    /// The state of the tree of an execution as its commit `version` made it. The version that is stored now can be had of every
    /// store.
    ///
    /// # Errors
    /// It doesn't exist; it has no such version ([`EngineErrorKind::NoSuchVersion`], which says which there are); the store
    /// [keeps no commits](soe_backends::ContextBackend::keeps_commits) ([`EngineErrorKind::Unsupported`]), or fails.
    pub async fn tree_at(&self, execution: &ExecutionId, version: u64) -> Result<Arc<TreeState>, EngineError> {
        self.shared.tree_at(execution, version).await
    }

    /// The context of an execution as the commit `version` of its tree made it.
    ///
    /// # Errors
    /// As [`Engine::tree_at`]; or the execution didn't exist then.
    pub async fn context_at(&self, execution: &ExecutionId, version: u64) -> Result<Arc<Context>, EngineError> {
        let tree = self.tree_at(execution, version).await?;
        let number = number_in(&tree, execution)?;
        let state = tree.get(number).map(|state| state.context.clone());
        state.ok_or_else(|| EngineError::new(EngineErrorKind::NotFound).of(execution))
    }
}

impl Shared {
    pub(super) async fn tree_at(&self, execution: &ExecutionId, version: u64) -> Result<Arc<TreeState>, EngineError> {
        let now = self.load_tree(execution).await?;
        let last = now.version;
        if version == last {
            return Ok(now);
        }
        let missing = || EngineError::new(EngineErrorKind::NoSuchVersion { version, last }).of(execution);
        if version == 0 || version > last {
            return Err(missing());
        }
        self.check_keeps_commits(execution)?;
        let tree = self
            .call(self.backends.context().load_at(&execution.root(), version))
            .await;
        tree.map_err(|error| error.of(execution))?.ok_or_else(missing)
    }

    fn check_keeps_commits(&self, execution: &ExecutionId) -> Result<(), EngineError> {
        if self.backends.context().keeps_commits() {
            return Ok(());
        }
        let why = "it keeps the present state only (memory and files do; SQLite keeps every version)";
        Err(EngineError::because(EngineErrorKind::Unsupported, why).of(execution))
    }
}
