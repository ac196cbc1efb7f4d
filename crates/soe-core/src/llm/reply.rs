//! What comes back from an LLM.

use serde::{Deserialize, Serialize};
pub use soe_backends::Usage;

/// A reply: text, or calls of tools, and what it took.
///
/// ```
/// use soe_core::llm::{LlmReply, Usage};
///
/// let reply = LlmReply::text("42").with_usage(Usage { prompt_tokens: 20, completion_tokens: 1 });
/// assert_eq!(reply.usage.unwrap().total(), 21);
/// assert_eq!(LlmReply::from("42").text, "42");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LlmReply {
    /// The text; may be empty where there are tool calls.
    pub text: String,
    /// The tools that the LLM wants to be called, from callers with native tool calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolRequest>,
    /// Tokens, as the endpoint reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A call that an LLM asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolRequest {
    /// The endpoint's name for the call; may be empty, then the engine makes one.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments as the LLM wrote them: JSON, if it kept to the format.
    pub arguments: String,
}

impl LlmReply {
    /// A reply of text only.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// A reply that asks for tools.
    pub fn tool_calls(calls: impl IntoIterator<Item = ToolRequest>) -> Self {
        Self {
            tool_calls: calls.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The same reply, with what it took.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }
}

impl<T: Into<String>> From<T> for LlmReply {
    fn from(text: T) -> Self {
        Self::text(text)
    }
}
