//! Ending an engine.

use std::sync::atomic::Ordering;
use std::time::Duration;

use soe_backends::ExecutionId;

use super::Engine;

/// How a shutdown went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The executions that were still running and were stopped where they stood. They stay `running` in the store, and can
    /// be gone on with by another engine.
    pub stopped: Vec<ExecutionId>,
}

/// How long tasks whose futures are being dropped may take for it: longer only if a tool blocks its thread.
const LAST_TASKS: Duration = Duration::from_secs(5);

impl Engine {
    /// Takes no new executions and signals any more, waits up to `grace` for those that run to come to rest, then stops the
    /// others. When this returns, the engine does nothing any more (except for tools that block their thread, which nobody
    /// can stop); event streams have ended.
    ///
    /// Cancel safety: if the future is dropped, the engine takes nothing new, and goes on with what runs. Call it again to
    /// stop that too.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let shared = &self.shared;
        {
            let _no_claim_meanwhile = shared.active();
            shared.closing.store(true, Ordering::Release);
        }
        let mut count = shared.active_count.subscribe();
        let drained = tokio::time::timeout(grace, count.wait_for(|count| *count == 0))
            .await
            .is_ok();
        let mut report = ShutdownReport::default();
        if !drained {
            report.stopped = shared.active().keys().cloned().collect();
            report.stopped.sort();
            shared.stop.cancel();
            // Fails only if the sender is gone, and it is part of what `self` holds.
            let _ = count.wait_for(|count| *count == 0).await;
        }
        shared.stop.cancel();
        shared.tasks.close();
        if tokio::time::timeout(LAST_TASKS, shared.tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = shared.tasks.len(),
                "tools block their threads and can't be stopped"
            );
        }
        shared.release_lease().await;
        shared.subscribers.close();
        shared.tokens.close();
        report
    }
}
