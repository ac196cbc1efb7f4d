//! Why an LLM gave no reply.

use std::error::Error;
use std::fmt;

use crate::failure;

/// A call without a reply: an application's error, and what kind of failure it is.
///
/// Every error converts into it, so `?` works in a caller; like `anyhow::Error` it is itself no [`std::error::Error`].
/// `{}` shows the error, `{:#}` also what caused it. That text goes into events and into the failure of the execution: it
/// must not contain keys.
pub struct LlmError {
    error: Box<dyn Error + Send + Sync>,
    kind: LlmErrorKind,
}

/// What kind of failure it is. For tests and applications; the engine treats all alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LlmErrorKind {
    /// Anything else.
    #[default]
    Other,
    /// The endpoint could not be reached, or the connection broke.
    Connection,
    /// There was no answer in time.
    Timeout,
    /// The endpoint takes no more requests for now.
    RateLimited,
    /// The endpoint refused the credentials.
    Unauthorized,
    /// The endpoint refused the request.
    Refused,
    /// The endpoint answered with something that is no reply.
    InvalidResponse,
}

impl LlmError {
    /// A failure described by a text, or by any other thing that becomes a boxed error (such as an `anyhow::Error`).
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            error: error.into(),
            kind: LlmErrorKind::Other,
        }
    }

    /// The same failure, of another kind.
    #[must_use]
    pub fn of_kind(self, kind: LlmErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> LlmErrorKind {
        self.kind
    }
}

failure::holds_an_error!(LlmError, error);

impl fmt::Debug for LlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlmError")
            .field("kind", &self.kind)
            .field("error", &self.error)
            .finish()
    }
}
