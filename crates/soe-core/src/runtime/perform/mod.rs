//! Effects that await something: each is a task of its own, and answers over the coordinator's mailbox.

mod builtin;
mod llm;
mod permits;

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use soe_backends::{ExecutionId, RunId, Timestamp, TreeState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::claim::Claim;
use super::shared::{Cause, Message, Shared};
use super::signals::EngineSignals;
use crate::machine::{NodeRun, Outcome, Target, ToolCall, ToolFailure};
use crate::nodes::NodeInput;
use crate::nodes::input::ToolCaller;
use crate::tools::builtin::is_builtin;
use crate::tools::context::{CallInfo, RunScope};
use crate::tools::{ToolContext, ToolError};
use llm::EngineLlms;

/// Scopes of executions in which nothing is in flight any more are forgotten when there are this many.
const SWEEP_AT: usize = 64;

/// What the tasks of one tree have in common.
pub(super) struct Performer {
    pub(super) shared: Arc<Shared>,
    /// The root.
    pub(super) tree: ExecutionId,
    pub(super) mailbox: mpsc::Sender<Box<Message>>,
    signals: Arc<EngineSignals>,
    /// What is in flight, by execution. The lock is held for a look-up, never across an await.
    scopes: Mutex<Scopes>,
}

struct Scopes {
    by_execution: HashMap<u64, Arc<RunScope>>,
    sweep_at: usize,
}

/// What one task performs, and for whom.
pub(super) struct Task {
    pub(super) performer: Arc<Performer>,
    pub(super) execution: Target,
    /// Its token is cancelled when nobody wants the outcome any more: it is a child of that of the parent execution.
    pub(super) scope: Arc<RunScope>,
}

impl Performer {
    pub(super) fn new(claim: &Claim) -> Self {
        let (shared, mailbox) = (claim.shared.clone(), claim.active.mailbox.clone());
        let signals = EngineSignals::new(shared.clone(), claim.tree.clone(), mailbox.clone());
        Self {
            shared,
            tree: claim.tree.clone(),
            mailbox,
            signals: Arc::new(signals),
            scopes: Mutex::new(Scopes {
                by_execution: HashMap::new(),
                sweep_at: SWEEP_AT,
            }),
        }
    }

    fn scopes(&self) -> MutexGuard<'_, Scopes> {
        // Nothing panics while it is held: entries are only inserted, read and removed.
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scope of an execution's runs, under those of the executions above it.
    fn scope(&self, tree: &TreeState, execution: u64) -> Arc<RunScope> {
        let mut scopes = self.scopes();
        let mut missing = Vec::new();
        let mut found = None;
        let mut next = Some(execution);
        while let Some(number) = next {
            if let Some(scope) = scopes.by_execution.get(&number) {
                found = Some(scope.clone());
                break;
            }
            missing.push(number);
            next = tree.get(number).and_then(|state| state.parent());
        }
        for number in missing.into_iter().rev() {
            let above = found.as_ref().map(|scope| scope.cancellation.child_token());
            let scope = Arc::new(RunScope {
                cancellation: above.unwrap_or_default(),
                signals: self.signals.clone(),
            });
            scopes.by_execution.insert(number, scope.clone());
            found = Some(scope);
        }
        found.unwrap_or_else(|| {
            Arc::new(RunScope {
                cancellation: CancellationToken::new(),
                signals: self.signals.clone(),
            })
        })
    }

    /// Stops what is in flight in an execution and below it.
    pub(super) fn abort(&self, tree: &TreeState, execution: u64) {
        let mut scopes = self.scopes();
        if let Some(scope) = scopes.by_execution.get(&execution) {
            scope.cancellation.cancel();
        }
        scopes
            .by_execution
            .retain(|number, _| !tree.is_within(*number, execution));
    }

    pub(super) fn abort_all(&self) {
        for (_, scope) in self.scopes().by_execution.drain() {
            scope.cancellation.cancel();
        }
    }

    /// Forgets the scopes of executions in which nothing is in flight.
    pub(super) fn forget(&self, tree: &TreeState) {
        let mut scopes = self.scopes();
        if scopes.by_execution.len() < scopes.sweep_at {
            return;
        }
        let is_active = |number: &u64| {
            let state = tree.get(*number);
            state.is_some_and(|state| !state.runs.is_empty() || state.active_children() > 0)
        };
        scopes.by_execution.retain(|number, _| is_active(number));
        scopes.sweep_at = SWEEP_AT.max(2 * scopes.by_execution.len());
    }

    fn task(self: &Arc<Self>, tree: &TreeState, execution: Target) -> Task {
        Task {
            performer: self.clone(),
            scope: self.scope(tree, execution.number),
            execution,
        }
    }

    /// Gives word when the next child of a run is due.
    pub(super) fn wait(self: &Arc<Self>, tree: &TreeState, execution: u64, run: u64, due: Timestamp) {
        let id = tree
            .get(execution)
            .map_or_else(|| self.tree.clone(), |state| state.id.clone());
        let task = self.task(tree, Target { number: execution, id });
        let mailbox = self.mailbox.clone();
        let left = due.since(self.shared.now());
        task.spawn(tracing::Span::none(), async move |_| {
            tokio::time::sleep(left).await;
            let _ = mailbox.send(Box::new(Message::Due { execution, run })).await;
        });
    }

    /// Calls a tool in a task of its own.
    pub(super) fn call_tool(self: &Arc<Self>, tree: &TreeState, call: ToolCall) {
        let task = self.task(tree, call.execution.clone());
        let span = task.span(call.run, &call.node.name, &call.node.type_name);
        match is_builtin(&call.tool) {
            // Boxed: tools of the application, which are many, don't carry the space of its look into the stores.
            true => task.spawn(span, async move |task| Box::pin(task.builtin(call)).await),
            false => task.spawn(span, async move |task| task.tool(call).await),
        }
    }

    /// Runs a custom node in a task of its own.
    pub(super) fn run_node(self: &Arc<Self>, tree: &TreeState, run: NodeRun) {
        let task = self.task(tree, run.execution.clone());
        let span = task.span(run.run, &run.node.name, &run.node_type);
        task.spawn(span, async move |task| {
            let number = run.run;
            let (result, cause) = contained(task.node_result(run)).await.unwrap_or_else(|panic| {
                let message = format!("it panicked: {panic}");
                (Err(message.into()), None)
            });
            task.answer(number, 1, Outcome::Node(result), cause).await;
        });
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

impl Task {
    pub(super) fn span(&self, run: u64, node: &str, node_type: &str) -> tracing::Span {
        tracing::info_span!("node_run", execution = %self.execution.id, node, node_type, run)
    }

    /// Runs its work as a Tokio task, until nobody wants the outcome any more.
    pub(super) fn spawn<F>(self, span: tracing::Span, work: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (shared, scope) = (self.performer.shared.clone(), self.scope.clone());
        // Boxed, because Tokio moves what it is given several times.
        let work = Box::pin(work(self));
        let task = async move {
            if scope.cancellation.is_cancelled() {
                return;
            }
            let cancelled = std::pin::pin!(scope.cancellation.cancelled());
            // Polls the work first: what is done at once never registers with the token.
            if let Either::Right(_) = select(work, cancelled).await {
                tracing::debug!("aborted");
            }
        };
        // A span that nobody listens to would still be entered at every poll.
        match span.is_disabled() {
            true => drop(shared.tasks.spawn(task)),
            false => drop(shared.tasks.spawn(task.instrument(span))),
        }
    }

    pub(super) async fn answer(&self, run: u64, attempt: u32, outcome: Outcome, cause: Option<Cause>) {
        let message = Message::Completed {
            execution: self.execution.number,
            run,
            attempt,
            outcome,
            cause,
        };
        // A closed mailbox means that the coordinator has ended: the outcome isn't wanted any more.
        let _ = self.performer.mailbox.send(Box::new(message)).await;
    }

    async fn builtin(self, call: ToolCall) {
        let (run, attempt, index) = (call.run, call.attempt, call.index);
        let span = tracing::info_span!("tool_call", tool = %call.tool, attempt);
        let name = call.tool.clone();
        let result = contained(self.builtin_result(call).instrument(span)).await;
        self.answer_tool(run, attempt, index, &name, result.map(|result| (result, None)))
            .await;
    }

    async fn tool(self, call: ToolCall) {
        let (run, attempt, index) = (call.run, call.attempt, call.index);
        let span = tracing::info_span!("tool_call", tool = %call.tool, attempt);
        let name = call.tool.clone();
        let result = contained(self.tool_result(call).instrument(span)).await;
        self.answer_tool(run, attempt, index, &name, result).await;
    }

    async fn answer_tool(
        &self,
        run: u64,
        attempt: u32,
        index: Option<u32>,
        name: &str,
        result: Result<(Result<soe_backends::Value, ToolFailure>, Option<Cause>), String>,
    ) {
        let (result, cause) = result.unwrap_or_else(|panic| {
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
        self.answer(run, attempt, outcome, cause).await;
    }

    async fn tool_result(&self, call: ToolCall) -> (Result<soe_backends::Value, ToolFailure>, Option<Cause>) {
        let Some(tool) = self.performer.shared.tools.get(&call.tool) else {
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
            self.performer.shared.permits.tools.get(&call.tool),
            self.performer.shared.permits.tasks.as_ref(),
        ];
        let _permits = match self.performer.permits(limits) {
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
        let Some(node) = self.performer.shared.nodes.get(&run.node_type) else {
            return (
                Err(format!("node type '{}' is not registered with this engine", run.node_type).into()),
                None,
            );
        };
        let _permits = match self
            .performer
            .permits([self.performer.shared.permits.tasks.as_ref(), None])
        {
            None => Vec::new(),
            Some(permits) => permits.await,
        };
        let context = self.context(run.run, 1, &run.node.name, &run.node.config);
        let llms = EngineLlms {
            shared: self.performer.shared.clone(),
            mailbox: self.performer.mailbox.clone(),
            execution: self.execution.number,
        };
        let tools = Arc::new(EngineTools(self.performer.shared.clone()));
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
            run: RunId::new(self.execution.id.clone(), run),
            index: None,
            attempt,
            node_name: node_name.clone(),
            node_config: node_config.clone(),
        };
        ToolContext::new(call, self.scope.clone())
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
