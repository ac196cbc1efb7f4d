//! Errors of the engine's own calls.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use soe_backends::{BackendError, BackendErrorKind, ExecutionId, Failure, InvalidExecutionId, Status, Timestamp};

use crate::config::ConfigError;
use crate::machine::MachineError;

/// Why the engine couldn't do what it was asked, or how an execution ended that was waited for.
///
/// Its text never repeats its `source()`. A refusal's text says all of why, and its `source()` is what is behind that;
/// of other kinds, `source()` is the cause (the store's error, the application's error), which `{:#}` adds to the text.
#[derive(Clone)]
pub struct EngineError(Arc<Inner>);

struct Inner {
    kind: EngineErrorKind,
    execution: Option<ExecutionId>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of error it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineErrorKind {
    /// The configuration, the initial context or the signals are refused. Nothing was started.
    Refused,
    /// There is an execution of the id that was given for a new one. Nothing was started.
    AlreadyExists,
    /// There is no such execution.
    NotFound,
    /// The execution takes no signals: it has failed, is suspended or cancelled.
    NotAccepting(Status),
    /// The execution was waited for and has failed.
    Failed(Failure),
    /// The execution was waited for and is cancelled or suspended.
    Ended(Status),
    /// The execution was waited for, but nobody in this process runs it: another process does, or it was interrupted.
    NotActive,
    /// Another process runs the execution. What was asked for can be asked of that process; or of this one, when the lease of
    /// that process has ended.
    Elsewhere {
        /// The name of the other process.
        process: Arc<str>,
        /// Until when its lease holds, if it isn't renewed.
        until: Timestamp,
    },
    /// The execution can't be deleted while it runs: cancel it first; or while something else is left to do for it, which the
    /// source says.
    Active,
    /// Only whole trees are deleted and forked, and the execution isn't the root of its own.
    NotRoot {
        /// The root of its tree.
        root: ExecutionId,
    },
    /// The execution has no such version.
    NoSuchVersion {
        /// The version that was asked for.
        version: u64,
        /// The last that there is; the first is 1.
        last: u64,
    },
    /// The store can't tell.
    Unsupported,
    /// Another process has taken the tree over in this moment: what was asked for was not done. Asking again helps.
    LostRace,
    /// The store refused or failed. What was acknowledged before stays; the execution can be gone on with when the store
    /// works again, by sending it a signal.
    Backend,
    /// The engine is shut down, or is being.
    ShutDown,
    /// The engine contradicted itself: a defect. The execution is as it was stored last.
    Internal,
}

impl EngineError {
    pub(super) fn new(kind: EngineErrorKind) -> Self {
        Self(Arc::new(Inner {
            kind,
            execution: None,
            source: None,
        }))
    }

