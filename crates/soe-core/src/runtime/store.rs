//! The engine's way to its stores: commits that are published, and calls that a shutdown doesn't wait for forever.

use std::sync::Arc;
use std::time::Duration;

use soe_backends::{BackendErrorKind, Change, Commit, Definitions, Event, ExecutionId, ExecutionState, RegistryId};
use tracing::Level;

use super::shared::Shared;
use super::{EngineError, EngineErrorKind};
use crate::config::Registry;

/// How long a store that is in the middle of a call may hold up an engine that stops. A call that is dropped then has
/// happened or not: for a commit, the next one to take the execution up sees which.
const LAST_CALL: Duration = Duration::from_secs(5);

impl Shared {
    /// Stores commits of one execution, then tells those who follow it.
    ///
    /// # Errors
    /// The store fails, or the engine stopped while the store didn't answer.
    pub(super) async fn commit(
        self: &Arc<Self>,
        execution: &ExecutionId,
        commits: Vec<Commit>,
    ) -> Result<(), EngineError> {
        if commits.is_empty() {
            return Ok(());
        }
        self.hold_lease().await.map_err(|error| error.of(execution))?;
        let traced = tracing::enabled!(Level::DEBUG);
        let followed = self.subscribers.any();
        let events: Vec<Event> = match traced || followed {
            true => commits.iter().flat_map(|commit| &commit.events).cloned().collect(),
            false => Vec::new(),
        };
        let stored = async {
            match self.backends.commit(commits).await {
                // What happened is stored: an execution doesn't stop because its telemetry can't follow.
                Err(error) if error.kind() == BackendErrorKind::TelemetryLost => {
                    tracing::warn!(%execution, error = &error as &dyn std::error::Error, "telemetry is lost");
                    Ok(())
                }
                result => result,
            }
        };
        self.call(stored).await.map_err(|error| error.of(execution))?;
        if traced {
            for event in &events {
                tracing::debug!(event = event.kind.name(), seq = event.seq, data = ?event.kind);
            }
        }
        if followed {
            self.subscribers.publish(execution, events);
        } else if self.subscribers.any() {
            // Somebody came while the commit was stored, perhaps too early to find it in the store.
            self.subscribers.point_to_store(execution);
        }
        Ok(())
    }

    /// The stored state of an execution.
    ///
    /// # Errors
    /// There is none, the store fails, or the engine stopped while the store didn't answer.
    pub(super) async fn load(&self, execution: &ExecutionId) -> Result<ExecutionState, EngineError> {
        let state = self.find(execution).await?;
        state.ok_or_else(|| EngineError::new(EngineErrorKind::NotFound).of(execution))
    }

    /// As [`Shared::load`]; `None` if there is none.
    pub(super) async fn find(&self, execution: &ExecutionId) -> Result<Option<ExecutionState>, EngineError> {
        let state = self.call(self.backends.context().load(execution)).await;
        state.map_err(|error| error.of(execution))
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

    /// What is stored for an execution's tree, whose root it is.
    ///
    /// # Errors
    /// The store fails, or the engine stopped while the store didn't answer.
    pub(super) async fn definitions(&self, main: &ExecutionId) -> Result<Definitions, EngineError> {
        let mut definitions = Definitions::default();
        if let Some(store) = self.backends.identities() {
            definitions.identities = self.call(store.identities(main)).await?;
        }
        if let Some(store) = self.backends.schemas() {
            definitions.context_schema = self.call(store.schemas(main)).await?;
        }
        Ok(definitions)
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

/// Whether a commit makes an execution go on with other workflows.
pub(super) fn changes_workflows(commit: &Commit) -> bool {
    let is_change = |change: &Change| matches!(change, Change::Registry(_));
    commit.changes.iter().any(is_change)
}
