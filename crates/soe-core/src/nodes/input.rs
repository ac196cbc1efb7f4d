//! What a custom node gets.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use soe_backends::{Context, ExecutionId, Map, RunId, Value};
use tokio_util::sync::CancellationToken;

use crate::llm::{LlmError, LlmErrorKind, LlmReply, LlmRequest, Llms};
use crate::template::{Scope, Template, TemplateError};
use crate::tools::{TestContext, ToolContext, ToolError, ToolRegistry};

/// What a custom node's run knows and may use: the context as of the event that triggered it, its configuration, tools.
/// Cheap to clone.
#[derive(Clone)]
pub struct NodeInput {
    context: Arc<Context>,
    run: ToolContext,
    tools: Arc<dyn ToolCaller>,
    llms: Arc<dyn LlmAsker>,
    next_call: Arc<AtomicU32>,
    next_request: Arc<AtomicU32>,
}

/// Calls tools on behalf of a run. The engine's own counts the calls and keeps to limits and policy.
#[async_trait]
pub(crate) trait ToolCaller: Send + Sync {
    /// Checks the arguments and calls the tool; `call` names the run and the call's index, its attempt is the first.
    async fn call_tool(
        &self,
        name: &str,
        arguments: serde_json::Value,
        call: ToolContext,
    ) -> Result<serde_json::Value, ToolError>;
}

/// Asks LLMs on behalf of a run. The engine's own counts the requests and keeps to limits.
#[async_trait]
pub(crate) trait LlmAsker: Send + Sync {
    /// Asks the LLM of that name, or the default; `call` is the request's number in the run, from 1.
    async fn ask(&self, name: Option<&str>, request: LlmRequest, run: &RunId, call: u32) -> Result<LlmReply, LlmError>;
}

impl NodeInput {
    /// The input of `run`, whose context has no call index, on the snapshot `context`.
    pub(crate) fn new(
        context: Arc<Context>,
        run: ToolContext,
        tools: Arc<dyn ToolCaller>,
        llms: Arc<dyn LlmAsker>,
    ) -> Self {
        Self {
            context,
            run,
            tools,
            llms,
            next_call: Arc::default(),
            next_request: Arc::default(),
        }
    }

    /// An input for testing a node on its own; see [`TestInput`].
    pub fn for_tests() -> TestInput {
        TestInput::default()
    }

    /// The context as of the event that triggered the run. What other nodes write meanwhile is not in it.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The current value of a context field; `None` if it was never written.
    pub fn value(&self, field: &str) -> Option<&Value> {
        self.context.value(field)
    }

    /// Renders a template against the context.
    ///
    /// # Errors
    /// The template doesn't compile or can't be evaluated.
    pub fn render(&self, template: &str) -> Result<String, TemplateError> {
        Template::compile(template)?.render(&Scope::shared(self.context.clone()))
    }

    /// Evaluates a template against the context: exactly one `{{ expression }}` keeps the expression's type.
    ///
    /// # Errors
    /// The template doesn't compile or can't be evaluated.
    pub fn evaluate(&self, template: &str) -> Result<Value, TemplateError> {
        Template::compile(template)?.evaluate(&Scope::shared(self.context.clone()))
    }

    /// The node's name.
    pub fn node_name(&self) -> &str {
        self.run.node_name()
    }

    /// The node's whole configuration, fields that the engine doesn't know included.
    pub fn config(&self) -> &Arc<Map> {
        self.run.shared_node_config()
    }

    /// The execution.
    pub fn execution_id(&self) -> &ExecutionId {
        self.run.execution_id()
    }

    /// The run. It is the same in every attempt, and after a crash.
    pub fn run_id(&self) -> &RunId {
        self.run.run_id()
    }

    /// What identifies the run to the outside, see [`ToolContext::idempotency_key`].
    pub fn idempotency_key(&self) -> String {
        self.run.idempotency_key()
    }

    /// Which attempt this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.run.attempt()
    }

    /// Is cancelled when nobody waits for the run any more, see [`ToolContext::cancellation`].
    pub fn cancellation(&self) -> &CancellationToken {
        self.run.cancellation()
    }

    /// Calls a registered tool, with its retries and timeout.
    ///
    /// The calls of a run are numbered in the order in which this is called, and the number is part of the tool's
    /// idempotency key: a node that repeats its calls in the same order repeats the keys.
    ///
    /// # Errors
    /// There is no such tool, it doesn't take the arguments (in both cases [`ToolError::is_retryable`] is false), or it
    /// fails.
    pub async fn call_tool(
        &self,
        name: &str,
        arguments: impl Into<serde_json::Value>,
    ) -> Result<serde_json::Value, ToolError> {
        let index = self.next_call.fetch_add(1, Ordering::Relaxed);
        let call = self.run.for_call(index);
        self.tools.call_tool(name, arguments.into(), call).await
    }
}

impl NodeInput {
    /// Asks an LLM: the one that the node's field `llm` names, or the engine's default. A text is a request by itself.
    ///
    /// The request counts in `__operational__.llm_calls` and against the limits of the execution's tree, as those of llm
    /// nodes do. What the reply means is up to the node.
    ///
    /// # Errors
    /// There is no such LLM, a limit is used up, or the LLM gives no reply.
    pub async fn call_llm(&self, request: impl Into<LlmRequest>) -> Result<LlmReply, LlmError> {
        let call = self.next_request.fetch_add(1, Ordering::Relaxed) + 1;
        let name = self.config().get("llm").and_then(Value::as_str);
        let mut request = request.into();
        request.node = self.run.node_name().into();
        if request.config.is_empty() {
            request.config = self.config().clone();
        }
        self.llms.ask(name, request, self.run_id(), call).await
    }
}

