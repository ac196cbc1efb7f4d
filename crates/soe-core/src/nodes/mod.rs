//! Custom node types: what an application adds to `router`, `tool`, `llm`, `agent` and `child`.
//!
//! A [`CustomNode`] is registered in [`NodeTypes`] under the name that workflows give as `node_type`. It gets a
//! [`NodeInput`] and answers with a [`NodeOutput`].

#[cfg(feature = "runtime")]
mod custom;
#[cfg(feature = "runtime")]
pub(crate) mod input;
mod output;

pub use output::{NodeOutput, Signals};

#[cfg(feature = "runtime")]
pub use custom::{CustomNode, NodeError, NodeTypes, RegisterNodeError};
#[cfg(feature = "runtime")]
pub use input::{NodeInput, TestInput, UnknownTool};

/// The node types that the engine brings along.
pub const BUILT_IN_TYPES: [&str; 5] = ["router", "tool", "llm", "agent", "child"];
