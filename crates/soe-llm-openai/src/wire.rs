//! Chat completions as they are sent.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use soe_core::llm::Usage;

/// A whole completion, or a piece of one: they differ in `message` and `delta`.
///
/// What isn't the reply itself doesn't spoil it: if it can't be read, it isn't there.
#[derive(Deserialize)]
pub(crate) struct Wire {
    pub(crate) choices: Option<Vec<Choice>>,
    #[serde(default, deserialize_with = "readable")]
    pub(crate) usage: Option<WireUsage>,
    pub(crate) error: Option<Value>,
}

#[derive(Deserialize)]
pub(crate) struct Choice {
    #[serde(default, deserialize_with = "readable")]
    pub(crate) index: Option<u64>,
    pub(crate) message: Option<WireMessage>,
    pub(crate) delta: Option<WireMessage>,
    #[serde(default, deserialize_with = "readable")]
    pub(crate) finish_reason: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct WireMessage {
    pub(crate) content: Option<Content>,
    #[serde(default, deserialize_with = "readable")]
    pub(crate) refusal: Option<String>,
    pub(crate) tool_calls: Option<Vec<WireCall>>,
}

/// Text, or parts of which some are text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
pub(crate) struct Part {
    pub(crate) text: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct WireCall {
    #[serde(default, deserialize_with = "readable")]
    pub(crate) index: Option<u64>,
    #[serde(default, deserialize_with = "readable")]
    pub(crate) id: Option<String>,
    pub(crate) function: Option<WireFunction>,
}

#[derive(Deserialize)]
pub(crate) struct WireFunction {
    pub(crate) name: Option<String>,
    pub(crate) arguments: Option<Value>,
}

#[derive(Deserialize)]
pub(crate) struct WireUsage {
    #[serde(default, deserialize_with = "count")]
    pub(crate) prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    pub(crate) completion_tokens: Option<u64>,
}

impl WireUsage {
    pub(crate) fn into_usage(self) -> Option<Usage> {
        let counts = (self.prompt_tokens, self.completion_tokens);
        (counts != (None, None)).then(|| Usage {
            prompt_tokens: self.prompt_tokens.unwrap_or(0),
            completion_tokens: self.completion_tokens.unwrap_or(0),
        })
    }
}

impl Content {
    pub(crate) fn into_text(self) -> String {
        match self {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

/// The value, if it is one.
fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// A number of tokens, if it is one; some servers write `11.0`.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let whole = |number: &f64| (0.0..=EXACT).contains(number) && number.fract() == 0.0;
    Ok(value.as_u64().or_else(|| Some(value.as_f64().filter(whole)? as u64)))
}

/// Up to here, a float holds every integer.
const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
