//! Effects that await something: each is a task of its own, and answers over the coordinator's mailbox.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{Either, select};
use soe_backends::{ExecutionId, RunId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::Instrument;

use super::shared::{Cause, Message, Shared};
use crate::machine::{NodeRun, Outcome, ToolCall, ToolFailure};
use crate::nodes::NodeInput;
use crate::nodes::input::ToolCaller;
use crate::tools::context::{CallInfo, RunScope};
use crate::tools::{ToolContext, ToolError};

/// What the tasks of one execution have in common.
pub(super) struct Performer {
    pub(super) shared: Arc<Shared>,
    pub(super) execution: ExecutionId,
    pub(super) mailbox: mpsc::Sender<Message>,
    /// Its token is cancelled when nobody wants the outcomes any more.
    pub(super) run: Arc<RunScope>,
}

impl Performer {
    /// Calls a tool in a task of its own.
    pub(super) fn call_tool(self: &Arc<Self>, call: ToolCall) {
        let this = self.clone();
        let span = tracing::info_span!(
            "node_run", execution = %self.execution, node = %call.node.name, node_type = "tool", run = call.run,
            tool = %call.tool, attempt = call.attempt,
        );
        let task = async move {
            let (run, attempt) = (call.run, call.attempt);
            let (result, cause) = this.tool_result(call).await;
            this.answer(run, attempt, Outcome::Tool(result), cause).await;
        };
        self.spawn(task, span);
    }

    /// Runs a custom node in a task of its own.
    pub(super) fn run_node(self: &Arc<Self>, run: NodeRun) {
        let this = self.clone();
        let span = tracing::info_span!(
            "node_run", execution = %self.execution, node = %run.node.name, node_type = %run.node_type, run = run.run,
        );
        let task = async move {
            let number = run.run;
            let (result, cause) = this.node_result(run).await;
            this.answer(number, 1, Outcome::Node(result), cause).await;
        };
        self.spawn(task, span);
    }

    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static, span: tracing::Span) {
        let this = self.clone();
        let task = async move {
            let cancelled = std::pin::pin!(this.run.cancellation.cancelled());
            // Polls the task first: one that is done at once never registers with the token.
            if let Either::Right(_) = select(std::pin::pin!(task), cancelled).await {
                tracing::debug!("aborted");
            }
        };
        // A span that nobody listens to would still be entered at every poll.
        if span.is_disabled() {
            tokio::spawn(task);
        } else {
            tokio::spawn(task.instrument(span));
        }
    }

    async fn answer(&self, run: u64, attempt: u32, outcome: Outcome, cause: Option<Cause>) {
        // A closed mailbox means that the coordinator has ended: the outcome isn't wanted any more.
        let _ = self
            .mailbox
            .send(Message::Completed {
                run,
                attempt,
                outcome,
                cause,
            })
            .await;
    }

    async fn tool_result(&self, call: ToolCall) -> (Result<soe_backends::Value, ToolFailure>, Option<Cause>) {
        let Some(tool) = self.shared.tools.get(&call.tool) else {
            let message = format!("tool '{}' is not registered with this engine", call.tool).into();
            return (
                Err(ToolFailure {
                    message,
                    retryable: false,
                }),
                None,
            );
        };
        let _permits = self.permits(self.shared.permits.tools.get(&call.tool)).await;
        let context = self.context(call.run, call.attempt, &call.node.name, &call.node.config);
        match AssertUnwindSafe(tool.call(call.arguments, context))
            .catch_unwind()
            .await
        {
            Ok(Ok(value)) => (Ok(value.into()), None),
            Ok(Err(error)) => {
                let failure = ToolFailure {
                    message: error.to_string().into(),
                    retryable: error.is_retryable(),
                };
                (Err(failure), Some(error.into_error()))
            }
            Err(panic) => {
                let message = format!("tool '{}' panicked: {}", call.tool, panic_message(&*panic));
                (
                    Err(ToolFailure {
                        message: message.into(),
                        retryable: true,
                    }),
                    None,
                )
            }
        }
    }

    async fn node_result(&self, run: NodeRun) -> (Result<crate::nodes::NodeOutput, Arc<str>>, Option<Cause>) {
        let Some(node) = self.shared.nodes.get(&run.node_type) else {
            return (
                Err(format!("node type '{}' is not registered with this engine", run.node_type).into()),
                None,
            );
        };
        let _permits = self.permits(None).await;
        let context = self.context(run.run, 1, &run.node.name, &run.node.config);
        let input = NodeInput::new(run.context, context, Arc::new(EngineTools(self.shared.clone())));
        match AssertUnwindSafe(node.run(input)).catch_unwind().await {
            Ok(Ok(output)) => (Ok(output), None),
            Ok(Err(error)) => (Err(error.to_string().into()), Some(error.into_error())),
            Err(panic) => (Err(format!("it panicked: {}", panic_message(&*panic)).into()), None),
        }
    }

    fn context(
        &self,
        run: u64,
        attempt: u32,
        node_name: &Arc<str>,
        node_config: &Arc<soe_backends::Map>,
    ) -> ToolContext {
        let call = CallInfo {
            run: RunId::new(self.execution.clone(), run),
            index: None,
            attempt,
            node_name: node_name.clone(),
            node_config: node_config.clone(),
        };
        ToolContext::new(call, self.run.clone())
    }

    /// Waits for the right to make a call: the narrower limit first, so that nobody holds the wider one while waiting.
    async fn permits(&self, tool: Option<&Arc<Semaphore>>) -> [Option<OwnedSemaphorePermit>; 2] {
        let own = permit(tool).await;
        [own, permit(self.shared.permits.tasks.as_ref()).await]
    }
}

async fn permit(semaphore: Option<&Arc<Semaphore>>) -> Option<OwnedSemaphorePermit> {
    // The engine's semaphores are never closed.
    semaphore?.clone().acquire_owned().await.ok()
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// The engine's tools, as custom nodes call them. The node's own permit covers the call; the tool's limit counts too.
struct EngineTools(Arc<Shared>);

#[async_trait]
impl ToolCaller for EngineTools {
    async fn call_tool(
        &self,
        name: &str,
        arguments: serde_json::Value,
        call: ToolContext,
    ) -> Result<serde_json::Value, ToolError> {
        let _permit = permit(self.0.permits.tools.get(name)).await;
        self.0.tools.call_tool(name, arguments, call).await
    }
}
