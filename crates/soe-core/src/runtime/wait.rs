//! Waiting until an execution, and all below it, is at rest.

use soe_backends::{ExecutionId, Status, TreeState};
use tokio::sync::{oneshot, watch};

use super::inbox::LOOK;
use super::shared::{Active, Finished, Message, Progress, ended};
use super::{Engine, EngineError, EngineErrorKind};

impl Engine {
    /// Waits until an execution rests: nothing is in flight in it and in all that is below it. Another process may run it.
    ///
    /// Cancel safety: dropping the future changes nothing.
    ///
    /// # Errors
    /// It doesn't exist; it has failed, is suspended or cancelled; or no process runs it. The application's
    /// error that failed it is the error's source only for those who waited while it failed, and for the handle that
    /// [`Engine::start`] gave; later the text is left.
    pub async fn wait(&self, execution: &ExecutionId) -> Result<Finished, EngineError> {
        let shared = &self.shared;
        let root = execution.root();
        let mut seen = None;
        loop {
            let active = shared.active().get(&root).cloned();
            if let Some(active) = active {
                let end = match *execution == root {
                    true => end_of(&mut active.progress.clone()).await,
                    false => wait_in(&active, execution).await,
                };
                match end {
                    Some(Err(error)) if *error.kind() == EngineErrorKind::LostRace => {}
                    Some(Err(error)) if matches!(error.kind(), EngineErrorKind::Elsewhere { .. }) => {}
                    Some(result) => return result,
                    None => {}
                }
                seen = None;
            }
            let tree = shared.load_tree(execution).await?;
            let number = number_in(&tree, execution)?;
            if tree.status(number) != Some(Status::Running) {
                return ended(&tree, number, None);
            }
            match shared.check_owner(&tree).await {
                // Another process runs it: what it stores is looked at.
                Err(error) if matches!(error.kind(), EngineErrorKind::Elsewhere { .. }) => self.look_again().await?,
                Err(error) => return Err(error),
                // Running, but without a coordinator here: unless one came or went just now, nobody here runs it.
                Ok(()) if seen == Some(tree.version) => return ended(&tree, number, None),
                Ok(()) => seen = Some(tree.version),
            }
        }
    }

    /// Waits until the whole tree of an execution is at rest.
    ///
    /// Cancel safety: dropping the future changes nothing.
    ///
    /// # Errors
    /// As [`Engine::wait`], for the root.
    pub async fn wait_tree(&self, execution: &ExecutionId) -> Result<Finished, EngineError> {
        self.wait(&execution.root()).await
    }

    async fn look_again(&self) -> Result<(), EngineError> {
        tokio::select! {
            () = self.shared.stop.cancelled() => Err(EngineError::new(EngineErrorKind::ShutDown)),
            () = tokio::time::sleep(LOOK) => Ok(()),
        }
    }
}

/// The number of an execution in its tree.
pub(super) fn number_in(tree: &TreeState, execution: &ExecutionId) -> Result<u64, EngineError> {
    let number = tree.number_of(execution);
    number.ok_or_else(|| EngineError::new(EngineErrorKind::NotFound).of(execution))
}

/// Waits for an execution of a tree that this process runs; `None` if the coordinator went away without an answer.
async fn wait_in(active: &Active, execution: &ExecutionId) -> Option<Result<Finished, EngineError>> {
    let (reply, answer) = oneshot::channel();
    let message = Message::Wait {
        execution: execution.clone(),
        reply,
    };
    active.mailbox.send(Box::new(message)).await.ok()?;
    answer.await.ok()
}

/// Waits for the end of a coordinator; `None` if it went away without saying how it ended.
pub(super) async fn end_of(progress: &mut watch::Receiver<Progress>) -> Option<Result<Finished, EngineError>> {
    let ended = progress
        .wait_for(|progress| matches!(progress, Progress::Ended(_)))
        .await;
    match &*ended.ok()? {
        Progress::Ended(result) => Some(result.clone()),
        Progress::Running => None,
    }
}
