//! What a scripted LLM answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fit;
use super::names::{error_kind_name, head};
use crate::llm::{LlmError, LlmErrorKind, LlmReply, LlmRequest, Stage, ToolRequest, Usage};

/// One answer of a [`MockLlm`](super::MockLlm).
///
/// ```
/// use std::time::Duration;
///
/// use soe_core::llm::LlmErrorKind;
/// use soe_core::testing::{Answer, MockLlm, node};
///
/// let llm = MockLlm::new();
/// llm.on(node("Judge"))
///     .then(Answer::error(LlmErrorKind::RateLimited, "slow down").after(Duration::from_millis(10)))
///     .then(Answer::with(|request| Answer::output(request.text().len())));
/// ```
#[derive(Clone)]
pub struct Answer {
    pub(super) body: Body,
    signals: Option<Vec<String>>,
    usage: Option<Usage>,
    latency: Option<Duration>,
    piece: Option<usize>,
}

#[derive(Clone)]
pub(super) enum Body {
    /// Nothing yet: only what else is known of the answers to come.
    Empty,
    Reply(LlmReply),
    Json(Value),
    Output(Value),
    CallTool {
        name: Arc<str>,
        arguments: Option<Value>,
    },
    Arguments(Value),
    Finish,
    Error {
        kind: LlmErrorKind,
        message: Arc<str>,
    },
    With(Arc<Compute>),
    /// A value that is no JSON.
    Broken(Arc<str>),
}

/// An answer that doesn't suit the request: a mistake in the script.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misfit(String);

type Compute = dyn Fn(&LlmRequest) -> Answer + Send + Sync;

impl Answer {
    /// This text, whatever was asked for. So an invalid reply is just a text that doesn't fit.
    pub fn text(text: impl Into<String>) -> Self {
        Self::reply(LlmReply::text(text))
    }

    /// This value as JSON text, as it is.
    pub fn json(value: impl Serialize) -> Self {
        Self::of_value(value, Body::Json)
    }

    /// This value as the output of an llm node, or of an agent: as JSON text in the form of the request's schema.
    ///
    /// If the schema is of an object with a single required property (beside `selected_signals`), the value is put under
    /// that property's name, unless it is such an object already. Otherwise it is taken as it is. A text that is asked for
    /// without a schema stays plain text.
    pub fn output(value: impl Serialize) -> Self {
        Self::of_value(value, Body::Output)
    }

    /// An agent's decision to call a tool.
    ///
    /// At the stage `router`, it names the tool. If the answer has [`Answer::arguments_of_call`], it then also answers the
    /// request for the arguments. On a caller with native tool calls, it is the call itself.
    pub fn call_tool(name: impl Into<Arc<str>>) -> Self {
        Self::of(Body::CallTool {
            name: name.into(),
            arguments: None,
        })
    }

    /// The arguments of a tool call, for the request of the stage `parameter`.
    pub fn arguments(value: impl Serialize) -> Self {
        Self::of_value(value, Body::Arguments)
    }

    /// An agent's decision that it has all it needs. Its output is the next answer. On a caller with native tool calls there
    /// is no such decision: the next answer is given at once.
    pub fn finish() -> Self {
        Self::of(Body::Finish)
    }

    /// This reply, as it is: several tool calls, for example.
    pub fn reply(reply: impl Into<LlmReply>) -> Self {
        Self::of(Body::Reply(reply.into()))
    }

    /// A failure of the call.
    pub fn error(kind: LlmErrorKind, message: impl Into<Arc<str>>) -> Self {
        Self::of(Body::Error {
            kind,
            message: message.into(),
        })
    }

    /// The answer that `compute` makes of the request.
    pub fn with(compute: impl Fn(&LlmRequest) -> Answer + Send + Sync + 'static) -> Self {
        Self::of(Body::With(Arc::new(compute)))
    }

    /// The same, with the arguments of the tool call. Without effect on other answers.
    #[must_use]
    pub fn arguments_of_call(mut self, value: impl Serialize) -> Self {
        if let Body::CallTool { arguments, .. } = &mut self.body {
            match serde_json::to_value(value) {
                Ok(value) => *arguments = Some(value),
                Err(error) => self.body = Body::Broken(error.to_string().into()),
            }
        }
        self
    }

    /// The same, choosing these of the node's signals. Only outputs and JSON values choose signals.
    #[must_use]
    pub fn signals<S: Into<String>>(mut self, signals: impl IntoIterator<Item = S>) -> Self {
        self.signals = Some(signals.into_iter().map(Into::into).collect());
        self
    }

    /// The same, reporting that it took these tokens.
    #[must_use]
    pub fn usage(mut self, prompt_tokens: u64, completion_tokens: u64) -> Self {
        self.usage = Some(Usage {
            prompt_tokens,
            completion_tokens,
        });
        self
    }

    /// The same, given after this time. It is Tokio's time, so that a test can pause it.
    #[must_use]
    pub fn after(mut self, latency: Duration) -> Self {
        self.latency = Some(latency);
        self
    }

    /// The same, streamed in pieces of so many characters, at least one, that arrive evenly over the latency. Otherwise the
    /// text is one piece.
    #[must_use]
    pub fn in_pieces_of(mut self, characters: usize) -> Self {
        self.piece = Some(characters.max(1));
        self
    }

    pub(super) fn empty() -> Self {
        Self::of(Body::Empty)
    }

    pub(super) fn broken(error: &serde_json::Error) -> Self {
        Self::of(Body::Broken(error.to_string().into()))
    }

    fn of(body: Body) -> Self {
        Self {
            body,
            signals: None,
            usage: None,
            latency: None,
            piece: None,
        }
    }

