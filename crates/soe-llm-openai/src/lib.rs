//! Calls LLMs for the SOE workflow engine: any endpoint with OpenAI's chat completions.
//!
//! [`OpenAi`] is an [`LlmCaller`](soe_core::llm::LlmCaller) for OpenAI itself, Azure, vLLM, llama.cpp, Ollama, LiteLLM and
//! the like. It streams, offers tools, asks for replies of a schema, repeats what failed in passing, and keeps to limits
//! on requests and tokens a minute. The key is never shown, not even where a server repeats it.
//!
//! ```
//! use std::time::Duration;
//!
//! use soe_core::llm::{Llm, Llms};
//! use soe_llm_openai::OpenAi;
//!
//! let local = OpenAi::builder()
//!     .base_url("http://localhost:11434/v1")
//!     .model("llama3.2")
//!     .timeout(Duration::from_secs(120))
//!     .build()?;
//!
//! let mut llms = Llms::new();
//! llms.set_default(local.clone());
//! llms.register("one-at-a-time", Llm::new(local).max_concurrency(1))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A node's own fields go before what the caller is built with: `model`, `temperature`, `top_p`, `max_tokens`,
//! `max_completion_tokens`, `seed`, `stop`, `presence_penalty`, `frequency_penalty`, `reasoning_effort`, `verbosity`,
//! `service_tier`, and anything else in a mapping `llm_options`, which goes into the request as it is.

mod attempt;
mod builder;
mod caller;
mod client;
mod endpoint;
mod error;
mod key;
mod message;
mod names;
mod options;
mod rate;
mod request;
mod response;
mod retry;
mod schema;
mod spelling;
mod sse;
mod wire;

pub use builder::OpenAiBuilder;
pub use caller::OpenAi;
pub use error::{BuildError, OpenAiError, Problem};
pub use key::ApiKey;
pub use spelling::Redactor;
