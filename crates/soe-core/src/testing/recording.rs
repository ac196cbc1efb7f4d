//! The file format of recorded conversations: JSON Lines, first a header, then an exchange a line.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use soe_backends::Map;

use super::names::{error_kind_name, error_kind_of};
use crate::llm::{Capabilities, LlmError, LlmErrorKind, LlmReply, LlmRequest, Message, Stage, ToolOffer};

/// The fields of a node's configuration that are recorded and compared, unless a recorder is told others: those that change
/// what an LLM replies, `llm_options` with everything in it. The prompt is in the messages; other fields may hold anything,
/// so they don't get into a file.
pub const SELECTED_CONFIG: &[&str] = &[
    "llm",
    "model",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "llm_options",
];

pub(super) const FORMAT: &str = "soe-llm-recording";
pub(super) const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    /// What the recorded LLM could do: the engine asks accordingly.
    pub(super) structured_output: bool,
    pub(super) tool_calls: bool,
    pub(super) streaming: bool,
    /// The fields of the configuration that were recorded.
    pub(super) config_fields: Vec<String>,
}

/// One recorded request, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exchange {
    /// Which request it was, in the order in which they began, from 1.
    pub number: u64,
    /// The node that asked.
    pub node: Arc<str>,
    /// What for.
    pub stage: Stage,
    /// The conversation.
    pub messages: Vec<Message>,
    /// JSON Schema of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Arc<serde_json::Value>>,
    /// The tools that were offered.
    #[serde(default, skip_serializing_if = "<[ToolOffer]>::is_empty")]
    pub tools: Arc<[ToolOffer]>,
    /// The selected fields of the node's configuration.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map,
    /// The reply, unless there was an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<LlmReply>,
    /// Why there was no reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RecordedError>,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub elapsed_ms: u64,
}

/// A failure of a call, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordedError {
    /// What kind of failure it was.
    #[serde(serialize_with = "write_kind", deserialize_with = "read_kind")]
    pub kind: LlmErrorKind,
    /// The error's text, with its causes.
    pub message: String,
}

/// A recording that can't be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The file can't be created or written to.
    #[error("the recording {path} can't be written", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing to the file failed before: what it holds is not whole.
    #[error("the recording {path} is broken: an exchange before could not be written", path = path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be read.
    #[error("the recording {path} can't be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The first line doesn't say that it is a recording of a known version.
    #[error("this is no recording of an LLM: {0}")]
    Header(String),
    /// A line is no exchange.
    #[error("line {line} of the recording is no exchange: {problem}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// Why.
        problem: String,
    },
}

impl Header {
    pub(super) fn new(capabilities: Capabilities, config_fields: Vec<String>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            structured_output: capabilities.structured_output,
            tool_calls: capabilities.tool_calls,
            streaming: capabilities.streaming,
            config_fields,
        }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .structured_output(self.structured_output)
            .tool_calls(self.tool_calls)
            .streaming(self.streaming)
    }
}

impl Exchange {
    /// A request, without what came of it.
    pub(super) fn of(request: &LlmRequest, config_fields: &[String]) -> Self {
        let config = request.config.iter();
        let config = config.filter(|(name, _)| config_fields.iter().any(|field| **field == ***name));
        Self {
            number: 0,
            node: request.node.clone(),
            stage: request.stage,
            messages: request.messages.clone(),
            schema: request.schema.clone(),
            tools: request.tools.clone(),
            config: config.map(|(name, value)| (name.clone(), value.clone())).collect(),
            reply: None,
            error: None,
            elapsed_ms: 0,
        }
    }

    /// The same conversation with the ids of tool calls numbered: the engine may make ids of the execution's id.
    pub(super) fn numbered(mut self) -> Self {
        let mut ids: Vec<String> = Vec::new();
        let mut number = |id: &mut String| {
            let known = ids.iter().position(|known| known == id);
            let index = known.unwrap_or_else(|| {
                ids.push(id.clone());
                ids.len() - 1
            });
            *id = format!("call-{}", index + 1);
        };
        for message in &mut self.messages {
            match message {
                Message::Assistant { tool_calls, .. } => tool_calls.iter_mut().for_each(|call| number(&mut call.id)),
                Message::Tool { id, .. } => number(id),
                Message::User { .. } => {}
            }
        }
        self
    }

    /// The conversation as one text.
    pub(super) fn text(&self) -> String {
        let mut request = LlmRequest::new("");
        request.messages.clone_from(&self.messages);
        request.text()
    }
}

impl RecordedError {
    pub(super) fn of(error: &LlmError) -> Self {
        Self {
            kind: error.kind(),
            message: format!("{error:#}"),
        }
    }

    pub(super) fn to_error(&self) -> LlmError {
        LlmError::new(self.message.clone()).of_kind(self.kind)
    }
}

fn write_kind<S: Serializer>(kind: &LlmErrorKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(error_kind_name(*kind))
}

fn read_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LlmErrorKind, D::Error> {
    let name = String::deserialize(deserializer)?;
    error_kind_of(&name).ok_or_else(|| de::Error::custom(format!("'{name}' is no kind of LLM error")))
}
