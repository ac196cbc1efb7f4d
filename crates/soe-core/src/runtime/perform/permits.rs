//! Permits belong to single calls: a limit delays, and can't block what holds another.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Every limit that a call is under. Waits until there is a permit of each.
///
/// Nobody holds one permit while waiting for another: those who hold the engine's may be custom nodes that wait for a
/// tool's or an LLM's.
pub(super) async fn all(limits: Vec<Arc<Semaphore>>) -> Vec<OwnedSemaphorePermit> {
    let mut held = Vec::with_capacity(limits.len());
    let mut first = 0;
    'again: loop {
        held.clear();
        // The engine's semaphores are never closed.
        held.extend(limits[first].clone().acquire_owned().await.ok());
        for (i, limit) in limits.iter().enumerate().filter(|(i, _)| *i != first) {
            match limit.clone().try_acquire_owned() {
                Ok(permit) => held.push(permit),
                Err(_) => {
                    first = i;
                    continue 'again;
                }
            }
        }
        return held;
    }
}
