//! How much an execution tree may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of an execution tree. Stored with it, so that they are the same after a restart.
///
/// ```
/// use soe_backends::Limits;
///
/// let limits = Limits { llm_calls: Some(50), ..Limits::default() };
/// assert_eq!(limits.runs, 1_000_000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Signal broadcasts. Default 1,000,000.
    pub broadcasts: u64,
    /// Node runs, routers included. Default 1,000,000.
    pub runs: u64,
    /// Child executions. Default 100,000.
    pub children: u64,
    /// Nesting of executions; the root has depth 0. Default 128.
    pub depth: u32,
    /// Bytes of context values in one execution, all histories together; and, counted apart, the list of its signals, 16
    /// bytes each. Default 256 MiB.
    pub context_bytes: u64,
    /// Bytes of one context value. Default 64 MiB.
    pub value_bytes: u64,
    /// LLM requests. Default: unlimited.
    pub llm_calls: Option<u64>,
    /// Tokens, as the endpoints report them. Default: unlimited.
    pub tokens: Option<u64>,
    /// Time during which something was in flight; waiting for a signal doesn't count. Default: unlimited.
    pub active_time: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            broadcasts: 1_000_000,
            runs: 1_000_000,
            children: 100_000,
            depth: 128,
            context_bytes: 256 * 1024 * 1024,
            value_bytes: 64 * 1024 * 1024,
            llm_calls: None,
            tokens: None,
            active_time: None,
        }
    }
}
