//! From SQLite's errors to those of a store: what can't be done, where, and what helps.

use std::path::{Path, PathBuf};

use rusqlite::{Error, ErrorCode, ffi};
use soe_backends::{BackendError, BackendErrorKind};

/// Which database it is, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Place(Option<PathBuf>);

/// Why something that was to be done on a connection was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is refused, and nothing was written for it.
    Refused(BackendError),
    /// SQLite failed, perhaps in the middle of it.
    Sql(Error),
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self::Refused(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl Place {
    pub(crate) fn file(path: &Path) -> Self {
        Self(Some(path.to_owned()))
    }

    pub(crate) fn memory() -> Self {
        Self(None)
    }

    fn name(&self) -> String {
        match &self.0 {
            Some(path) => path.display().to_string(),
            None => "the database in memory".to_owned(),
        }
    }

    /// The error of `doing` something.
    pub(crate) fn failed(&self, doing: &str, failure: impl Into<Failure>) -> BackendError {
        match failure.into() {
            Failure::Refused(error) => error,
            Failure::Sql(error) => self.sql(doing, error),
        }
    }

    fn sql(&self, doing: &str, error: Error) -> BackendError {
        let (kind, advice) = advice(&error, self.0.as_deref());
        // The cause says it in more words.
        let what = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => "it is full".to_owned(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "it is locked".to_owned(),
            _ => error.to_string(),
        };
        BackendError::new(kind, format!("can't {doing} {}: {what}{advice}", self.name())).because(error)
    }

    /// The error of data that can't be read.
    pub(crate) fn damaged(&self, what: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
        let why = why.into();
        let message = format!(
            "{what} in {} is damaged: {why}. Nothing was changed; restore the file from a backup, or delete the execution",
            self.name()
        );
        BackendError::new(BackendErrorKind::Corrupt, message).because(why)
    }

    /// The error of a file that another program or a later version made.
    pub(crate) fn foreign(&self, why: &str) -> BackendError {
        let message = format!("{} {why}. Nothing was changed", self.name());
        BackendError::new(BackendErrorKind::Corrupt, message)
    }

    /// The error of whatever comes after the store was closed.
    pub(crate) fn closed(&self) -> BackendError {
        let message = format!("the store {} is closed", self.name());
        BackendError::new(BackendErrorKind::Unavailable, message)
    }
}

/// What an error means to whoever called, and what helps.
fn advice(error: &Error, path: Option<&Path>) -> (BackendErrorKind, &'static str) {
    use BackendErrorKind::{Corrupt, Other, Unavailable, Unsupported};
    let Some(code) = error.sqlite_error_code() else {
        return match error {
            Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..) | Error::IntegralValueOutOfRange(..) => {
                (Corrupt, "; restore the file from a backup")
            }
            _ => (Other, ""),
        };
    };
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (
            Unavailable,
            " by another process; try again, or end the process that holds the lock",
        ),
        ErrorCode::DiskFull => (Unavailable, "; make room on the disk and try again"),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => (
            Unavailable,
            "; the user that the program runs as needs write access to the file and its folder",
        ),
        ErrorCode::CannotOpen if !folder_exists(path) => (Unavailable, "; its folder doesn't exist"),
        ErrorCode::CannotOpen => (
            Unavailable,
            "; it must be a file, in a folder that the user the program runs as may write to",
        ),
        ErrorCode::SystemIoFailure => (
            Unavailable,
            "; a limit on the size of files or a quota is reached, or the disk or the file system failed",
        ),
        ErrorCode::NotADatabase => (Corrupt, "; it is no SQLite database. Nothing was changed"),
        ErrorCode::DatabaseCorrupt => (Corrupt, "; restore the file from a backup"),
        ErrorCode::TooBig => (Unsupported, "; a single value can't have more than 1 GB"),
        _ => (Other, ""),
    }
}

fn folder_exists(path: Option<&Path>) -> bool {
    path.and_then(Path::parent).is_none_or(Path::is_dir)
}

/// The same error once more, for each of those who were waiting for what failed.
pub(crate) fn copy(error: &Error) -> Error {
    match error {
        Error::SqliteFailure(cause, message) => Error::SqliteFailure(ffi::Error { ..*cause }, message.clone()),
        other => Error::ToSqlConversionFailure(other.to_string().into()),
    }
}
