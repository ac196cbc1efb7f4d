//! Signals that tools and custom nodes send, fire and forget.

use std::sync::Arc;

use soe_backends::{ExecutionId, RunId};

use super::shared::Shared;
use crate::tools::SignalError;
use crate::tools::context::SignalSink;

/// So many batches may be on their way at a time: a tool that sends more is told so instead of filling the memory.
pub(super) const IN_FLIGHT: usize = 1_024;

pub(super) struct EngineSignals {
    shared: Arc<Shared>,
    /// The tree that the sender belongs to: signals go to its executions only.
    main: ExecutionId,
}

impl EngineSignals {
    pub(super) fn new(shared: Arc<Shared>, main: ExecutionId) -> Self {
        Self { shared, main }
    }
}

impl SignalSink for EngineSignals {
    fn send(&self, from: &RunId, execution: &ExecutionId, signals: Vec<Arc<str>>) -> Result<(), SignalError> {
        self.shared.check_open().map_err(|_| SignalError::Closed)?;
        let permit = self
            .shared
            .signals
            .clone()
            .try_acquire_owned()
            .map_err(|_| SignalError::Full)?;
        let (shared, main, from, execution) = (self.shared.clone(), self.main.clone(), from.clone(), execution.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let sent = async {
                let target = shared.load(&execution).await?;
                if *target.main_execution_id() != main {
                    tracing::warn!(%from, %execution, "signals refused: the execution belongs to another tree");
                    return Ok(());
                }
                shared.broadcast(&execution, signals).await
            };
            if let Err(error) = sent.await {
                tracing::warn!(%from, %execution, %error, "signals of a node were not taken");
            }
        });
        Ok(())
    }
}