    fn of_value(value: impl Serialize, body: impl FnOnce(Value) -> Body) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => Self::of(body(value)),
            Err(error) => Self::broken(&error),
        }
    }

    /// The same, with what `other` says where this answer says nothing.
    pub(super) fn or(mut self, other: &Answer) -> Self {
        self.signals = self.signals.or_else(|| other.signals.clone());
        self.usage = self.usage.or(other.usage);
        self.latency = self.latency.or(other.latency);
        self.piece = self.piece.or(other.piece);
        self
    }

    /// The answer to this request, once everything is computed.
    pub(super) fn computed(mut self, request: &LlmRequest) -> Self {
        while let Body::With(compute) = &self.body {
            self = compute(request).or(&self);
        }
        self
    }

    /// Gives the answer: waits, streams, and makes the reply.
    ///
    /// # Errors
    /// The answer is an error, or doesn't suit the request.
    pub(super) async fn give(&self, request: &LlmRequest) -> Result<LlmReply, LlmError> {
        let reply = self.made(request);
        let text = reply.as_ref().map_or("", |reply| reply.text.as_str());
        let latency = self.latency.unwrap_or_default();
        if text.is_empty() || !request.tokens.is_wanted() {
            wait_until(Instant::now(), latency).await;
            return reply;
        }
        let characters: Vec<char> = text.chars().collect();
        let pieces = characters.chunks(self.piece.unwrap_or(characters.len()));
        let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        let began = Instant::now();
        for (number, piece) in (1_u32..).zip(pieces) {
            // Parts of the whole, not pauses: timers are rounded up, and that must not add up.
            wait_until(began, (latency / count).saturating_mul(number)).await;
            request.tokens.send(&piece.iter().collect::<String>());
        }
        reply
    }

    fn made(&self, request: &LlmRequest) -> Result<LlmReply, LlmError> {
        let mut reply = match &self.body {
            Body::Reply(reply) => reply.clone(),
            Body::Json(value) => self.json_reply(value.clone(), request)?,
            Body::Output(value) => {
                let schema = request.schema.as_deref();
                let fitted = fit::output(value, self.signals.as_deref(), schema).map_err(Misfit)?;
                match fitted {
                    Value::String(text) if schema.is_none() => LlmReply::text(text),
                    fitted => LlmReply::text(fitted.to_string()),
                }
            }
            Body::CallTool { name, arguments } => call(name, arguments.as_ref(), request)?,
            Body::Arguments(value) if request.stage != Stage::Turn => LlmReply::text(value.to_string()),
            Body::Finish if request.stage == Stage::Router => LlmReply::text(json!({"action": "finish"}).to_string()),
            Body::Error { kind, message } => return Err(LlmError::new(message.to_string()).of_kind(*kind)),
            Body::Broken(why) => return Err(Misfit(format!("its value can't be written as JSON: {why}")).into()),
            Body::Arguments(_) | Body::Finish | Body::Empty | Body::With(_) => return Err(self.misfit(request).into()),
        };
        if let Some(usage) = self.usage {
            reply.usage = Some(usage);
        }
        Ok(reply)
    }

    fn json_reply(&self, mut value: Value, request: &LlmRequest) -> Result<LlmReply, Misfit> {
        if let Some(signals) = &self.signals {
            fit::select(&mut value, signals, request.schema.as_deref()).map_err(Misfit)?;
        }
        Ok(LlmReply::text(value.to_string()))
    }

    fn misfit(&self, request: &LlmRequest) -> Misfit {
        let stage = request.stage.as_str();
        Misfit(match &self.body {
            Body::Finish if request.stage == Stage::Turn => {
                "'finish' is the last answer, and no output follows: an LLM with native tool calls ends with its output"
                    .to_owned()
            }
            Body::Empty => "the rule has no answer".to_owned(),
            _ => format!("{self} does not answer a request of stage {stage}"),
        })
    }
}

/// What a call of a tool looks like where it is asked for.
fn call(name: &str, arguments: Option<&Value>, request: &LlmRequest) -> Result<LlmReply, Misfit> {
    match request.stage {
        Stage::Router => Ok(LlmReply::text(
            json!({"action": "call_tool", "tool_name": name}).to_string(),
        )),
        _ if request.stage == Stage::Turn || !request.tools.is_empty() => Ok(LlmReply::tool_calls([ToolRequest {
            id: String::new(),
            name: name.to_owned(),
            arguments: arguments.map_or_else(|| "{}".to_owned(), Value::to_string),
        }])),
        stage => Err(Misfit(format!(
            "a call of the tool '{name}' does not answer a request of stage {}",
            stage.as_str()
        ))),
    }
}

async fn wait_until(began: Instant, after: Duration) {
    // Without a latency, no runtime with a clock is needed.
    if !after.is_zero() {
        tokio::time::sleep(after.saturating_sub(began.elapsed())).await;
    }
}

impl<T: Into<LlmReply>> From<T> for Answer {
    fn from(reply: T) -> Self {
        Self::reply(reply)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Empty => f.write_str("no answer"),
            Body::Reply(reply) => write!(f, "the reply {:?}", head(&reply.text, 40)),
            Body::Json(value) => write!(f, "the JSON {}", head(&value.to_string(), 40)),
            Body::Output(value) => write!(f, "the output {}", head(&value.to_string(), 40)),
            Body::CallTool { name, .. } => write!(f, "a call of the tool '{name}'"),
            Body::Arguments(value) => write!(f, "the arguments {}", head(&value.to_string(), 40)),
            Body::Finish => f.write_str("'finish'"),
            Body::Error { kind, .. } => write!(f, "the error {}", error_kind_name(*kind)),
            Body::With(_) => f.write_str("a computed answer"),
            Body::Broken(_) => f.write_str("a value that is no JSON"),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({self})")
    }
}
