//! What an execution tree has used of its limits.

use std::sync::{Mutex, MutexGuard, PoisonError};

use soe_backends::{Limits, TreeTotals, Usage};

use crate::machine::Denial;

/// Requests to LLMs and tokens of an execution tree: reserved before a request is made, so that many nodes that ask at the
/// same time don't exceed the limit together. Rebuilt from what was committed when an execution is taken up.
#[derive(Debug)]
pub(super) struct Budget(Mutex<Used>);

#[derive(Debug)]
struct Used {
    llm_calls: u64,
    tokens: u64,
}

impl Budget {
    pub(super) fn new(used: TreeTotals) -> Self {
        Self(Mutex::new(Used {
            llm_calls: used.llm_calls,
            tokens: used.tokens,
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

    /// Adds what a request took.
    pub(super) fn spent(&self, usage: Usage) {
        let mut used = self.used();
        used.tokens = used.tokens.saturating_add(usage.total());
    }
}
