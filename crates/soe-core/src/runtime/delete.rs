//! Deleting trees of executions, and collecting those that nobody needs any more.

use std::sync::Arc;
use std::time::Duration;

use soe_backends::{ExecutionId, ExecutionState, ExecutionSummary, ListQuery, Status, Timestamp};

use super::claim::{Claim, Claiming};
use super::engine::end_of;
use super::shared::{Active, Shared};
use super::{Engine, EngineError, EngineErrorKind};

/// So many executions are looked up at a time.
const PAGE: usize = 500;

/// The most errors that a [`Collected`] lists.
const MAX_ERRORS: usize = 100;

/// Which trees may go: those whose root has failed or was cancelled, and hasn't changed for some time.
///
/// ```
/// use std::time::Duration;
/// use soe_core::runtime::Retention;
///
/// let week = Duration::from_secs(7 * 24 * 60 * 60);
/// let retention = Retention::older_than(week).rested();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    older_than: Duration,
    rested: bool,
}

impl Retention {
    /// Trees that have failed or were cancelled, so long ago or longer.
    pub fn older_than(age: Duration) -> Self {
        Self {
            older_than: age,
            rested: false,
        }
    }

    /// Those that rest, too. Mind that they may be waiting for a signal from outside.
    #[must_use]
    pub fn rested(mut self) -> Self {
        self.rested = true;
        self
    }

    fn statuses(&self) -> impl Iterator<Item = Status> {
        let rested = self.rested.then_some(Status::Rested);
        [Status::Failed, Status::Cancelled].into_iter().chain(rested)
    }
}

/// A tree that may go.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Collectable {
    /// Its root.
    pub root: ExecutionSummary,
    /// So many executions belong to it, the root included.
    pub executions: u64,
}

/// What [`Engine::collect`] deleted.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// So many trees.
    pub trees: u64,
    /// So many executions in them.
    pub executions: u64,
    /// So many trees couldn't be deleted, or not completely.
    pub refused: u64,
    /// Why, for the first hundred of these. Each names its execution.
    pub errors: Vec<EngineError>,
}

impl Engine {
    /// Deletes an execution tree: its root, all that is below it, and all that belongs to them. Executions that inherited from
    /// them or were forked from them have copies, and don't notice. Workflow registries stay in the store: others may
    /// use them.
    ///
    /// Cancel safety: if the future is dropped, a part may be deleted already; calling it again goes on. The root is deleted
    /// last, so a tree that was begun with is still found.
    ///
    /// # Errors
    /// It doesn't exist; it is the root of no tree ([`EngineErrorKind::NotRoot`], which names the root); something in its tree is
    /// running ([`EngineErrorKind::Active`]); the store fails, or the engine is shut down.
    pub async fn delete(&self, execution: &ExecutionId) -> Result<(), EngineError> {
        self.shared.delete_tree(execution, |_| true).await.map(drop)
    }

    /// The trees that [`Engine::collect`] would delete.
    ///
    /// # Errors
    /// The store fails.
    pub async fn collectable(&self, retention: &Retention) -> Result<Vec<Collectable>, EngineError> {
        let shared = &self.shared;
        let mut found = Vec::new();
        let mut roots = shared.roots(retention);
        while let Some(page) = roots.next().await? {
            for root in page {
                let below = shared.below(&root.id).await?;
                if !below.iter().any(|execution| execution.unsettled) {
                    let executions = below.len() as u64 + 1;
                    found.push(Collectable { root, executions });
                }
            }
        }
        Ok(found)
    }

    /// Deletes the trees that have ended and that `retention` lets go, each as [`Engine::delete`]. A tree in which something
    /// runs is never touched, nor is one that was only prepared.
    ///
    /// Cancel safety: if the future is dropped, some may not be deleted. Calling it again deletes the rest.
    ///
    /// # Errors
    /// The executions can't be listed, or the engine is shut down. What is wrong with a single tree is in the result.
    pub async fn collect(&self, retention: &Retention) -> Result<Collected, EngineError> {
        let shared = &self.shared;
        let mut collected = Collected::default();
        let mut roots = shared.roots(retention);
        while let Some(page) = roots.next().await? {
            for root in page {
                shared.check_open()?;
                // It may have been woken since it was listed.
                let unchanged = |state: &ExecutionState| state.version == root.version;
                match shared.delete_tree(&root.id, unchanged).await {
                    Ok(0) => {}
                    Ok(executions) => {
                        collected.trees += 1;
                        collected.executions += executions;
                    }
                    Err(error) => {
                        collected.refused += 1;
                        if collected.errors.len() < MAX_ERRORS {
                            collected.errors.push(error.of(&root.id));
                        }
                    }
                }
            }
        }
        Ok(collected)
    }
}

