//! LLMs: what an application plugs in, and what the engine asks of it.
//!
//! [`LlmCaller`] is the one trait: a request in, a reply out. A closure `|prompt, config| async { Ok(text) }` is a caller.
//! What a caller can do besides taking text is declared by its [`Capabilities`]. [`Llms`] are the callers of an engine by
//! name; a node picks one by its field `llm`.
//!
//! Nothing here needs a runtime: the state machine decides what is asked and what a reply means, and a driver calls.

mod caller;
mod error;
mod excerpt;
mod registry;
mod reply;
mod request;
mod tokens;
mod window;

pub use caller::{Capabilities, LlmCaller, llm_fn};
pub use error::{LlmError, LlmErrorKind};
pub(crate) use excerpt::Excerpt;
pub use registry::{Llm, LlmSpec, LlmSpecs, Llms, RegisterLlmError};
pub use reply::{LlmReply, ToolRequest, Usage};
pub use request::{LlmRequest, Message, ToolOffer};
pub use soe_backends::Stage;
pub use tokens::TokenSink;
pub use window::HistoryWindow;
