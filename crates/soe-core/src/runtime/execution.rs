//! A handle on one execution.

use std::sync::Arc;

use soe_backends::{Context, ExecutionId, ExecutionSummary, History};
use tokio::sync::watch;

use super::shared::{Finished, Progress};
use super::wait::end_of;
use super::{Engine, EngineError, EngineErrorKind, EventStream, TokenStream};

/// A handle on an execution. Cheap to clone; dropping it doesn't cancel the execution.
#[derive(Clone, Debug)]
pub struct Execution {
    pub(super) engine: Engine,
    pub(super) id: ExecutionId,
    /// How its first stretch ended, if this handle comes from its start.
    pub(super) started: Option<watch::Receiver<Progress>>,
}

impl Execution {
    /// Its id.
    pub fn id(&self) -> &ExecutionId {
        &self.id
    }

    /// As [`Engine::wait`].
    ///
    /// # Errors
    /// As [`Engine::wait`].
    pub async fn wait(&self) -> Result<Finished, EngineError> {
        let result = self.engine.wait(&self.id).await;
        if let (Err(error), Some(mut started)) = (&result, self.started.clone())
            && matches!(error.kind(), EngineErrorKind::Failed(_) | EngineErrorKind::NotActive)
            && let Some(Err(first)) = end_of(&mut started).await
        {
            let explains = match error.kind() {
                // Why nobody runs it.
                EngineErrorKind::NotActive => {
                    matches!(first.kind(), EngineErrorKind::Backend | EngineErrorKind::Internal)
                }
                // The same failure, with the application's error as its source.
                kind => first.kind() == kind,
            };
            if explains {
                return Err(first);
            }
        }
        result
    }

    /// As [`Engine::broadcast_signals`].
    ///
    /// # Errors
    /// As [`Engine::broadcast_signals`].
    pub async fn signal<S: Into<Arc<str>>>(&self, signals: impl IntoIterator<Item = S>) -> Result<(), EngineError> {
        self.engine.broadcast_signals(&self.id, signals).await
    }

    /// As [`Engine::cancel`].
    ///
    /// # Errors
    /// As [`Engine::cancel`].
    pub async fn cancel(&self) -> Result<(), EngineError> {
        self.engine.cancel(&self.id).await
    }

    /// As [`Engine::wait_tree`].
    ///
    /// # Errors
    /// As [`Engine::wait_tree`].
    pub async fn wait_tree(&self) -> Result<Finished, EngineError> {
        self.engine.wait_tree(&self.id).await
    }

    /// As [`Engine::tree_events`], from the first event on.
    pub fn tree_events(&self) -> EventStream {
        self.engine.tree_events(&self.id, 0)
    }

    /// As [`Engine::events`].
    pub fn events(&self) -> EventStream {
        self.engine.events(&self.id)
    }

    /// As [`Engine::tokens`].
    pub fn tokens(&self) -> TokenStream {
        self.engine.tokens(&self.id)
    }

    /// As [`Engine::status`].
    ///
    /// # Errors
    /// As [`Engine::status`].
    pub async fn status(&self) -> Result<ExecutionSummary, EngineError> {
        self.engine.status(&self.id).await
    }

    /// As [`Engine::context`].
    ///
    /// # Errors
    /// As [`Engine::context`].
    pub async fn context(&self) -> Result<Arc<Context>, EngineError> {
        self.engine.context(&self.id).await
    }

    /// As [`Engine::history`].
    ///
    /// # Errors
    /// As [`Engine::history`].
    pub async fn history(&self, field: &str) -> Result<History, EngineError> {
        self.engine.history(&self.id, field).await
    }
}
