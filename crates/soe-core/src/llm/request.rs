//! What an LLM is asked.

use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use soe_backends::{Map, Stage};

use super::TokenSink;

/// One request.
///
/// Most have a single message from the user, with everything in it. Only an agent on a caller with native tool calls has a
/// conversation: its task, then what the LLM called and what came of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LlmRequest {
    /// The conversation, oldest message first.
    pub messages: Vec<Message>,
    /// JSON Schema of the reply, where one is wanted. It is told in the text too, unless the caller has
    /// [`structured_output`](super::Capabilities::structured_output).
    pub schema: Option<Arc<serde_json::Value>>,
    /// The tools that the LLM may call. Only for callers with [`tool_calls`](super::Capabilities::tool_calls).
    pub tools: Arc<[ToolOffer]>,
    /// The node's whole configuration: `model`, `temperature`, ..., and fields that the engine doesn't know.
    pub config: Arc<Map>,
    /// The name of the node that asks.
    pub node: Arc<str>,
    /// What is asked for.
    pub stage: Stage,
    /// What identifies the request to the outside: the run, and the request's number in it (`EXECUTION:17/2`). The same
    /// when the request is repeated after a crash.
    pub key: String,
    /// Takes the text as it arrives, from callers that stream.
    pub tokens: TokenSink,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Message {
    /// From the engine.
    User {
        /// The text.
        content: Arc<str>,
    },
    /// From the LLM.
    Assistant {
        /// The text.
        content: Arc<str>,
        /// The tools that it called.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<super::ToolRequest>,
    },
    /// What a tool answered, or why it didn't.
    Tool {
        /// The [`ToolRequest::id`](super::ToolRequest::id) that it answers.
        id: String,
        /// The tool.
        name: Arc<str>,
        /// The result, or the error, as text.
        content: Arc<str>,
    },
}

/// A tool, as it is offered to an LLM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolOffer {
    /// Its name.
    pub name: Arc<str>,
    /// What it does.
    pub description: Arc<str>,
    /// JSON Schema of its arguments.
    pub parameters: Arc<serde_json::Value>,
}

impl<T: Into<Arc<str>>> From<T> for LlmRequest {
    fn from(prompt: T) -> Self {
        Self::new(prompt)
    }
}

impl LlmRequest {
    /// A request of one text, by a node without name and configuration.
    pub fn new(prompt: impl Into<Arc<str>>) -> Self {
        Self {
            messages: vec![Message::User { content: prompt.into() }],
            schema: None,
            tools: Arc::default(),
            config: Arc::default(),
            node: "".into(),
            stage: Stage::default(),
            key: String::new(),
            tokens: TokenSink::default(),
        }
    }

    /// The same request, with a node's configuration.
    #[must_use]
    pub fn with_config(mut self, config: Arc<Map>) -> Self {
        self.config = config;
        self
    }

    /// The same request, for a reply of this JSON Schema.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<Arc<serde_json::Value>>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// The same request, by this node at this stage.
    #[must_use]
    pub fn by(mut self, node: impl Into<Arc<str>>, stage: Stage) -> Self {
        self.node = node.into();
        self.stage = stage;
        self
    }

    /// The whole request as one text: the only message, or a conversation with its roles named.
    pub fn text(&self) -> String {
        if let [Message::User { content }] = self.messages.as_slice() {
            return content.as_ref().to_owned();
        }
        let mut text = String::new();
        for message in &self.messages {
            let gap = if text.is_empty() { "" } else { "\n\n" };
            // Writing to a string can't fail.
            let _ = match message {
                Message::User { content } => write!(text, "{gap}[user]\n{content}"),
                Message::Assistant { content, tool_calls } => {
                    let _ = write!(text, "{gap}[assistant]\n{content}");
                    tool_calls
                        .iter()
                        .try_for_each(|call| write!(text, "\n[calls {}] {}", call.name, call.arguments))
                }
                Message::Tool { name, content, .. } => write!(text, "{gap}[Tool: {name}]\n{content}"),
            };
        }
        text
    }
}
