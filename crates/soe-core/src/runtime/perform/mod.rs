//! Effects that await something: each is a task of its own, and answers over the coordinator's mailbox.

mod builtin;
mod llm;
mod permits;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use soe_backends::{ExecutionId, RunId, Told};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::budget::Budget;
use super::claim::Claim;
use super::family::Queue;
use super::shared::{Cause, Message, Shared};
use super::signals::EngineSignals;
use crate::machine::{Descend, Heard, Machine, NodeRun, Outcome, ToolCall, ToolFailure};
use crate::nodes::NodeInput;
use crate::nodes::input::ToolCaller;
use crate::tools::builtin::is_builtin;
use crate::tools::context::{CallInfo, RunScope};
use crate::tools::{ToolContext, ToolError};
use llm::EngineLlms;

/// What goes down, and to which children.
type Descent = (Descend, Vec<(ExecutionId, Heard)>);

/// What the tasks of one execution have in common.
pub(super) struct Performer {
    pub(super) shared: Arc<Shared>,
    pub(super) execution: ExecutionId,
    /// The root of its tree.
    pub(super) main: ExecutionId,
    pub(super) budget: Arc<Budget>,
    /// Messages to the parent, one after the other.
    pub(super) relay: Arc<Queue<Arc<Told>>>,
    /// What goes down to the children, in its order.
    pub(super) descents: Arc<Queue<Descent>>,
    /// Held while coordinators of children are started.
    pub(super) spawning: Arc<Mutex<()>>,
    pub(super) mailbox: mpsc::Sender<Box<Message>>,
    /// Its token is cancelled when nobody wants the outcomes any more.
    pub(super) run: Arc<RunScope>,
}

impl Performer {
    pub(super) fn new(claim: &Claim, machine: &Machine) -> Self {
        let (state, shared) = (machine.state(), &claim.shared);
        let main = state.main_execution_id().clone();
        let mailbox = claim.active.mailbox.clone();
        Self {
            shared: shared.clone(),
            execution: claim.execution.clone(),
            main: main.clone(),
            budget: shared.budget(&main, state.context.operational.tree),
            relay: Arc::default(),
            descents: Arc::default(),
            spawning: Arc::default(),
            mailbox: mailbox.clone(),
            run: Arc::new(RunScope {
                cancellation: CancellationToken::new(),
                signals: Arc::new(EngineSignals::new(shared.clone(), main, mailbox)),
            }),
        }
    }

    /// For an execution that goes on after its runs were aborted. What is on its way to its parent and its children stays
    /// before what comes now: a suspension that came after the resumption would never end.
    pub(super) fn resumed(&self, claim: &Claim, machine: &Machine) -> Self {
        Self {
            relay: self.relay.clone(),
            descents: self.descents.clone(),
            spawning: self.spawning.clone(),
            ..Self::new(claim, machine)
        }
    }

    /// Calls a tool in a task of its own.
    pub(super) fn call_tool(self: &Arc<Self>, call: ToolCall) {
        let this = self.clone();
        let span = self.span(call.run, &call.node.name, &call.node.type_name);
        let task = async move {
            let (run, attempt, index) = (call.run, call.attempt, call.index);
            let span = tracing::info_span!("tool_call", tool = %call.tool, attempt);
            let name = call.tool.clone();
            let (result, cause) = contained(this.tool_result(call).instrument(span))
                .await
                .unwrap_or_else(|panic| {
                    let failure = ToolFailure {
                        message: format!("tool '{name}' panicked: {panic}").into(),
                        retryable: true,
                    };
                    (Err(failure), None)
                });
            let outcome = match index {
                None => Outcome::Tool(result),
                Some(index) => Outcome::AgentTool { index, result },
            };
            this.answer(run, attempt, outcome, cause).await;
        };
        self.spawn(task, span);
    }

    /// Runs a custom node in a task of its own.
    pub(super) fn run_node(self: &Arc<Self>, run: NodeRun) {
        let this = self.clone();
        let span = self.span(run.run, &run.node.name, &run.node_type);
        let task = async move {
            let number = run.run;
            let (result, cause) = contained(this.node_result(run)).await.unwrap_or_else(|panic| {
                let message = format!("it panicked: {panic}");
                (Err(message.into()), None)
            });
            this.answer(number, 1, Outcome::Node(result), cause).await;
        };
        self.spawn(task, span);
    }

