//! The trait of custom nodes, their failures, and the registry of their types.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use indexmap::IndexMap;

use super::{BUILT_IN_TYPES, NodeInput, NodeOutput};
use crate::failure;
use crate::llm::LlmError;
use crate::tools::ToolError;

/// A node type of the application: an async function from what the engine knows to writes and signals.
///
/// Async functions and closures `|input: NodeInput| async { ... }` whose result is `Result<NodeOutput, NodeError>` are
/// custom nodes. Each run is a task of its own. A run may happen more than once (see [`NodeInput::idempotency_key`]), and
/// its future is dropped when nobody waits for it any more.
///
/// ```
/// use soe_core::nodes::{CustomNode, NodeError, NodeInput, NodeOutput, NodeTypes};
///
/// struct Wait;
///
/// #[async_trait::async_trait]
/// impl CustomNode for Wait {
///     async fn run(&self, input: NodeInput) -> Result<NodeOutput, NodeError> {
///         let seconds = input.config().get("seconds").and_then(|s| s.as_f64()).unwrap_or(1.0);
///         tokio::time::sleep(std::time::Duration::try_from_secs_f64(seconds)?).await;
///         Ok(NodeOutput::new())
///     }
/// }
///
/// let mut types = NodeTypes::new();
/// types.register("wait", Wait)?;
/// # Ok::<(), soe_core::nodes::RegisterNodeError>(())
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a custom node",
    label = "not a custom node",
    note = "a custom node is an async function `(NodeInput) -> Result<NodeOutput, NodeError>`, or a type that implements `CustomNode`",
    note = "the future of an async function must be `Send`, and a closure must be `Fn + Send + Sync + 'static`"
)]
pub trait CustomNode: Send + Sync + 'static {
    /// Runs the node.
    ///
    /// # Errors
    /// Whatever keeps it from giving a result.
    async fn run(&self, input: NodeInput) -> Result<NodeOutput, NodeError>;
}

#[async_trait]
impl<F, Fut> CustomNode for F
where
    F: Fn(NodeInput) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<NodeOutput, NodeError>> + Send,
{
    async fn run(&self, input: NodeInput) -> Result<NodeOutput, NodeError> {
        self(input).await
    }
}

/// A custom node's failure: an application's error.
///
/// Every error converts into it, so `?` works in a node; like `anyhow::Error` it is itself no [`std::error::Error`].
/// `{}` shows the error, `{:#}` also what caused it.
pub struct NodeError(Box<dyn Error + Send + Sync>);

impl NodeError {
    /// A failure described by a text, or by any other thing that becomes a boxed error (such as an `anyhow::Error`).
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

failure::holds_an_error!(NodeError, 0);

impl From<ToolError> for NodeError {
    fn from(error: ToolError) -> Self {
        Self(error.into_error())
    }
}

impl From<LlmError> for NodeError {
    fn from(error: LlmError) -> Self {
        Self(error.into_error())
    }
}

impl fmt::Debug for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeError").field(&self.0).finish()
    }
}

/// The node types that an application registers, by the name that `node_type` gives. Cheap to clone; a clone doesn't see
/// later registrations.
#[derive(Clone, Default)]
pub struct NodeTypes {
    types: Arc<IndexMap<Arc<str>, Arc<dyn CustomNode>>>,
}

impl NodeTypes {
    /// Without custom types.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node type.
    ///
    /// # Errors
    /// The name is blank, belongs to a built-in type, begins with `__`, or is taken.
    pub fn register(
        &mut self,
        name: impl Into<Arc<str>>,
        node: impl CustomNode,
    ) -> Result<&mut Self, RegisterNodeError> {
        let name = name.into();
        if name.trim().is_empty() {
            return Err(RegisterNodeError::Blank);
        }
        if name.starts_with("__") || BUILT_IN_TYPES.contains(&name.as_ref()) {
            return Err(RegisterNodeError::Reserved { name });
        }
        if self.types.contains_key(&name) {
            return Err(RegisterNodeError::Duplicate { name });
        }
        Arc::make_mut(&mut self.types).insert(name, Arc::new(node));
        Ok(self)
    }

    /// The node type called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn CustomNode>> {
        self.types.get(name)
    }

    /// The names of all types, in the order of registration.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.types.keys()
    }
}

impl fmt::Debug for NodeTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A node type that can't be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterNodeError {
    /// The name is empty, or has spaces only.
    #[error("a node type needs a name")]
    Blank,
    /// The name is not for applications.
    #[error("node type '{name}' can't be registered: built-in names and names that begin with '__' are reserved")]
    Reserved {
        /// The type's name.
        name: Arc<str>,
    },
    /// There is such a type.
    #[error("node type '{name}' is registered twice")]
    Duplicate {
        /// The type's name.
        name: Arc<str>,
    },
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::nodes::UnknownTool;

    async fn nothing(_: NodeInput) -> Result<NodeOutput, NodeError> {
        Ok(NodeOutput::new())
    }

    #[test]
    fn names_are_checked() {
        let mut types = NodeTypes::new();
        types
            .register("_wait", nothing)
            .unwrap()
            .register("poll", nothing)
            .unwrap();
        let mut refused = |name: &str| types.register(name, nothing).unwrap_err();
        assert_eq!(refused(" "), RegisterNodeError::Blank);
        assert_eq!(refused("poll"), RegisterNodeError::Duplicate { name: "poll".into() });
        for name in ["router", "tool", "llm", "agent", "child", "__x"] {
            assert_eq!(refused(name), RegisterNodeError::Reserved { name: name.into() });
        }
        assert_eq!(types.names().map(AsRef::as_ref).collect::<Vec<_>>(), ["_wait", "poll"]);
    }

    #[tokio::test]
    async fn closures_are_nodes_and_any_error_is_a_failure() {
        let mut types = NodeTypes::new();
        let parse = |input: NodeInput| async move {
            let number: i64 = input.render("x")?.parse()?;
            Ok(NodeOutput::new().write("number", number))
        };
        types.register("parse", parse).unwrap();
        let error = types
            .get("parse")
            .unwrap()
            .run(NodeInput::for_tests().build())
            .await
            .unwrap_err();
        assert!(error.is::<std::num::ParseIntError>());
        assert!(types.get("other").is_none());
    }

    #[tokio::test]
    async fn a_tools_failure_keeps_its_type_when_it_becomes_the_nodes() {
        let node = |input: NodeInput| async move {
            input.call_tool("nobody", json!({})).await?;
            Ok(NodeOutput::new())
        };
        let error = node.run(NodeInput::for_tests().build()).await.unwrap_err();
        assert!(error.is::<UnknownTool>(), "{error:?}");
    }
}
