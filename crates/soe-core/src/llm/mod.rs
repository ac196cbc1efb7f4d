//! LLMs: what an application plugs in, and what the engine asks of it.
//!
//! [`LlmCaller`] is the one trait: a request in, a reply out. A closure `|prompt, config| async { Ok(text) }` is a caller.
//! What a caller can do besides taking text is declared by its [`Capabilities`]. [`Llms`] are the callers of an engine by
//! name; a node picks one by its field `llm`.
//!
//! Nothing here needs a runtime: the state machine decides what is asked and what a reply means, and a driver calls.

mod caller;
mod check;
mod error;
mod extract;
mod format;
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod history;
mod problems;
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod prompt;
mod registry;
mod reply;
mod request;
mod tokens;
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod tool_text;

pub use caller::{Capabilities, LlmCaller, llm_fn};
pub use error::{LlmError, LlmErrorKind};
pub use format::{MAX_REPLY_BYTES, Parsed, ReplyFormat};
pub use history::HistoryWindow;
pub use problems::{InvalidReply, Problem, Problems};
pub use registry::{Llm, LlmSpec, LlmSpecs, Llms, RegisterLlmError};
pub use reply::{LlmReply, ToolRequest, Usage};
pub use request::{LlmRequest, Message, Stage, ToolOffer};
pub use tokens::TokenSink;
