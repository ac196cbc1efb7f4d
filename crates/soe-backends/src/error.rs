//! Errors of stores.

use std::error::Error as StdError;
use std::fmt;

use crate::ExecutionId;

/// Why a store could not do what it was asked. Nothing was changed, unless the kind says otherwise.
pub struct BackendError(Box<Inner>);

struct Inner {
    kind: BackendErrorKind,
    message: String,
    execution: Option<ExecutionId>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of error it is: what a caller decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// The tree has moved on: the commit was computed from another version or fence. Somebody else runs it.
    Conflict,
    /// What was asked for doesn't exist.
    NotFound,
    /// What is stored can't be read: it is damaged, or of a newer version.
    Corrupt,
    /// The store can't be reached, is full, read-only or locked. Nothing was changed; it may work later.
    Unavailable,
    /// Commits are stored, but the separate telemetry store didn't take their events: they wait in the state.
    TelemetryLate,
    /// The store has no such ability.
    Unsupported,
    /// Anything else.
    Other,
}

impl BackendError {
    /// An error of `kind`; `message` says what could not be done, and where.
    pub fn new(kind: BackendErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            execution: None,
            source: None,
        }))
    }

    /// The error of a commit computed from version `base` where the store is at `found`.
    pub fn conflict(execution: &ExecutionId, base: u64, found: Option<u64>) -> Self {
        let found = found.map_or_else(
            || "doesn't exist".to_owned(),
            |version| format!("is at version {version}"),
        );
        let message = format!("the commit was computed from version {base}, but the stored tree {found}");
        Self::new(BackendErrorKind::Conflict, message).execution(execution)
    }

    /// Says which execution it is about.
    #[must_use]
    pub fn execution(mut self, execution: &ExecutionId) -> Self {
        self.0.execution = Some(execution.clone());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of error it is.
    pub fn kind(&self) -> BackendErrorKind {
        self.0.kind
    }

    /// The execution that it is about, where it is about one.
    pub fn about(&self) -> Option<&ExecutionId> {
        self.0.execution.as_ref()
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.execution {
            Some(execution) => write!(f, "execution {execution}: {}", self.0.message),
            None => f.write_str(&self.0.message),
        }
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("execution", &self.0.execution)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for BackendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