impl fmt::Debug for NodeInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeInput")
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// A call of a tool that isn't registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no tool '{name}'")]
pub struct UnknownTool {
    /// The name that was called.
    pub name: String,
}

#[async_trait]
impl ToolCaller for ToolRegistry {
    async fn call_tool(
        &self,
        name: &str,
        arguments: serde_json::Value,
        call: ToolContext,
    ) -> Result<serde_json::Value, ToolError> {
        let Some(tool) = self.get(name) else {
            return Err(ToolError::from(UnknownTool { name: name.to_owned() }).no_retry());
        };
        let checked = tool.spec().check_json(&arguments);
        checked.map_err(|error| ToolError::from(error).no_retry())?;
        tool.call_with_retries(arguments, call).await
    }
}

#[async_trait]
impl LlmAsker for Llms {
    async fn ask(
        &self,
        name: Option<&str>,
        mut request: LlmRequest,
        run: &RunId,
        call: u32,
    ) -> Result<LlmReply, LlmError> {
        let Some(llm) = self.get(name) else {
            return Err(LlmError::new("there is no such LLM").of_kind(LlmErrorKind::Refused));
        };
        request.key = format!("{run}/{call}");
        llm.caller().call(request).await
    }
}

/// Builds a [`NodeInput`] for testing a custom node without an engine.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use soe_core::nodes::{CustomNode, NodeError, NodeInput, NodeOutput};
///
/// async fn shout(input: NodeInput) -> Result<NodeOutput, NodeError> {
///     let text = input.value("text").and_then(|text| text.as_str()).unwrap_or_default();
///     Ok(NodeOutput::new().write("shouted", text.to_uppercase()))
/// }
///
/// let input = NodeInput::for_tests().field("text", "hello").build();
/// let output = shout.run(input).await.unwrap();
/// assert_eq!(output, NodeOutput::new().write("shouted", "HELLO"));
/// # }
/// ```
#[derive(Clone, Default)]
pub struct TestInput {
    context: Context,
    run: TestContext,
    tools: ToolRegistry,
    llms: Llms,
}

impl TestInput {
    /// Appends `value` to the history of `field`.
    #[must_use]
    pub fn field(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.context.append(&field.into(), value.into());
        self
    }

    /// The run, attempt, node and cancellation of the input.
    #[must_use]
    pub fn run(mut self, run: TestContext) -> Self {
        self.run = run;
        self
    }

    /// The tools that the node may call.
    #[must_use]
    pub fn tools(mut self, tools: ToolRegistry) -> Self {
        self.tools = tools;
        self
    }

    /// The LLMs that the node may ask.
    #[must_use]
    pub fn llms(mut self, llms: Llms) -> Self {
        self.llms = llms;
        self
    }

    /// The input.
    pub fn build(&self) -> NodeInput {
        NodeInput::new(
            Arc::new(self.context.clone()),
            self.run.build(),
            Arc::new(self.tools.clone()),
            Arc::new(self.llms.clone()),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::{ArgumentsError, NoArguments, raw_tool, tool_fn};

    fn keys() -> ToolRegistry {
        let key = tool_fn("key", "", |_: NoArguments, context| async move {
            match context.attempt() {
                1 => Err(ToolError::new("not yet")),
                _ => Ok(context.idempotency_key()),
            }
        });
        let never = |_: serde_json::Value, context: ToolContext| async move {
            Err::<(), _>(ToolError::new(format!("attempt {}", context.attempt())).no_retry())
        };
        ToolRegistry::from_tools([key.retries(1), raw_tool("never", "", never).retries(5)]).unwrap()
    }

    #[tokio::test]
    async fn tool_calls_are_numbered_within_the_run_and_retried() {
        let input = NodeInput::for_tests().tools(keys()).build();
        assert_eq!(input.call_tool("key", json!({})).await.unwrap(), "test:1.0");
        assert_eq!(input.clone().call_tool("key", json!({})).await.unwrap(), "test:1.1");
        let error = input.call_tool("never", json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), "attempt 1");
    }

    #[tokio::test]
    async fn bad_calls_are_typed_errors() {
        let input = NodeInput::for_tests().tools(keys()).build();
        let error = input.call_tool("nobody", json!({})).await.unwrap_err();
        assert_eq!(error.downcast_ref::<UnknownTool>().unwrap().name, "nobody");
        let error = input.call_tool("key", json!({"x": 1})).await.unwrap_err();
        assert!(error.is::<ArgumentsError>() && !error.is_retryable());
    }

    #[test]
    fn the_input_shows_snapshot_run_and_node() {
        let run = ToolContext::for_tests().run("e", 3).attempt(2);
        let run = run.node("n", [("depth".into(), 5.into())]);
        let input = NodeInput::for_tests().field("x", 1).field("x", 2).run(run).build();
        assert_eq!(input.value("x").and_then(Value::as_i64), Some(2));
        assert_eq!(input.context().history("x").unwrap().len(), 2);
        assert_eq!((input.node_name(), input.attempt()), ("n", 2));
        assert_eq!(input.idempotency_key(), "e:3");
        assert_eq!(input.config()["depth"].as_i64(), Some(5));
        assert_eq!(input.render("plain").unwrap(), "plain");
    }
}
