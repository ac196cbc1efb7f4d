//! What a tool's failure is.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::failure;

/// A tool's failure: an application's error, and whether another attempt may help.
///
/// Every error converts into it, so `?` works in a tool; like `anyhow::Error` it is itself no [`std::error::Error`].
/// `{}` shows the error, `{:#}` also what caused it. That text goes to the node's `output_field`, and to agents.
///
/// ```
/// use soe_core::tools::ToolError;
///
/// fn parse(text: &str) -> Result<i64, ToolError> {
///     let number: i64 = text.parse()?;
///     if number < 0 {
///         return Err(ToolError::new(format!("{number} is below zero")).no_retry());
///     }
///     Ok(number)
/// }
///
/// assert!(parse("x").unwrap_err().is::<std::num::ParseIntError>());
/// assert!(!parse("-1").unwrap_err().is_retryable());
/// ```
pub struct ToolError {
    error: Box<dyn Error + Send + Sync>,
    retryable: bool,
}

impl ToolError {
    /// A failure described by a text, or by any other thing that becomes a boxed error (such as an `anyhow::Error`).
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            error: error.into(),
            retryable: true,
        }
    }

    /// The same failure, but not to be tried again whatever the tool's retries are: no other attempt would do better.
    #[must_use]
    pub fn no_retry(self) -> Self {
        Self {
            retryable: false,
            ..self
        }
    }

    /// Whether another attempt may help.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

failure::holds_an_error!(ToolError, error);

impl fmt::Debug for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolError")
            .field("error", &self.error)
            .field("retryable", &self.retryable)
            .finish()
    }
}

/// A tool didn't answer in the time that its registration gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {limit:?}")]
pub struct ToolTimeout {
    /// The time it was given.
    pub limit: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("can't fetch the page")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn an_error_keeps_its_type_and_its_cause() {
        let error = ToolError::from(Outer(std::fmt::Error));
        assert!(error.is_retryable());
        assert!(error.downcast_ref::<Outer>().is_some());
        assert!(error.source().unwrap().is::<std::fmt::Error>());
        assert!(error.as_error().source().is_some());
        assert_eq!(error.to_string(), "can't fetch the page");
        assert_eq!(
            format!("{error:#}"),
            format!("can't fetch the page: {}", std::fmt::Error)
        );
    }

    #[test]
    fn a_text_is_an_error_too() {
        let error = ToolError::new("no such customer").no_retry();
        assert!(!error.is_retryable());
        assert_eq!(format!("{error:#}"), "no such customer");
        assert_eq!(error.into_error().to_string(), "no such customer");
    }
}