/// The roots of trees that may go, page by page.
struct Roots<'s> {
    shared: &'s Shared,
    statuses: Vec<Status>,
    query: ListQuery,
    before: Timestamp,
}

impl Roots<'_> {
    async fn next(&mut self) -> Result<Option<Vec<ExecutionSummary>>, EngineError> {
        let Some(status) = self.statuses.last() else {
            return Ok(None);
        };
        self.query.status = Some(*status);
        let context = self.shared.backends.context();
        let page = self.shared.call(context.list(&self.query)).await?;
        self.query.after = page.next;
        if self.query.after.is_none() {
            self.statuses.pop();
        }
        let is_wanted = |execution: &ExecutionSummary| {
            execution.id == execution.main_execution_id && execution.updated_at <= self.before && !execution.unsettled
        };
        Ok(Some(page.executions.into_iter().filter(is_wanted).collect()))
    }
}

impl Shared {
    fn roots(&self, retention: &Retention) -> Roots<'_> {
        let age = u64::try_from(retention.older_than.as_micros()).unwrap_or(u64::MAX);
        Roots {
            shared: self,
            statuses: retention.statuses().collect(),
            query: ListQuery {
                limit: PAGE,
                ..ListQuery::default()
            },
            before: Timestamp::from_micros(self.now().as_micros().saturating_sub(age)),
        }
    }

    /// What is below a root.
    async fn below(&self, root: &ExecutionId) -> Result<Vec<ExecutionSummary>, EngineError> {
        let mut query = ListQuery {
            main_execution_id: Some(root.clone()),
            limit: PAGE,
            ..ListQuery::default()
        };
        let mut all = Vec::new();
        loop {
            let page = self.call(self.backends.context().list(&query)).await?;
            all.extend(page.executions.into_iter().filter(|execution| execution.id != *root));
            query.after = page.next;
            if query.after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Deletes a tree, unless its root isn't `wanted` any more. Says how many executions were deleted.
    async fn delete_tree(
        self: &Arc<Self>,
        root: &ExecutionId,
        wanted: impl FnOnce(&ExecutionState) -> bool,
    ) -> Result<u64, EngineError> {
        // The claim keeps it from being taken up meanwhile.
        let (_claim, state) = self.take_idle(root).await?;
        if let Some(state) = &state {
            if state.main_execution_id() != root {
                let root = state.main_execution_id().clone();
                return Err(EngineError::new(EngineErrorKind::NotRoot { root }).of(&state.id));
            }
            if !wanted(state) {
                return Ok(0);
            }
        }
        let below = self.below(root).await?;
        if state.is_none() && below.is_empty() {
            return Err(EngineError::new(EngineErrorKind::NotFound).of(root));
        }
        // Nothing is deleted of a tree that can't go as a whole.
        if let Some(active) = below.iter().find(|execution| execution.unsettled) {
            return Err(busy(active.status).of(&active.id));
        }
        let mut deleted = 0;
        for execution in &below {
            let (_claim, state) = self.take_idle(&execution.id).await?;
            if let Some(state) = state {
                self.call(self.backends.delete(&state)).await?;
                deleted += 1;
            }
        }
        if let Some(state) = state {
            self.call(self.backends.delete(&state)).await?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Claims an execution that doesn't run, whether it exists or not.
    ///
    /// # Errors
    /// It runs, or something is left to do for it.
    async fn take_idle(
        self: &Arc<Self>,
        execution: &ExecutionId,
    ) -> Result<(Claim, Option<ExecutionState>), EngineError> {
        loop {
            match Claim::take(self, execution)? {
                Claiming::Claimed(claim) => {
                    let state = self.find(execution).await?;
                    return match &state {
                        Some(state) if state.is_unsettled() => Err(busy(state.status).of(execution)),
                        _ => Ok((claim, state)),
                    };
                }
                Claiming::Taken(Active { mut progress, .. }) => {
                    if self.load(execution).await?.status == Status::Running {
                        return Err(busy(Status::Running).of(execution));
                    }
                    // Its coordinator is about to end.
                    end_of(&mut progress).await;
                }
            }
        }
    }
}

/// Why an execution can't be deleted that something is left to do for.
fn busy(status: Status) -> EngineError {
    match status {
        Status::Running => EngineError::new(EngineErrorKind::Active),
        status => {
            let what = format!("it is {status}, and that has still to be told or stored elsewhere: recover it first");
            EngineError::because(EngineErrorKind::Active, what)
        }
    }
}
