//! LLMs: what an application plugs in, and what the engine asks of it.
//!
//! [`LlmCaller`] is the one trait: a request in, a reply out. A closure `|prompt, config| async { Ok(text) }` is a caller.
//! What a caller can do besides taking text is declared by its [`Capabilities`]. [`Llms`] are the callers of an engine by
//! name; a node picks one by its field `llm`.
//!
//! Nothing here needs a runtime: the state machine decides what is asked and what a reply means, and a driver calls.

mod arguments;
mod ask;
mod caller;
mod check;
mod error;
mod excerpt;
mod extract;
mod format;
mod history;
mod problems;
pub(crate) mod prompt;
mod registry;
mod reply;
mod request;
mod string;
mod tokens;
mod tool_text;

pub(crate) use arguments::lenient_arguments;
pub use ask::{Asked, Materials};
pub use caller::{Capabilities, LlmCaller, llm_fn};
pub use error::{LlmError, LlmErrorKind};
pub(crate) use excerpt::Excerpt;
pub(crate) use format::SELECTED;
pub use format::{MAX_REPLY_BYTES, Parsed, ReplyFormat};
pub use history::HistoryWindow;
pub(crate) use history::written_by;
pub use problems::{InvalidReply, Problem, Problems};
pub use registry::{Llm, LlmSpec, LlmSpecs, Llms, RegisterLlmError};
pub use reply::{LlmReply, ToolRequest, Usage};
pub use request::{LlmRequest, Message, ToolOffer};
pub use soe_backends::Stage;
pub use tokens::TokenSink;
