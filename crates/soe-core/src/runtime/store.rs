//! The engine's way to its stores: commits that are published, and calls that a shutdown doesn't wait for forever.

use std::sync::Arc;
use std::time::Duration;

use soe_backends::{Change, Commit, Event, ExecutionChange, ExecutionId, ExecutionState, Owed, RegistryId, TreeState};
use tracing::Level;

use super::shared::Shared;
use super::{EngineError, EngineErrorKind};
use crate::config::Registry;

/// How long a store that is in the middle of a call may hold up an engine that stops. A call that is dropped then has
/// happened or not: for a commit, the next one to take the execution up sees which.
const LAST_CALL: Duration = Duration::from_secs(5);

impl Shared {
    /// Stores commits of one tree, whose state they make is `after`, then tells those who follow it.
    ///
    /// # Errors
    /// The store fails, another process runs the tree, or the engine stopped while the store didn't answer.
    pub(super) async fn commit(
        self: &Arc<Self>,
        tree: &ExecutionId,
        commits: Vec<Commit>,
        after: Arc<TreeState>,
    ) -> Result<(), EngineError> {
        if commits.is_empty() {
            return Ok(());
        }
        self.hold_lease().await.map_err(|error| error.of(tree))?;
        let traced = tracing::enabled!(Level::DEBUG);
        let followed = self.subscribers.any();
        let events: Vec<Event> = match traced || followed {
            true => commits.iter().flat_map(|commit| &commit.events).cloned().collect(),
            false => Vec::new(),
        };
        let stored = self.call(self.backends.commit(commits, Some(after))).await;
        stored.map_err(|error| error.of(tree))?;
        if traced {
            for event in &events {
                tracing::debug!(execution = %event.execution, event = event.kind.name(), seq = event.seq, data = ?event.kind);
            }
        }
        if followed {
            self.subscribers.publish(tree, events);
        } else if self.subscribers.any() {
            // Somebody came while the commit was stored, perhaps too early to find it in the store.
            self.subscribers.point_to_store(tree);
        }
        Ok(())
    }

    /// Gives stores of their own what they are owed.
    ///
    /// # Errors
    /// One of them fails.
    pub(super) async fn pay(&self, tree: &TreeState, owed: &Owed) -> Result<(), EngineError> {
        let paid = self.call(self.backends.pay(tree, owed)).await;
        if !owed.events.is_empty() && self.subscribers.any() {
            // Somebody may have come after these were published, and before they could be read.
            self.subscribers.point_to_store(&tree.root);
        }
        paid.map_err(|error| error.of(&tree.root))
    }

    /// The stored state of the tree to which an execution belongs.
    ///
    /// # Errors
    /// There is none, the store fails, or the engine stopped while the store didn't answer.
    pub(super) async fn load_tree(&self, execution: &ExecutionId) -> Result<Arc<TreeState>, EngineError> {
        let tree = self.find_tree(&execution.root()).await?;
        tree.ok_or_else(|| EngineError::new(EngineErrorKind::NotFound).of(execution))
    }

    /// The stored state of a tree, by its root; `None` if there is none.
    pub(super) async fn find_tree(&self, root: &ExecutionId) -> Result<Option<Arc<TreeState>>, EngineError> {
        let state = self.call(self.backends.context().load(root)).await;
        state.map_err(|error| error.of(root))
    }

    /// The stored state of an execution.
    ///
    /// # Errors
    /// There is none, the store fails, or the engine stopped while the store didn't answer.
    pub(super) async fn load(&self, execution: &ExecutionId) -> Result<Arc<ExecutionState>, EngineError> {
        let state = self.find(execution).await?;
        state.ok_or_else(|| EngineError::new(EngineErrorKind::NotFound).of(execution))
    }

    /// As [`Shared::load`]; `None` if there is none.
    pub(super) async fn find(&self, execution: &ExecutionId) -> Result<Option<Arc<ExecutionState>>, EngineError> {
        let tree = self.find_tree(&execution.root()).await?;
        Ok(tree.and_then(|tree| tree.find(execution).cloned()))
    }

    /// The registry `id`, which `execution` uses or has used.
    ///
    /// # Errors
    /// The store doesn't have it or fails, or the engine stopped while the store didn't answer.
    pub(super) async fn registry(
        &self,
        id: &RegistryId,
        execution: &ExecutionId,
    ) -> Result<Arc<Registry>, EngineError> {
        self.call(self.registries.find(&self.backends, id, execution)).await
    }

    /// Tells a separate store of workflows which of them an execution uses now. That is for people, the state says it too:
    /// so a failure stops nothing.
    pub(super) async fn show_workflows(&self, state: &ExecutionState) {
        if self.backends.sections().registry {
            return;
        }
        let store = self.backends.workflows();
        let told = self.call(store.set_current(&state.id, &state.registry, &state.workflow));
        if let Err(error) = told.await {
            let error = format_args!("{error:#}");
            tracing::warn!(%error, "the store of workflows doesn't show the current ones");
        }
    }

    /// Waits for a call of the store, unless the engine stops and the store doesn't answer.
    pub(super) async fn call<T, E: Into<EngineError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, EngineError> {
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(LAST_CALL).await;
        };
        tokio::select! {
            biased;
            result = call => result.map_err(Into::into),
            () = stopped => Err(EngineError::because(
                EngineErrorKind::ShutDown,
                "the store didn't answer in time; whether it took the last change is not known",
            )),
        }
    }
}

/// Whether a commit makes the root go on with other workflows.
pub(super) fn changes_workflows(commit: &Commit) -> bool {
    let is_change = |change: &Change| {
        let Change::In { execution: 0, change } = change else {
            return false;
        };
        matches!(change, ExecutionChange::Registry(_))
    };
    commit.changes.iter().any(is_change)
}
