//! The tools of an engine.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::{InvalidSchema, Tool, ToolContext, ToolDefinition, ToolError, ToolSpec, ToolSpecs, ToolTimeout};

/// What the names of built-in tools begin with.
const RESERVED_PREFIX: &str = "soe_";

/// The most characters that a tool's name may have.
const MAX_NAME: usize = 256;

/// The tools that an application registers, by name. Cheap to clone; a clone doesn't see later registrations.
///
/// ```
/// use soe_core::tools::{NoArguments, ToolRegistry, tool_fn};
///
/// let tools = ToolRegistry::from_tools([
///     tool_fn("ping", "Says pong.", |_: NoArguments, _| async { Ok("pong") }),
///     tool_fn("answer", "Knows the answer.", |_: NoArguments, _| async { Ok(42) }),
/// ])
/// .unwrap();
/// assert!(tools.get("ping").is_some());
/// ```
#[derive(Clone, Default)]
pub struct ToolRegistry {
    tools: Arc<IndexMap<Arc<str>, RegisteredTool>>,
}

/// A tool in a [`ToolRegistry`].
#[derive(Clone)]
pub struct RegisteredTool {
    spec: Arc<ToolSpec>,
    tool: Arc<dyn Tool>,
}

impl ToolRegistry {
    /// A registry without tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// A registry of `tools`.
    ///
    /// # Errors
    /// As [`ToolRegistry::register`].
    pub fn from_tools(tools: impl IntoIterator<Item = ToolDefinition>) -> Result<Self, RegisterToolError> {
        let mut registry = Self::new();
        for tool in tools {
            registry.register(tool)?;
        }
        Ok(registry)
    }

    /// Adds a tool.
    ///
    /// Any text can be a name, yet LLM endpoints commonly take at most 64 letters, digits, `_` and `-`: another name
    /// leaves a warning.
    ///
    /// # Errors
    /// The name is empty, too long, reserved or taken, or the arguments' schema is not usable. The registry is as before.
    pub fn register(&mut self, tool: ToolDefinition) -> Result<&mut Self, RegisterToolError> {
        self.check_name(tool.name())?;
        let (spec, tool) = tool.build()?;
        let spec = Arc::new(spec);
        if !is_portable(&spec.name) {
            tracing::warn!(tool = %spec.name, "LLM endpoints may refuse this tool's name: they take [a-zA-Z0-9_-]{{1,64}}");
        }
        Arc::make_mut(&mut self.tools).insert(spec.name.clone(), RegisteredTool { spec, tool });
        Ok(self)
    }

    /// The tool called `name`.
    pub fn get(&self, name: &str) -> Option<&RegisteredTool> {
        self.tools.get(name)
    }

    /// What there is to know about the tools without calling them.
    pub fn specs(&self) -> ToolSpecs {
        self.tools.values().map(|tool| tool.spec.clone()).collect()
    }

    fn check_name(&self, name: &Arc<str>) -> Result<(), RegisterToolError> {
        if name.trim().is_empty() || name.chars().count() > MAX_NAME || name.contains(char::is_control) {
            let name = name.chars().take(MAX_NAME).collect();
            Err(RegisterToolError::Name { name })
        } else if name.starts_with(RESERVED_PREFIX) {
            Err(RegisterToolError::Reserved { name: name.clone() })
        } else if self.tools.contains_key(name) {
            Err(RegisterToolError::Duplicate { name: name.clone() })
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for ToolRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tools.keys()).finish()
    }
}

impl RegisteredTool {
    /// What there is to know about it without calling it.
    pub fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    /// Makes one attempt, within the tool's timeout. Arguments are not checked, retries and limits are up to the caller.
    ///
    /// The tool sees a cancellation of its own, under that of `context`: it is cancelled when the time is up, and when the
    /// future is dropped.
    ///
    /// # Errors
    /// What the tool returns, or [`ToolTimeout`].
    ///
    /// # Panics
    /// If the tool has a timeout and this is not called within a Tokio runtime that has a clock.
    pub async fn call(&self, arguments: Value, context: ToolContext) -> Result<Value, ToolError> {
        let abandoned = context.abandon_on_drop();
        let call = self.tool.call(arguments, context);
        let result = match self.spec.timeout {
            None => call.await,
            // Boxed, so that the calls without a timeout don't carry a timer's space.
            Some(limit) => match Box::pin(tokio::time::timeout(limit, call)).await {
                Ok(result) => result,
                Err(_) => return Err(ToolTimeout { limit }.into()),
            },
        };
        abandoned.disarm();
        result
    }
}

impl RegisteredTool {
    /// As [`RegisteredTool::call`], with the tool's retries.
    pub(crate) async fn call_with_retries(&self, arguments: Value, call: ToolContext) -> Result<Value, ToolError> {
        let mut attempt = 1;
        loop {
            let result = self.call(arguments.clone(), call.for_attempt(attempt)).await;
            match result {
                Err(error) if error.is_retryable() && attempt <= self.spec.max_retries => attempt += 1,
                result => return result,
            }
        }
    }
}

