//! Taking up what an earlier process, or a failure, has left.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use soe_backends::{Damaged, ExecutionId, Limits, ListQuery};

use super::shared::{Order, Shared};
use super::{Engine, EngineError, EngineErrorKind, Execution};

/// How many trees are looked up at a time.
const PAGE: usize = 500;

/// How many are taken up at a time.
const ABREAST: usize = 64;

/// The most errors that a [`Recovered`] lists.
const MAX_ERRORS: usize = 100;

/// What [`Engine::recover`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// How many trees were taken up.
    pub taken_up: u64,
    /// How many are run by other processes, whose leases hold.
    pub elsewhere: u64,
    /// How many can't be taken up.
    pub refused: u64,
    /// Why, for the first hundred of these. Each names its root.
    pub errors: Vec<EngineError>,
    /// Trees that can't be read at all.
    pub damaged: Vec<Damaged>,
}

impl Engine {
    /// Takes up every tree that something is left to do for: those that an earlier process was running when it ended.
    /// Their runs in flight start again under the same numbers; those that are over don't, and replies that have arrived
    /// are not asked for again. Trees that other processes run are left alone, and can be taken up later, when the
    /// lease of those has ended.
    ///
    /// They go on by themselves: wait for them by their handles ([`Engine::execution`]).
    ///
    /// Cancel safety: if the future is dropped, some may not have been taken up. Calling it again takes up the rest.
    ///
    /// # Errors
    /// The trees can't be listed, or the engine is shut down. What is wrong with a single one is in the result.
    pub async fn recover(&self) -> Result<Recovered, EngineError> {
        let shared = &self.shared;
        let found = Mutex::new(Recovered::default());
        let mut query = ListQuery {
            unsettled: true,
            limit: PAGE,
            ..ListQuery::default()
        };
        // Those that rest, and have messages.
        let mut waiting = shared.call(shared.backends.context().waiting(PAGE)).await?;
        loop {
            shared.check_open()?;
            let page = shared.call(shared.backends.context().list(&query)).await?;
            let roots: Vec<ExecutionId> = page.executions.into_iter().map(|root| root.id).collect();
            waiting.retain(|root| !roots.contains(root));
            let up = |root: ExecutionId| take_up(shared, &found, root);
            futures::stream::iter(roots).for_each_concurrent(ABREAST, up).await;
            found
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .damaged
                .extend(page.damaged);
            query.after = page.next;
            if query.after.is_none() {
                for root in waiting {
                    take_up(shared, &found, root).await;
                }
                return Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Goes on with an execution that has failed, whose failed node runs again, and with what is below it; or with a tree that
    /// was interrupted. Of one that rests, nothing changes. If another process runs the tree, that one does it.
    ///
    /// Cancel safety: if the future is dropped, it may or may not go on.
    ///
    /// # Errors
    /// It doesn't exist or is cancelled; one above it has failed (resume that one); the store
    /// fails; or the engine is shut down.
    pub async fn resume(&self, execution: &ExecutionId) -> Result<Execution, EngineError> {
        self.resume_under(execution, None).await
    }

    /// As [`Engine::resume`], with other limits of the tree from now on: for an execution that has failed because of one.
    ///
    /// # Errors
    /// As [`Engine::resume`].
    pub async fn resume_with(&self, execution: &ExecutionId, limits: Limits) -> Result<Execution, EngineError> {
        self.resume_under(execution, Some(Arc::new(limits))).await
    }

    async fn resume_under(
        &self,
        execution: &ExecutionId,
        limits: Option<Arc<Limits>>,
    ) -> Result<Execution, EngineError> {
        self.shared.check_open()?;
        self.shared.go_on(execution, limits).await?;
        Ok(self.execution(execution.clone()))
    }
}

async fn take_up(shared: &Arc<Shared>, found: &Mutex<Recovered>, id: ExecutionId) {
    if shared.active().contains_key(&id) {
        return;
    }
    let result = shared.control(&id, Order::Recover).await;
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(()) => found.taken_up += 1,
        Err(error) if is_anothers(&error) => found.elsewhere += 1,
        Err(error) => {
            found.refused += 1;
            if found.errors.len() < MAX_ERRORS {
                found.errors.push(error.of(&id));
            }
        }
    }
}

/// Whether another process has the tree.
fn is_anothers(error: &EngineError) -> bool {
    matches!(
        error.kind(),
        EngineErrorKind::Elsewhere { .. } | EngineErrorKind::LostRace
    )
}
