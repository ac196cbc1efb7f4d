//! What an execution tree has used of its limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use soe_backends::{ExecutionId, Limits, TreeTotals, Usage};

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
    /// The budget of a tree that somebody has.
    pub(super) fn in_use(&self, main: &ExecutionId) -> Option<Arc<Budget>> {
        self.by_root.get(main).and_then(Weak::upgrade)
    }

    /// The budget of a tree, which has used at least what is `known` of it.
    pub(super) fn of(&mut self, main: &ExecutionId, known: TreeTotals) -> Arc<Budget> {
        if let Some(budget) = self.in_use(main) {
            budget.used_at_least(known);
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

    /// Those who are taken up first may know less than those who come later.
    fn used_at_least(&self, known: TreeTotals) {
        let mut used = self.used();
        used.llm_calls = used.llm_calls.max(known.llm_calls);
        used.tokens = used.tokens.max(known.tokens);
        used.children = used.children.max(known.children);
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
