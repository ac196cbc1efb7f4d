//! What can go wrong.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use soe_core::llm::{LlmError, LlmErrorKind};

/// Settings that make no caller. No text here shows a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The base URL can't be used.
    #[error("the base URL can't be used: {reason}")]
    BaseUrl {
        /// Why.
        reason: String,
    },
    /// The environment has no key.
    #[error("the environment variable {name} should hold the key of the LLM endpoint: it {reason}")]
    KeyFromEnv {
        /// The variable.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key is empty.
    #[error("the key of the LLM endpoint is empty: leave it out if the endpoint wants none")]
    EmptyKey,
    /// The key can't be sent.
    #[error("the key of the LLM endpoint can't be sent in a header: character {position} is a {found}")]
    InvalidKey {
        /// The first wrong character, counted from 1.
        position: usize,
        /// What it is.
        found: &'static str,
    },
    /// A header can't be sent.
    #[error("the header '{name}' has a name or a value that can't be sent")]
    InvalidHeader {
        /// Its name.
        name: String,
    },
    /// A setting makes no sense.
    #[error("the setting `{setting}` {reason}")]
    Setting {
        /// The builder's method.
        setting: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// There is no HTTP client to be had, mostly for want of root certificates.
    #[error("the HTTP client can't be set up: for https it needs the system's root certificates")]
    Client(#[source] Box<dyn Error + Send + Sync>),
}

/// A call without a reply: where, after how many requests, and why.
#[derive(Debug)]
pub struct OpenAiError {
    problem: Problem,
    endpoint: Option<Arc<str>>,
    attempts: u32,
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A field of the node, or an option of the caller, has the wrong type or may not be given.
    #[error("node '{node}': `{field}` {reason}")]
    Field {
        /// The node.
        node: Arc<str>,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither the node nor the caller names a model.
    #[error("node '{node}' has no field `model`, and the caller has no model of its own")]
    NoModel {
        /// The node.
        node: Arc<str>,
    },
    /// No connection, or none within the time for it.
    #[error("no connection{}", if *timed_out { " in time" } else { "" })]
    Connect {
        /// Whether there was just not enough time.
        timed_out: bool,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke before the reply was complete.
    #[error("the connection broke before the reply was complete")]
    Broken(#[source] Option<Box<dyn Error + Send + Sync>>),
    /// The reply was not complete in time.
    #[error("no complete reply within {after:?}")]
    Timeout {
        /// The time that it had.
        after: Duration,
    },
    /// The endpoint answered with an error.
    #[error("status {}: {message}", with_reason(*status))]
    Status {
        /// The HTTP status.
        status: u16,
        /// What the server says, in short.
        message: String,
    },
    /// The endpoint reported an error inside a reply that had begun well.
    #[error("the endpoint reported an error: {message}")]
    Reported {
        /// The HTTP status that it stands for, if it names one.
        status: Option<u16>,
        /// What the server says, in short.
        message: String,
    },
    /// The reply is larger than allowed.
    #[error("the reply is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// What came back is no chat completion.
    #[error("the reply is no chat completion: {reason}")]
    Invalid {
        /// Why not.
        reason: String,
    },
    /// The LLM refused to answer.
    #[error("the LLM refused: {message}")]
    Refusal {
        /// What it says.
        message: String,
    },
    /// The token limit was reached before there was any text.
    #[error("the limit on tokens was reached before there was any text: raise `max_tokens`")]
    Length,
    /// The token limit was reached before the JSON that was asked for was complete.
    #[error("the reply was cut off at the limit on tokens: raise `max_tokens`")]
    CutOff,
    /// A content filter left nothing of the reply.
    #[error("the endpoint's content filter withheld the reply")]
    ContentFilter,
    /// The request has a message that this version can't send.
    #[error("a message of the conversation has a kind that this caller doesn't know")]
    UnknownMessage,
}

impl OpenAiError {
    /// A request that was never sent.
    pub(crate) fn unsent(problem: Problem) -> Self {
        Self {
            problem,
            endpoint: None,
            attempts: 0,
        }
    }

    pub(crate) fn new(problem: Problem, endpoint: Arc<str>, attempts: u32) -> Self {
        Self {
            problem,
            endpoint: Some(endpoint),
            attempts,
        }
    }

    /// Why there is no reply.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Scheme, host and path of what was called; `None` if nothing was.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// How many requests were sent.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The HTTP status, if the endpoint answered with an error.
    pub fn status(&self) -> Option<u16> {
        match &self.problem {
            Problem::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What kind of failure it is to the engine.
    pub fn kind(&self) -> LlmErrorKind {
        match &self.problem {
            Problem::Connect { timed_out: true, .. } => LlmErrorKind::Timeout,
            Problem::Connect { .. } | Problem::Broken(_) => LlmErrorKind::Connection,
            Problem::Timeout { .. } => LlmErrorKind::Timeout,
            Problem::Status { status, .. }
            | Problem::Reported {
                status: Some(status), ..
            } => kind_of(*status),
            Problem::Reported { .. }
            | Problem::TooLarge { .. }
            | Problem::Invalid { .. }
            | Problem::Length
            | Problem::CutOff => LlmErrorKind::InvalidResponse,
            Problem::Refusal { .. } | Problem::ContentFilter => LlmErrorKind::Refused,
            Problem::Field { .. } | Problem::NoModel { .. } | Problem::UnknownMessage => LlmErrorKind::Other,
        }
    }
}

/// `429 Too Many Requests`; a status without a usual reason is its number.
fn with_reason(status: u16) -> String {
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    reason.map_or_else(|| status.to_string(), |reason| format!("{status} {reason}"))
}

fn kind_of(status: u16) -> LlmErrorKind {
    match status {
        401 | 403 => LlmErrorKind::Unauthorized,
        408 => LlmErrorKind::Timeout,
        429 => LlmErrorKind::RateLimited,
        400..=499 => LlmErrorKind::Refused,
        _ => LlmErrorKind::Other,
    }
}

impl fmt::Display for OpenAiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(endpoint) = &self.endpoint {
            write!(f, "{endpoint}: ")?;
        }
        self.problem.fmt(f)?;
        if self.attempts > 1 {
            write!(f, " (after {} attempts)", self.attempts)?;
        }
        Ok(())
    }
}

impl Error for OpenAiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// The error as the engine takes it: boxed, of its kind.
pub(crate) fn into_llm(error: OpenAiError) -> LlmError {
    let kind = error.kind();
    LlmError::new(error).of_kind(kind)
}