    pub(super) fn span(&self, run: u64, node: &str, node_type: &str) -> tracing::Span {
        tracing::info_span!("node_run", execution = %self.execution, node, node_type, run)
    }

    pub(super) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static, span: tracing::Span) {
        let this = self.clone();
        // Boxed, because Tokio moves what it is given several times.
        let task = Box::pin(task);
        let task = async move {
            if this.run.cancellation.is_cancelled() {
                return;
            }
            let cancelled = std::pin::pin!(this.run.cancellation.cancelled());
            // Polls the task first: one that is done at once never registers with the token.
            if let Either::Right(_) = select(task, cancelled).await {
                tracing::debug!("aborted");
            }
        };
        // A span that nobody listens to would still be entered at every poll.
        if span.is_disabled() {
            self.shared.tasks.spawn(task);
        } else {
            self.shared.tasks.spawn(task.instrument(span));
        }
    }

    pub(super) async fn answer(&self, run: u64, attempt: u32, outcome: Outcome, cause: Option<Cause>) {
        // A closed mailbox means that the coordinator has ended: the outcome isn't wanted any more.
        let _ = self
            .mailbox
            .send(Box::new(Message::Completed {
                run,
                attempt,
                outcome,
                cause,
            }))
            .await;
    }

    async fn tool_result(&self, call: ToolCall) -> (Result<soe_backends::Value, ToolFailure>, Option<Cause>) {
        if is_builtin(&call.tool) {
            return (self.builtin_result(call).await, None);
        }
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
        let limits = [
            self.shared.permits.tools.get(&call.tool),
            self.shared.permits.tasks.as_ref(),
        ];
        let _permits = match self.permits(limits) {
            None => Vec::new(),
            Some(permits) => permits.await,
        };
        let context = self.context(call.run, call.attempt, &call.node.name, &call.node.config);
        let result = match call.index {
            None => tool.call(call.arguments, context).await,
            Some(index) => {
                let context = context.for_call(index).for_attempt(call.attempt);
                tool.call(call.arguments, context).await
            }
        };
        match result {
            Ok(value) => (Ok(value.into()), None),
            Err(error) => {
                let failure = ToolFailure {
                    message: error.to_string().into(),
                    retryable: error.is_retryable(),
                };
                (Err(failure), Some(error.into_error()))
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
        let _permits = match self.permits([self.shared.permits.tasks.as_ref(), None]) {
            None => Vec::new(),
            Some(permits) => permits.await,
        };
        let context = self.context(run.run, 1, &run.node.name, &run.node.config);
        let llms = EngineLlms {
            shared: self.shared.clone(),
            mailbox: self.mailbox.clone(),
            budget: self.budget.clone(),
        };
        let tools = Arc::new(EngineTools(self.shared.clone()));
        let input = NodeInput::new(run.context, context, tools, Arc::new(llms));
        match node.run(input).await {
            Ok(output) => (Ok(output), None),
            Err(error) => (Err(error.to_string().into()), Some(error.into_error())),
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

    /// The right to make a call, to be waited for; `None` where nothing limits it. Boxed, so that unlimited calls don't carry
    /// the space of waiting.
    fn permits(&self, limits: [Option<&Arc<Semaphore>>; 2]) -> Option<BoxFuture<'static, Vec<OwnedSemaphorePermit>>> {
        if limits.iter().all(Option::is_none) {
            return None;
        }
        Some(Box::pin(permits::all(limits.into_iter().flatten().cloned().collect())))
    }
}

async fn permit(semaphore: Option<&Arc<Semaphore>>) -> Option<OwnedSemaphorePermit> {
    // The engine's semaphores are never closed.
    semaphore?.clone().acquire_owned().await.ok()
}

/// Runs the application's code; a panic in it is an error with its message.
async fn contained<T>(part: impl Future<Output = T>) -> Result<T, String> {
    let result = AssertUnwindSafe(part).catch_unwind().await;
    result.map_err(|panic| panic_message(&*panic).to_owned())
}

pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
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
        let span = tracing::info_span!("tool_call", tool = name);
        self.0.tools.call_tool(name, arguments, call).instrument(span).await
    }
}
