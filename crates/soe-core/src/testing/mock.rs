//! A scripted LLM.

use std::fmt::{self, Write};
use std::panic::Location;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use soe_backends::Map;

use super::rule::{Rule, RuleBuilder};
use super::{Answer, Matcher, RecordedError, ScriptError, UnscriptedRequest, lock, script};
use crate::llm::{Capabilities, LlmCaller, LlmError, LlmReply, LlmRequest, Message, Stage, ToolOffer};

/// An LLM that answers by a script, and keeps what it was asked. Cheap to clone; clones share the script and the requests.
///
/// The first rule that matches a request and isn't used up answers it. A request that no rule answers fails with an
/// [`UnscriptedRequest`], which says what was asked and why no rule answers it.
///
/// ```
/// use std::time::Duration;
///
/// use soe_core::llm::{LlmCaller, LlmRequest, Stage};
/// use soe_core::testing::{MockLlm, any, node};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), soe_core::llm::LlmError> {
/// let llm = MockLlm::new();
/// llm.on(node("Summarise")).output("short");
/// llm.on(node("Judge").prompt_contains("draft 2")).output(0.9).after(Duration::from_millis(5));
/// llm.on(any()).text("{}");
///
/// let reply = llm.call(LlmRequest::new("is draft 2 any good?").by("Judge", Stage::Llm)).await?;
/// assert_eq!(reply.text, "0.9");
/// assert_eq!(llm.requests_of("Judge").len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct MockLlm {
    rules: Arc<Mutex<Vec<Rule>>>,
    requests: Arc<Mutex<Vec<RecordedRequest>>>,
    capabilities: Capabilities,
}

/// A request that a [`MockLlm`] got, and what came of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// The node that asked.
    pub node: Arc<str>,
    /// What for.
    pub stage: Stage,
    /// The whole request as one text.
    pub text: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// JSON Schema of the reply.
    pub schema: Option<Arc<serde_json::Value>>,
    /// The tools that were offered.
    pub tools: Arc<[ToolOffer]>,
    /// The node's configuration.
    pub config: Arc<Map>,
    /// What identifies the request to the outside.
    pub key: String,
    /// The reply. Without it and without an error, the call is in flight, or was given up.
    pub reply: Option<LlmReply>,
    /// Why there was no reply.
    pub error: Option<RecordedError>,
}

impl MockLlm {
    /// A mock without rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// The script of a YAML file: a list of rules, with the names of [`RuleBuilder`] as keys. `docs/testing.md` has them all.
    ///
    /// ```
    /// use soe_core::testing::MockLlm;
    ///
    /// let llm = MockLlm::from_yaml("
    /// - node: Summarise
    ///   output: short
    /// - node: Judge
    ///   prompt_contains: draft 2
    ///   latency: 50ms
    ///   replies:
    ///     - error: {kind: rate_limited, message: slow down}
    ///     - output: 0.9
    /// ")?;
    /// let error = MockLlm::from_yaml("- node: Summarise\n  outputt: short").unwrap_err();
    /// assert!(error.to_string().contains("line 2, column 3: rule 1: unknown key 'outputt' (did you mean 'output'?)"));
    /// # Ok::<(), soe_core::testing::ScriptError>(())
    /// ```
    ///
    /// # Errors
    /// Everything that is wrong with the script, and where.
    pub fn from_yaml(text: &str) -> Result<Self, ScriptError> {
        script::read(text)
    }

    /// The same mock, as an LLM with native tool calls: an agent then makes one request a turn.
    #[must_use]
    pub fn with_native_tools(mut self) -> Self {
        self.capabilities = self.capabilities.tool_calls(true);
        self
    }

    /// The same mock, as an LLM that keeps to reply schemas: they are not told in the text then.
    #[must_use]
    pub fn with_structured_output(mut self) -> Self {
        self.capabilities = self.capabilities.structured_output(true);
        self
    }

    /// Adds a rule, behind those that there are. What it answers is said by the methods of the result.
    #[track_caller]
    pub fn on(&self, matcher: Matcher) -> RuleBuilder {
        let place = Location::caller();
        self.on_at(matcher, format!("{}:{}", place.file(), place.line()))
    }

    /// Adds a rule that is written at `place`.
    pub(super) fn on_at(&self, matcher: Matcher, place: String) -> RuleBuilder {
        RuleBuilder::add(&self.rules, matcher, place)
    }