impl fmt::Debug for RegisteredTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredTool")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// A tool that can't be registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterToolError {
    /// The text can't be a name.
    #[error("{name:?} can't be a tool's name: it is empty, has more than 256 characters, or has control characters")]
    Name {
        /// The text, clipped.
        name: String,
    },
    /// Names like this belong to built-in tools.
    #[error("tool '{name}' can't be registered: names that begin with 'soe_' belong to built-in tools")]
    Reserved {
        /// The tool's name.
        name: Arc<str>,
    },
    /// There is such a tool.
    #[error("tool '{name}' is registered twice")]
    Duplicate {
        /// The tool's name.
        name: Arc<str>,
    },
    /// The arguments can't be checked.
    #[error(transparent)]
    Schema(#[from] InvalidSchema),
}

fn is_portable(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::tools::{CancellationToken, raw_tool};

    fn tool(name: &str) -> ToolDefinition {
        raw_tool(name, "", |arguments: Value, _: ToolContext| async { Ok(arguments) })
    }

    fn refused(names: &[&str]) -> RegisterToolError {
        ToolRegistry::from_tools(names.iter().map(|name| tool(name))).unwrap_err()
    }

    #[test]
    fn names_are_checked() {
        assert!(matches!(refused(&["a", "a"]), RegisterToolError::Duplicate { .. }));
        assert!(matches!(
            refused(&["soe_inject_node"]),
            RegisterToolError::Reserved { .. }
        ));
        assert!(matches!(refused(&[""]), RegisterToolError::Name { .. }));
        assert!(matches!(refused(&["a\nb"]), RegisterToolError::Name { .. }));
        assert!(matches!(refused(&[&"x".repeat(257)]), RegisterToolError::Name { .. }));
        assert!(ToolRegistry::from_tools(["soe", "send mail", "größe", "a.b/c"].map(tool)).is_ok());
    }

    #[test]
    fn portable_names_are_told_from_others() {
        assert!(is_portable("send_mail-2") && is_portable(&"x".repeat(64)));
        assert!(!is_portable("send mail") && !is_portable("größe") && !is_portable(&"x".repeat(65)));
    }

    #[test]
    fn a_bad_schema_is_found_at_registration() {
        let mut registry = ToolRegistry::from_tools([tool("a")]).unwrap();
        let error = registry
            .register(tool("b").schema(json!({"type": "strin"})))
            .unwrap_err();
        assert!(matches!(error, RegisterToolError::Schema(_)));
        assert_eq!(registry.specs().len(), 1);
    }

    #[test]
    fn a_clone_does_not_see_later_registrations() {
        let mut registry = ToolRegistry::from_tools([tool("a")]).unwrap();
        let before = registry.clone();
        registry.register(tool("b")).unwrap().register(tool("c")).unwrap();
        assert_eq!((before.specs().len(), registry.specs().len()), (1, 3));
        assert!(before.get("b").is_none() && registry.get("b").is_some());
    }

    /// A tool that never answers, in a registry, and the place where it leaves its cancellation.
    fn stuck(limit: Option<Duration>) -> (RegisteredTool, Arc<OnceLock<CancellationToken>>) {
        let seen = Arc::new(OnceLock::new());
        let seen_by_tool = seen.clone();
        let tool = raw_tool("stuck", "", move |_: Value, context: ToolContext| {
            seen_by_tool.get_or_init(|| context.cancellation().clone());
            std::future::pending::<Result<(), _>>()
        });
        let tool = limit.into_iter().fold(tool, ToolDefinition::timeout);
        let registry = ToolRegistry::from_tools([tool]).unwrap();
        (registry.get("stuck").unwrap().clone(), seen)
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_ends_when_its_time_is_up() {
        let limit = Duration::from_secs(5);
        let (tool, seen) = stuck(Some(limit));
        let context = ToolContext::for_tests().build();
        let error = tool.call(json!({}), context.clone()).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&ToolTimeout { limit }));
        assert!(error.is_retryable());
        assert!(seen.get().unwrap().is_cancelled());
        assert!(
            !context.for_attempt(2).cancellation().is_cancelled(),
            "the next attempt has a token of its own"
        );
    }

    #[tokio::test]
    async fn a_dropped_call_is_cancelled() {
        let (tool, seen) = stuck(None);
        let mut call = Box::pin(tool.call(json!({}), ToolContext::for_tests().build()));
        assert!(futures::poll!(call.as_mut()).is_pending());
        assert!(!seen.get().unwrap().is_cancelled());
        drop(call);
        assert!(seen.get().unwrap().is_cancelled());
    }

    #[tokio::test]
    async fn what_a_finished_call_has_started_may_go_on() {
        let seen = Arc::new(OnceLock::new());
        let seen_by_tool = seen.clone();
        let tool = raw_tool("t", "", move |_: Value, context: ToolContext| {
            seen_by_tool.get_or_init(|| context.cancellation().clone());
            async { Ok(()) }
        });
        let registry = ToolRegistry::from_tools([tool]).unwrap();
        let tool = registry.get("t").unwrap();
        tool.call(json!({}), ToolContext::for_tests().build()).await.unwrap();
        assert!(!seen.get().unwrap().is_cancelled());
    }
}
