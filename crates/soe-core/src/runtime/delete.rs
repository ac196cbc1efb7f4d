//! Deleting trees of executions, and collecting those that nobody needs any more.

use std::sync::Arc;
use std::time::Duration;

use soe_backends::{Deletion, ExecutionId, ExecutionSummary, Guard, ListQuery, Status, Timestamp, TreeState};

use super::claim::{Claim, Claiming};
use super::shared::{Active, Shared};
use super::wait::end_of;
use super::{Engine, EngineError, EngineErrorKind};

/// How many trees are looked up at a time.
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
    /// How many executions belong to it, the root included.
    pub executions: u64,
}

/// What [`Engine::collect`] deleted.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// How many trees.
    pub trees: u64,
    /// How many executions in them.
    pub executions: u64,
    /// Trees that may go, and stay: they have changed since they were listed, or a message waits in their inbox.
    pub kept: Vec<ExecutionId>,
    /// How many trees couldn't be deleted.
    pub refused: u64,
    /// Why, for the first hundred of these. Each names its execution.
    pub errors: Vec<EngineError>,
}

impl Engine {
    /// Deletes an execution tree: its root, all that is below it, and all that belongs to them. Executions that inherited from
    /// them or were forked from them have copies, and don't notice. Workflow registries stay in the store: others may
    /// use them.
    ///
    /// A tree is deleted as it was looked at, or not at all: what another process does with it meanwhile, or puts into its inbox,
    /// keeps it.
    ///
    /// Cancel safety: if the future is dropped, it is deleted or it isn't; things that belong to it may be left, and go when it
    /// is called again.
    ///
    /// # Errors
    /// It doesn't exist; it is the root of no tree ([`EngineErrorKind::NotRoot`], which names the root); something in its tree is
    /// running, or waits in its inbox ([`EngineErrorKind::Active`]); the store fails, or the engine is shut down.
    pub async fn delete(&self, execution: &ExecutionId) -> Result<(), EngineError> {
        match self.shared.delete_tree(execution, |_| true).await? {
            Some(_) => Ok(()),
            None => Err(EngineError::because(
                EngineErrorKind::Active,
                "it has changed in this moment, or a message waits in its inbox",
            )
            .of(execution)),
        }
    }

    /// The trees that [`Engine::collect`] would delete.
    ///
    /// # Errors
    /// The store fails.
    pub async fn collectable(&self, retention: &Retention) -> Result<Vec<Collectable>, EngineError> {
        let mut found = Vec::new();
        let mut roots = self.shared.roots(retention);
        while let Some(page) = roots.next().await? {
            found.extend(page.into_iter().map(|root| Collectable {
                executions: root.children + 1,
                root,
            }));
        }
        Ok(found)
    }

    /// Deletes the trees that have ended and that `retention` lets go, each as [`Engine::delete`]. A tree in which something
    /// runs is never touched, nor is one that was only prepared, or that has changed since it was listed.
    ///
    /// Cancel safety: if the future is dropped, some may not be deleted. Calling it again deletes the rest.
    ///
    /// # Errors
    /// The trees can't be listed, or the engine is shut down. What is wrong with a single tree is in the result.
    pub async fn collect(&self, retention: &Retention) -> Result<Collected, EngineError> {
        let shared = &self.shared;
        let mut collected = Collected::default();
        let mut roots = shared.roots(retention);
        while let Some(page) = roots.next().await? {
            for root in page {
                shared.check_open()?;
                // It may have been woken since it was listed.
                let unchanged = |tree: &TreeState| tree.version == root.version;
                match shared.delete_tree(&root.id, unchanged).await {
                    Ok(None) => collected.kept.push(root.id),
                    Ok(Some(executions)) => {
                        collected.trees += 1;
                        collected.executions += executions;
                    }
                    // Somebody else has collected it.
                    Err(error) if *error.kind() == EngineErrorKind::NotFound => {}
                    // It has been woken since it was listed.
                    Err(error) if matches!(error.kind(), EngineErrorKind::Active | EngineErrorKind::LostRace) => {
                        collected.kept.push(root.id);
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
        let is_wanted = |execution: &ExecutionSummary| execution.updated_at <= self.before && !execution.unsettled;
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

    /// Deletes a tree, if it is `wanted` and stays as it is. Says how many executions were deleted; `None` if it stays.
    async fn delete_tree(
        self: &Arc<Self>,
        root: &ExecutionId,
        wanted: impl FnOnce(&TreeState) -> bool,
    ) -> Result<Option<u64>, EngineError> {
        if !root.is_root() {
            let kind = EngineErrorKind::NotRoot { root: root.root() };
            self.load(root).await?;
            return Err(EngineError::new(kind).of(root));
        }
        // The claim keeps it from being taken up here meanwhile; the guard keeps it from what other processes do.
        let (_claim, tree) = match self.take_idle(root).await {
            Ok(idle) => idle,
            Err(error) => {
                if *error.kind() == EngineErrorKind::NotFound {
                    // A deletion that ended in the middle may have left what belongs to it.
                    let guard = Guard { version: 0, fence: 0 };
                    self.call(self.backends.delete(root, guard))
                        .await
                        .map_err(|error| error.of(root))?;
                }
                return Err(error);
            }
        };
        if !wanted(&tree) {
            return Ok(None);
        }
        let guard = Guard {
            version: tree.version,
            fence: tree.fence(),
        };
        let deletion = self.call(self.backends.delete(root, guard)).await;
        match deletion.map_err(|error| error.of(root))? {
            Deletion::Deleted => Ok(Some(tree.executions.len() as u64)),
            Deletion::NoSuchTree => Err(EngineError::new(EngineErrorKind::NotFound).of(root)),
            _ => Ok(None),
        }
    }

    /// Claims a tree in which nothing runs.
    ///
    /// # Errors
    /// There is none, something runs in it, or something is left to do for it.
    async fn take_idle(self: &Arc<Self>, root: &ExecutionId) -> Result<(Claim, Arc<TreeState>), EngineError> {
        loop {
            match Claim::take(self, root)? {
                Claiming::Claimed(claim) => {
                    let tree = self.load_tree(root).await?;
                    return match tree.is_unsettled() {
                        true => Err(busy(&tree).of(root)),
                        false => Ok((claim, tree)),
                    };
                }
                Claiming::Taken(Active { mut progress, .. }) => {
                    let tree = self.load_tree(root).await?;
                    if is_running(&tree) {
                        return Err(busy(&tree).of(root));
                    }
                    // Its coordinator is about to end.
                    end_of(&mut progress).await;
                }
            }
        }
    }
}

fn is_running(tree: &TreeState) -> bool {
    tree.root_state().is_some_and(|root| root.status == Status::Running)
}

/// Why a tree can't be deleted that something is left to do for.
fn busy(tree: &TreeState) -> EngineError {
    match is_running(tree) {
        true => EngineError::new(EngineErrorKind::Active),
        false => {
            let what = "stores of its own have still to be given something of it: recover it first";
            EngineError::because(EngineErrorKind::Active, what)
        }
    }
}