    /// All requests, in the order in which they arrived.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.requests).clone()
    }

    /// The requests of a node, in the order in which they arrived.
    pub fn requests_of(&self, node: &str) -> Vec<RecordedRequest> {
        let requests = lock(&self.requests);
        requests
            .iter()
            .filter(|request| request.node.as_ref() == node)
            .cloned()
            .collect()
    }

    /// How many requests there were.
    pub fn calls(&self) -> usize {
        lock(&self.requests).len()
    }

    /// What of the script no request has asked for: rules that were never used, and answers that were never given.
    pub fn unused(&self) -> Vec<String> {
        let rules = lock(&self.rules);
        let unused = |(i, rule): (usize, &Rule)| Some(format!("rule {}, {rule}: {}", i + 1, rule.unused()?));
        rules.iter().enumerate().filter_map(unused).collect()
    }

    /// Checks that the whole script was used.
    ///
    /// # Panics
    /// A rule was never used, or an answer of a sequence was never given. The message names all of them.
    #[track_caller]
    pub fn assert_all_used(&self) {
        let unused = self.unused();
        assert!(
            unused.is_empty(),
            "the mock LLM's script was not used up:\n  {}",
            unused.join("\n  ")
        );
    }

    /// The answer to a request, and the rule that gives it, from 1.
    fn choose(&self, request: &LlmRequest, text: &str) -> Result<(usize, Answer), UnscriptedRequest> {
        // Conditions are the test's code: they run without the lock, so that they may ask the mock.
        let matchers: Vec<Arc<Matcher>> = lock(&self.rules).iter().map(|rule| rule.matcher.clone()).collect();
        let mismatches: Vec<Option<String>> = matchers.iter().map(|matcher| matcher.mismatch(request, text)).collect();
        let mut rules = lock(&self.rules);
        let mut reasons = Vec::new();
        for (i, (rule, mismatch)) in rules.iter_mut().zip(mismatches).enumerate() {
            match mismatch.or_else(|| rule.used_up()) {
                None => return Ok((i + 1, rule.take(request))),
                Some(reason) => reasons.push(format!("{rule}: {reason}")),
            }
        }
        Err(UnscriptedRequest::new(request, text.to_owned(), reasons))
    }

    async fn answer(&self, request: &LlmRequest, text: &str) -> Result<LlmReply, LlmError> {
        let (number, answer) = self.choose(request, text)?;
        let result = answer.computed(request).give(request).await;
        // Only what the test asked for keeps its own words.
        result.map_err(|error| match error.is::<super::answer::Misfit>() {
            true => LlmError::new(self.blame(number, &error)),
            false => error,
        })
    }

    fn blame(&self, number: usize, error: &LlmError) -> String {
        let mut text = format!("rule {number} of the mock LLM");
        if let Some(rule) = lock(&self.rules).get(number - 1) {
            // Writing to a string can't fail.
            let _ = write!(text, ", {rule}");
        }
        format!("{text}: {error}")
    }

    fn record(&self, request: &LlmRequest, text: &str) -> usize {
        let mut requests = lock(&self.requests);
        requests.push(RecordedRequest {
            node: request.node.clone(),
            stage: request.stage,
            text: text.to_owned(),
            messages: request.messages.clone(),
            schema: request.schema.clone(),
            tools: request.tools.clone(),
            config: request.config.clone(),
            key: request.key.clone(),
            reply: None,
            error: None,
        });
        requests.len() - 1
    }
}

#[async_trait]
impl LlmCaller for MockLlm {
    async fn call(&self, request: LlmRequest) -> Result<LlmReply, LlmError> {
        let text = request.text();
        let index = self.record(&request, &text);
        let result = self.answer(&request, &text).await;
        if let Some(record) = lock(&self.requests).get_mut(index) {
            match &result {
                Ok(reply) => record.reply = Some(reply.clone()),
                Err(error) => record.error = Some(RecordedError::of(error)),
            }
        }
        result
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.streaming(true)
    }
}

impl fmt::Debug for MockLlm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockLlm")
            .field("rules", &lock(&self.rules).len())
            .field("calls", &self.calls())
            .field("capabilities", &self.capabilities)
            .finish()
    }
}

#[cfg(test)]
#[path = "mock_tests.rs"]
mod tests;
