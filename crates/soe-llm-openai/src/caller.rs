//! The caller: one call is one or more requests, and one reply.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use soe_core::llm::{Capabilities, LlmCaller, LlmError, LlmReply, LlmRequest, TokenSink};
use tokio::time::{Instant, sleep, timeout};

use crate::attempt::Failure;
use crate::endpoint::Endpoint;
use crate::error::{self, OpenAiError, Problem};
use crate::key::Secrets;
use crate::rate::Limiter;
use crate::request::{Format, Prepared};
use crate::response::Completion;
use crate::retry::{Retries, Retry, RetryPolicy};
use crate::schema::Form;
use crate::{OpenAiBuilder, message};

/// An OpenAI-compatible endpoint as an LLM. Cheap to clone; clones share connections and rate limits.
///
/// A call that fails gives an [`LlmError`] of a fitting kind with an [`OpenAiError`](crate::OpenAiError) in it, for
/// [`LlmError::downcast_ref`].
///
/// ```no_run
/// use soe_core::llm::{LlmCaller, LlmError, LlmRequest};
/// use soe_llm_openai::OpenAi;
///
/// # async fn ask() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let gpt = OpenAi::from_env().model("gpt-4o-mini").build()?;
/// let reply = gpt.call(LlmRequest::new("What is 6 times 7?")).await.map_err(LlmError::into_error)?;
/// println!("{}", reply.text);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OpenAi {
    settings: Arc<Settings>,
}

/// What a caller is built of.
pub(crate) struct Settings {
    pub(crate) client: reqwest::Client,
    pub(crate) endpoint: Endpoint,
    pub(crate) secrets: Secrets,
    pub(crate) format: Format,
    pub(crate) timeout: Duration,
    pub(crate) max_response_bytes: u64,
    pub(crate) retries: RetryPolicy,
    pub(crate) limiter: Arc<Limiter>,
}

/// Where streamed text goes, and whether some went there: then nothing can be repeated.
pub(crate) struct Outlet {
    tokens: TokenSink,
    /// A wrapped reply is shown when it is unwrapped.
    held: bool,
    used: bool,
}

impl OpenAi {
    /// Sets up a caller; without more, one for OpenAI itself, without a key.
    pub fn builder() -> OpenAiBuilder {
        OpenAiBuilder::new()
    }

    /// As [`OpenAi::builder`], with the key from the environment variable `OPENAI_API_KEY`, which is read when the caller
    /// is built.
    pub fn from_env() -> OpenAiBuilder {
        Self::builder().key_from_env("OPENAI_API_KEY")
    }

    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
        }
    }
}

#[async_trait]
impl LlmCaller for OpenAi {
    async fn call(&self, request: LlmRequest) -> Result<LlmReply, LlmError> {
        self.settings.call(&request).await.map_err(error::into_llm)
    }

    fn capabilities(&self) -> Capabilities {
        let format = &self.settings.format;
        Capabilities::default()
            .structured_output(format.structured_output)
            .tool_calls(format.native_tools)
            .streaming(format.streaming)
    }
}

impl Settings {
    async fn call(&self, request: &LlmRequest) -> Result<LlmReply, OpenAiError> {
        let prepared = Prepared::new(request, &self.format).map_err(OpenAiError::unsent)?;
        let mut outlet = Outlet {
            tokens: request.tokens.clone(),
            held: prepared.form == Form::Wrapped,
            used: false,
        };
        let mut attempts = 0;
        let completion = self.completion(request, &prepared, &mut outlet, &mut attempts).await;
        let reply = completion.and_then(|completion| completion.into_reply(&prepared.names, prepared.form));
        let reply = reply
            .map_err(|problem| OpenAiError::new(self.presentable(problem), self.endpoint.shown.clone(), attempts))?;
        if prepared.streamed {
            outlet.finish(&reply.text);
        }
        Ok(reply)
    }

    /// Sends the request until there is a completion, or no sense in trying again.
    async fn completion(
        &self,
        request: &LlmRequest,
        prepared: &Prepared,
        outlet: &mut Outlet,
        attempts: &mut u32,
    ) -> Result<Completion, Problem> {
        let mut retries = Retries::new(self.retries);
        let mut left = self.timeout;
        loop {
            let pass = self.limiter.pass(prepared.tokens).await;
            *attempts += 1;
            let started = Instant::now();
            let outcome = timeout(left, self.attempt(prepared, outlet)).await;
            let failure = match outcome {
                Ok(Ok(completion)) => {
                    if let Some(usage) = completion.usage() {
                        pass.took(usage.total());
                    }
                    return Ok(completion);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::lasting(Problem::Timeout { after: self.timeout }),
            };
            left = left.saturating_sub(started.elapsed());
            match &failure.problem {
                Problem::Connect { .. } => pass.give_back(),
                // The endpoint counted a request, but nothing was written.
                Problem::Status { .. } => pass.took(0),
                _ => {}
            }
            let retry = if outlet.used { Retry::Never } else { failure.retry };
            match retries.next(retry, fastrand::f64()).filter(|wait| *wait < left) {
                Some(wait) => {
                    self.tell(request, &failure.problem, *attempts, wait);
                    sleep(wait).await;
                    left = left.saturating_sub(wait);
                }
                None => return Err(failure.problem),
            }
        }
    }

    fn tell(&self, request: &LlmRequest, problem: &Problem, attempt: u32, wait: Duration) {
        let status = match problem {
            Problem::Status { status, .. } => Some(*status),
            _ => None,
        };
        tracing::debug!(
            node = %request.node,
            endpoint = %self.endpoint.shown,
            attempt,
            status,
            connected = !matches!(problem, Problem::Connect { .. }),
            wait_ms = wait.as_millis() as u64,
            "a request failed in passing and will be sent again"
        );
    }

    /// The problem as people may see it: without secrets, and short.
    fn presentable(&self, mut problem: Problem) -> Problem {
        if let Problem::Status { message: text, .. }
        | Problem::Reported { message: text, .. }
        | Problem::Refusal { message: text }
        | Problem::Invalid { reason: text } = &mut problem
        {
            *text = message::clipped(self.secrets.hide(text));
        }
        problem
    }
}

impl Outlet {
    pub(crate) fn send(&mut self, text: &str) {
        if !self.held && !text.is_empty() {
            self.used = true;
            self.tokens.send(text);
        }
    }

    /// Shows a reply of which nothing was shown as it arrived.
    fn finish(self, text: &str) {
        if !self.used && !text.is_empty() {
            self.tokens.send(text);
        }
    }
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi")
            .field("endpoint", &self.settings.endpoint)
            .field("format", &self.settings.format)
            .finish_non_exhaustive()
    }
}