    pub(super) fn because(kind: EngineErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            execution: None,
            source: Some(source.into()),
        }))
    }

    /// Says which execution it is about. For errors that nobody else holds yet.
    pub(super) fn of(mut self, execution: &ExecutionId) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.execution.get_or_insert_with(|| execution.clone());
        }
        self
    }

    /// Whether the same call may work when it is made again, without anything being changed: the store was not to be reached, or
    /// another process was faster.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            EngineErrorKind::LostRace => true,
            EngineErrorKind::Backend => {
                let source = self.0.source.as_deref();
                let store = source.and_then(|source| source.downcast_ref::<BackendError>());
                store.is_some_and(|error| error.kind() == BackendErrorKind::Unavailable)
            }
            _ => false,
        }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> &EngineErrorKind {
        &self.0.kind
    }

    /// The execution that it is about. Known from the start: an execution that failed can be looked at by this id.
    pub fn execution(&self) -> Option<&ExecutionId> {
        self.0.execution.as_ref()
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(execution) = &self.0.execution {
            write!(f, "execution {execution}: ")?;
        }
        match &self.0.kind {
            EngineErrorKind::Refused => f.write_str("refused"),
            EngineErrorKind::AlreadyExists => f.write_str("there is an execution of that id already; choose another id"),
            EngineErrorKind::NotFound => f.write_str("there is no such execution"),
            EngineErrorKind::NotAccepting(status) => write!(f, "it is {status} and takes no signals"),
            EngineErrorKind::Failed(failure) => write!(f, "failed: {failure}"),
            EngineErrorKind::Ended(status) => write!(f, "it is {status}"),
            EngineErrorKind::NotActive => f.write_str(
                "it was left running, but not by this process: another process runs it, or it was interrupted (resume it, or send it a signal)",
            ),
            EngineErrorKind::Elsewhere { process, until } => write!(
                f,
                "another process runs it: {process}, whose lease holds until {until}"
            ),
            EngineErrorKind::Active if self.0.source.is_some() => f.write_str("it can't be deleted yet"),
            EngineErrorKind::Active => f.write_str("it is running; cancel it first"),
            EngineErrorKind::NotRoot { root } => write!(
                f,
                "it belongs to the tree of {root}, and only a whole tree can be taken here: name its root"
            ),
            EngineErrorKind::NoSuchVersion { version, last } => {
                write!(f, "it has no version {version}; its versions are 1 to {last}")
            }
            EngineErrorKind::Unsupported => f.write_str("the store doesn't keep earlier versions"),
            EngineErrorKind::LostRace => {
                f.write_str("another process has taken it over in this moment, and this was not done; try again")
            }
            EngineErrorKind::Backend => f.write_str("the store failed"),
            EngineErrorKind::ShutDown => f.write_str("the engine is shut down"),
            EngineErrorKind::Internal => f.write_str("the engine contradicted itself"),
        }?;
        let says_cause = match self.0.kind {
            EngineErrorKind::Refused | EngineErrorKind::NotFound => true,
            // A failure says what failed in its own words.
            EngineErrorKind::Failed(_) => false,
            _ => f.alternate(),
        };
        match &self.0.source {
            Some(source) if says_cause => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineError")
            .field("kind", &self.0.kind)
            .field("execution", &self.0.execution)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for EngineError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        match self.0.kind {
            EngineErrorKind::Refused | EngineErrorKind::NotFound => source.source(),
            _ => Some(source),
        }
    }
}

impl From<BackendError> for EngineError {
    fn from(error: BackendError) -> Self {
        let execution = error.about().cloned();
        let kind = match error.kind() {
            BackendErrorKind::Conflict => EngineErrorKind::LostRace,
            _ => EngineErrorKind::Backend,
        };
        let made = Self::because(kind, error);
        match execution {
            Some(execution) => made.of(&execution),
            None => made,
        }
    }
}

impl From<MachineError> for EngineError {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::NotAccepting(status) => Self::new(EngineErrorKind::NotAccepting(status)),
            MachineError::NoSuchExecution => Self::new(EngineErrorKind::NotFound),
            MachineError::Broken(_) | MachineError::MissingRegistry(_) => {
                Self::because(EngineErrorKind::Internal, error)
            }
            error => Self::because(EngineErrorKind::Refused, error),
        }
    }
}

impl From<ConfigError> for EngineError {
    fn from(error: ConfigError) -> Self {
        Self::because(EngineErrorKind::Refused, error)
    }
}

impl From<InvalidExecutionId> for EngineError {
    fn from(error: InvalidExecutionId) -> Self {
        Self::because(EngineErrorKind::Refused, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_causes_says_nothing_twice() {
        let refused = EngineError::from(MachineError::NoSignals);
        assert_eq!(refused.to_string(), format!("refused: {}", MachineError::NoSignals));
        assert!(refused.source().is_none());

        let failed = EngineError::from(BackendError::new(BackendErrorKind::Unavailable, "the disk is full"));
        assert_eq!(failed.to_string(), "the store failed");
        assert_eq!(format!("{failed:#}"), "the store failed: the disk is full");
        assert!(failed.source().is_some_and(|source| source.is::<BackendError>()));
        assert!(failed.is_retryable());
        let lost = EngineError::from(BackendError::new(BackendErrorKind::Conflict, "version 3 is there"));
        assert_eq!(*lost.kind(), EngineErrorKind::LostRace);
        assert!(lost.is_retryable());
    }
}
