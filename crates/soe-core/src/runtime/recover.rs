//! Taking up what an earlier process, or a failure, has left.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use soe_backends::{ExecutionId, ExecutionState, ExecutionSummary, Limits, ListQuery, Status};

use super::budget::Budget;
use super::shared::Shared;
use super::{Engine, EngineError, EngineErrorKind, Execution};
use crate::machine::Input;

/// So many executions are looked up at a time.
const PAGE: usize = 500;

/// So many are taken up at a time.
const ABREAST: usize = 64;

/// The most errors that a [`Recovered`] lists.
const MAX_ERRORS: usize = 100;

/// The most executions whose status is remembered while others are taken up.
const MAX_KNOWN: usize = 10_000;

/// What [`Engine::recover`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// So many executions were taken up.
    pub taken_up: u64,
    /// So many are run by other processes, whose leases hold.
    pub elsewhere: u64,
    /// So many can't be taken up.
    pub refused: u64,
    /// Why, for the first hundred of these. Each names its execution.
    pub errors: Vec<EngineError>,
}

impl Engine {
    /// Takes up every execution that something is left to do for: those that an earlier process was running when it ended.
    /// Their runs in flight start again under the same numbers; those that are over don't, and replies that have arrived
    /// are not asked for again. Executions that other processes run are left alone, and can be taken up later, when the
    /// lease of those has ended.
    ///
    /// They go on by themselves: wait for them by their handles ([`Engine::execution`]).
    ///
    /// Cancel safety: if the future is dropped, some may not have been taken up. Calling it again takes up the rest.
    ///
    /// # Errors
    /// The executions can't be listed, or the engine is shut down. What is wrong with a single one is in the result.
    pub async fn recover(&self) -> Result<Recovered, EngineError> {
        let shared = &self.shared;
        let found = Mutex::new(Recovered::default());
        let above = Above::default();
        let mut query = ListQuery {
            unsettled: true,
            limit: PAGE,
            ..ListQuery::default()
        };
        loop {
            shared.check_open()?;
            let page = shared.call(shared.backends.context().list(&query)).await?;
            let _budgets = budgets_of(shared, &page.executions).await?;
            let take_up = |summary: ExecutionSummary| take_up(shared, &above, &found, summary);
            futures::stream::iter(page.executions)
                .for_each_concurrent(ABREAST, take_up)
                .await;
            query.after = page.next;
            if query.after.is_none() {
                return Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Goes on with an execution: one that has failed, whose failed node runs again; or one that was interrupted. What is below
    /// it goes on with it. Of one that rests, nothing changes.
    ///
    /// Cancel safety: if the future is dropped, it may or may not go on.
    ///
    /// # Errors
    /// It doesn't exist or is cancelled; one above it has failed (resume that one); another process runs it; the store
    /// fails; or the engine is shut down.
    pub async fn resume(&self, execution: &ExecutionId) -> Result<Execution, EngineError> {
        self.resume_under(execution, None).await
    }

    /// As [`Engine::resume`], with other limits from now on, also for what is below: for an execution that has failed because
    /// of one.
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
        let shared = &self.shared;
        shared.check_open()?;
        let state = shared.load(execution).await?;
        if state.status == Status::Cancelled {
            return Err(EngineError::new(EngineErrorKind::Ended(Status::Cancelled)).of(execution));
        }
        if let Some((above, status)) = Above::default().ended(shared, parent_of(&state)).await? {
            let message = format!("execution {above}, which is above it, is {status}");
            let help = match status {
                Status::Cancelled => "",
                _ => ": resume that one",
            };
            return Err(EngineError::because(EngineErrorKind::Refused, message + help).of(execution));
        }
        let parent = None;
        shared.control(execution, Input::Resume { limits, parent }).await?;
        Ok(self.execution(execution.clone()))
    }
}

/// What the trees have used that children belong to: looked up once for all of them, and held while they are taken up.
async fn budgets_of(shared: &Shared, page: &[ExecutionSummary]) -> Result<Vec<Arc<Budget>>, EngineError> {
    let children = page.iter().filter(|each| each.id != each.main_execution_id);
    let roots: HashSet<&ExecutionId> = children.map(|child| &child.main_execution_id).collect();
    let mut budgets = Vec::with_capacity(roots.len());
    for root in roots {
        if let Some(state) = shared.find(root).await? {
            budgets.push(shared.recall_budget(&state).await?);
        }
    }
    Ok(budgets)
}

async fn take_up(shared: &Arc<Shared>, above: &Above, found: &Mutex<Recovered>, summary: ExecutionSummary) {
    if shared.active().contains_key(&summary.id) {
        return;
    }
    let taken = async {
        let input = match above.end_of(shared, &summary).await? {
            Some(Status::Cancelled) => Input::Cancel,
            Some(_) => Input::Suspend,
            None => Input::Recover,
        };
        shared.control(&summary.id, input).await
    };
    let result = taken.await;
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(()) => found.taken_up += 1,
        Err(error) if matches!(error.kind(), EngineErrorKind::Elsewhere { .. }) => found.elsewhere += 1,
        Err(error) => {
            found.refused += 1;
            if found.errors.len() < MAX_ERRORS {
                found.errors.push(error.of(&summary.id));
            }
        }
    }
}

/// Where the executions stand that are above others: thousands of children have the same parent.
#[derive(Default)]
struct Above(Mutex<HashMap<ExecutionId, (Status, Option<ExecutionId>)>>);

impl Above {
    /// What has become of the executions above a running one: it may not have heard of it.
    async fn end_of(&self, shared: &Shared, summary: &ExecutionSummary) -> Result<Option<Status>, EngineError> {
        if summary.main_execution_id == summary.id || summary.status != Status::Running {
            return Ok(None);
        }
        let ended = self.ended(shared, Some(summary.id.clone())).await?;
        Ok(ended.map(|(_, status)| status))
    }

    /// The nearest execution from this one upwards that takes no signals.
    async fn ended(
        &self,
        shared: &Shared,
        mut next: Option<ExecutionId>,
    ) -> Result<Option<(ExecutionId, Status)>, EngineError> {
        while let Some(id) = next {
            let (status, parent) = self.look_up(shared, &id).await?;
            if !status.accepts_signals() {
                return Ok(Some((id, status)));
            }
            next = parent;
        }
        Ok(None)
    }

    async fn look_up(&self, shared: &Shared, id: &ExecutionId) -> Result<(Status, Option<ExecutionId>), EngineError> {
        let known = |this: &Self| this.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(known) = known(self) {
            return Ok(known);
        }
        let state = shared.load(id).await?;
        let entry = (state.status, parent_of(&state));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(id.clone(), entry.clone());
        Ok(entry)
    }
}

fn parent_of(state: &ExecutionState) -> Option<ExecutionId> {
    let parent = state.context.parent.as_ref()?;
    Some(parent.parent_execution_id.clone())
}
