//! Tools: functions of the application that workflows and agents call.
//!
//! [`tool_fn`] makes a tool of an async function with typed arguments, [`raw_tool`] one of a function that takes JSON or
//! of a type that implements [`Tool`]; a [`ToolRegistry`] holds the tools of an engine.
//!
//! [`ToolSpec`] is what the engine's pure part knows about a tool: it is there without the feature `runtime`.

mod arguments;
pub mod builtin;
mod spec;

#[cfg(feature = "runtime")]
pub(crate) mod context;
#[cfg(feature = "runtime")]
mod definition;
#[cfg(feature = "runtime")]
mod error;
#[cfg(feature = "runtime")]
mod registry;
#[cfg(feature = "runtime")]
mod tool;

pub use arguments::{ArgumentProblem, ArgumentsError, InvalidSchema};
pub use spec::{ToolSpec, ToolSpecs};

#[cfg(feature = "runtime")]
pub use context::{SignalError, TestContext, ToolContext};
#[cfg(feature = "runtime")]
pub use definition::{NoArguments, ToolDefinition, raw_tool, tool_fn};
#[cfg(feature = "runtime")]
pub use error::{ToolError, ToolTimeout};
#[cfg(feature = "runtime")]
pub use registry::{RegisterToolError, RegisteredTool, ToolRegistry};
#[cfg(feature = "runtime")]
pub use tokio_util::sync::CancellationToken;
#[cfg(feature = "runtime")]
pub use tool::Tool;
