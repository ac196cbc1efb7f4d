//! Signals that tools and custom nodes send, fire and forget.

use std::sync::Arc;

use soe_backends::{ExecutionId, RunId};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::shared::{Message, Shared};
use crate::tools::SignalError;
use crate::tools::context::SignalSink;

/// So many batches may be on their way at a time: a tool that sends more is told so instead of filling the memory.
pub(super) const IN_FLIGHT: usize = 1_024;

pub(super) struct EngineSignals {
    shared: Arc<Shared>,
    /// The root of the sender's tree. Signals go to the sender's own execution and to the root, and nowhere else.
    main: ExecutionId,
    /// That of the tree. What a run sends arrives in order, and before its completion.
    mailbox: mpsc::Sender<Box<Message>>,
    /// The coordinator's: a tool may send from a thread that has none.
    runtime: Handle,
}

impl EngineSignals {
    /// To be called on the runtime that the tree runs on.
    pub(super) fn new(shared: Arc<Shared>, main: ExecutionId, mailbox: mpsc::Sender<Box<Message>>) -> Self {
        let runtime = Handle::current();
        Self {
            shared,
            main,
            mailbox,
            runtime,
        }
    }
}

impl SignalSink for EngineSignals {
    fn send(&self, from: &RunId, execution: &ExecutionId, signals: Vec<Arc<str>>) -> Result<(), SignalError> {
        let shared = self.shared.clone();
        shared.check_open().map_err(|_| SignalError::Closed)?;
        if from.execution != *execution && self.main != *execution {
            return Err(SignalError::Refused {
                execution: execution.clone(),
                reason: "it is neither the sender's own nor the root of its tree".to_owned(),
            });
        }
        let permit = shared.signals.clone().try_acquire_owned();
        let permit = permit.map_err(|_| SignalError::Full)?;
        let (reply, answer) = oneshot::channel();
        let message = Message::Signal {
            execution: execution.clone(),
            signals: signals.clone(),
            reply,
        };
        let queued = match self.mailbox.try_send(Box::new(message)) {
            Ok(()) => Some(answer),
            // Sent later, they could come after what this run sends next, and after its completion.
            Err(TrySendError::Full(_)) => return Err(SignalError::Full),
            Err(TrySendError::Closed(_)) => None,
        };
        let (from, execution) = (from.clone(), execution.clone());
        let task = async move {
            let _permit = permit;
            let sent = async {
                // Without an answer the coordinator has ended before it read them.
                if let Some(answer) = queued
                    && let Ok(answer) = answer.await
                {
                    return answer;
                }
                shared.signal(&execution, signals).await
            };
            if let Err(error) = sent.await {
                tracing::warn!(%from, %execution, error = %format_args!("{error:#}"), "signals of a node were not taken");
            }
        };
        self.shared.tasks.spawn_on(task, &self.runtime);
        Ok(())
    }
}
