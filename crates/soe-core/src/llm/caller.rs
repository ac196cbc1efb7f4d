//! What an application implements to be asked.

use std::sync::Arc;

use async_trait::async_trait;
use soe_backends::Map;

use super::{LlmError, LlmReply, LlmRequest};

/// An LLM: takes a request, returns text or tool calls, may await.
///
/// Async functions and closures `|prompt: String, config: Arc<Map>| async { ... }` whose result is
/// `Result<impl Into<LlmReply>, LlmError>` are callers: they get the whole request as one text, and the node's
/// configuration ([`llm_fn`] spares a closure the types). Implement the trait for a type that can do more, and says so by
/// [`LlmCaller::capabilities`].
///
/// Many calls may be in flight at the same time, and a call's future is dropped when nobody waits for it any more.
/// Failures of the transport are the caller's to retry: an error from it fails the node.
///
/// ```
/// use soe_core::llm::{LlmCaller, LlmRequest, llm_fn};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let echo = llm_fn(|prompt, _config| async move { Ok(format!("you said: {prompt}")) });
/// let reply = echo.call(LlmRequest::new("hello")).await.unwrap();
/// assert_eq!(reply.text, "you said: hello");
/// # }
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an LLM caller",
    label = "not an LLM caller",
    note = "a caller is an async function `(String, Arc<Map>) -> Result<impl Into<LlmReply>, LlmError>`, or a type that implements `LlmCaller`",
    note = "the future of an async function must be `Send`, and a closure must be `Fn + Send + Sync + 'static`"
)]
pub trait LlmCaller: Send + Sync + 'static {
    /// Asks the LLM once.
    ///
    /// # Errors
    /// No reply was to be had.
    async fn call(&self, request: LlmRequest) -> Result<LlmReply, LlmError>;

    /// What it can do besides taking text and returning text.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

/// What a caller can do besides taking text and returning text. Declared, never guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// It makes the endpoint keep to [`LlmRequest::schema`]: the schema is not told in the text then.
    pub structured_output: bool,
    /// It offers [`LlmRequest::tools`] to the LLM and returns what it wants to call as
    /// [`LlmReply::tool_calls`]: an agent then makes one request a turn.
    pub tool_calls: bool,
    /// It passes text on to [`LlmRequest::tokens`] as it arrives.
    pub streaming: bool,
}

impl Capabilities {
    /// The same, keeping to reply schemas or not.
    #[must_use]
    pub fn structured_output(self, structured_output: bool) -> Self {
        Self {
            structured_output,
            ..self
        }
    }

    /// The same, calling tools natively or not.
    #[must_use]
    pub fn tool_calls(self, tool_calls: bool) -> Self {
        Self { tool_calls, ..self }
    }

    /// The same, streaming or not.
    #[must_use]
    pub fn streaming(self, streaming: bool) -> Self {
        Self { streaming, ..self }
    }
}

/// Says that a closure is an LLM caller, so that its arguments need no types.
pub fn llm_fn<F, Fut, R>(caller: F) -> F
where
    F: Fn(String, Arc<Map>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, LlmError>> + Send,
    R: Into<LlmReply>,
{
    caller
}

// The error type is fixed, the reply's is not: with both open, a closure's `Ok(...)` would need annotations.
#[async_trait]
impl<F, Fut, R> LlmCaller for F
where
    F: Fn(String, Arc<Map>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, LlmError>> + Send,
    R: Into<LlmReply>,
{
    async fn call(&self, request: LlmRequest) -> Result<LlmReply, LlmError> {
        self(request.text(), request.config).await.map(Into::into)
    }
}

#[async_trait]
impl LlmCaller for Arc<dyn LlmCaller> {
    async fn call(&self, request: LlmRequest) -> Result<LlmReply, LlmError> {
        self.as_ref().call(request).await
    }

    fn capabilities(&self) -> Capabilities {
        self.as_ref().capabilities()
    }
}
