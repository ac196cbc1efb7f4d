//! What an execution tree has used of its limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::{StreamExt, TryStreamExt};
use soe_backends::{ExecutionId, ExecutionState, ExecutionSummary, Limits, ListQuery, Status, TreeTotals, Usage};

use super::EngineError;
use super::shared::Shared;
use crate::machine::Denial;

/// Requests to LLMs, tokens and children of an execution tree: reserved before a request is made or a child is created, so
/// that many nodes that do it at the same time don't exceed the limit together. Rebuilt from what was committed when an execution is taken up.
#[derive(Debug)]
pub(super) struct Budget(Mutex<Used>);

/// The budgets in use, by the roots of their trees. Those that no execution uses any more are forgotten.
#[derive(Default)]
pub(super) struct Budgets {
    by_root: HashMap<ExecutionId, Weak<Budget>>,
    /// Forgotten ones are swept out when the map has grown to this size.
    sweep_at: usize,
}

impl Budgets {
    /// The budget of a tree that has an active execution.
    pub(super) fn known(&self, main: &ExecutionId) -> Option<Arc<Budget>> {
        self.by_root.get(main).and_then(Weak::upgrade)
    }

    /// The budget of a tree, which begins with what is `known` of it.
    pub(super) fn of(&mut self, main: &ExecutionId, known: TreeTotals) -> Arc<Budget> {
        if let Some(budget) = self.known(main) {
            return budget;
        }
        if self.by_root.len() >= self.sweep_at {
            self.by_root.retain(|_, budget| budget.strong_count() > 0);
            self.sweep_at = (self.by_root.len() * 2).max(64);
        }
        let budget = Arc::new(Budget::new(known));
        self.by_root.insert(main.clone(), Arc::downgrade(&budget));
        budget
    }
}

/// So many executions of a tree are looked at together.
const PAGE: usize = 500;

/// So many of them are loaded at a time.
const ABREAST: usize = 16;

impl Shared {
    /// What the tree of a stored execution has used, all its executions together. To be held until the execution is taken up.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn recall_budget(&self, state: &ExecutionState) -> Result<Arc<Budget>, EngineError> {
        let main = state.main_execution_id();
        let known = self.budgets().known(main);
        if let Some(budget) = known {
            return Ok(budget);
        }
        let root = match *main == state.id {
            true => None,
            false => self.find(main).await?,
        };
        let root = root.as_ref().unwrap_or(state);
        let has_children = root.family.as_ref().is_some_and(|family| !family.children.is_empty());
        let used = match root.status {
            // Each knows only what those below it have told, and has heard all of it when it rests.
            Status::Rested | Status::Prepared => root.context.operational.tree,
            _ if !has_children => root.context.operational.tree,
            _ => self.used_by(main, &root.limits).await?,
        };
        Ok(self.budget(main, used))
    }

    async fn used_by(&self, main: &ExecutionId, limits: &Limits) -> Result<TreeTotals, EngineError> {
        let mut used = TreeTotals::default();
        let limited = limits.llm_calls.is_some() || limits.tokens.is_some();
        let mut query = ListQuery {
            main_execution_id: Some(main.clone()),
            limit: PAGE,
            ..ListQuery::default()
        };
        loop {
            let page = self.call(self.backends.context().list(&query)).await?;
            used.children += page.executions.iter().filter(|each| each.id != *main).count() as u64;
            if limited {
                let load = |each: ExecutionSummary| async move { self.find(&each.id).await };
                let mut states = futures::stream::iter(page.executions)
                    .map(load)
                    .buffer_unordered(ABREAST);
                while let Some(state) = states.try_next().await? {
                    let own = state.map(|state| state.context.clone()).unwrap_or_default();
                    used.llm_calls = used.llm_calls.saturating_add(own.operational.llm_calls);
                    used.tokens = used.tokens.saturating_add(own.operational.tokens);
                }
            }
            query.after = page.next;
            if query.after.is_none() {
                return Ok(used);
            }
        }
    }
}

#[derive(Debug)]
struct Used {
    llm_calls: u64,
    tokens: u64,
    children: u64,
}

impl Budget {
    fn new(used: TreeTotals) -> Self {
        Self(Mutex::new(Used {
            llm_calls: used.llm_calls,
            tokens: used.tokens,
            children: used.children,
        }))
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a request.
    ///
    /// # Errors
    /// A limit is used up.
    pub(super) fn reserve(&self, limits: &Limits) -> Result<(), Denial> {
        let mut used = self.used();
        if let Some(allowed) = limits.llm_calls.filter(|allowed| used.llm_calls >= *allowed) {
            return Err(Denial {
                limit: "llm_calls",
                message: format!("all {allowed} requests to LLMs were made"),
            });
        }
        if let Some(allowed) = limits.tokens.filter(|allowed| used.tokens >= *allowed) {
            let tokens = used.tokens;
            return Err(Denial {
                limit: "tokens",
                message: format!("{tokens} tokens were used, {allowed} are allowed"),
            });
        }
        used.llm_calls += 1;
        Ok(())
    }

    /// Reserves children, before they are created.
    ///
    /// # Errors
    /// There would be more than are allowed.
    pub(super) fn reserve_children(&self, count: usize, allowed: u64) -> Result<(), Denial> {
        let mut used = self.used();
        let children = used.children.saturating_add(count as u64);
        if children > allowed {
            return Err(Denial {
                limit: "children",
                message: format!("with {count} more the tree would have {children}, {allowed} are allowed"),
            });
        }
        used.children = children;
        Ok(())
    }

    /// Adds what a request took.
    pub(super) fn spent(&self, usage: Usage) {
        let mut used = self.used();
        used.tokens = used.tokens.saturating_add(usage.total());
    }
}
