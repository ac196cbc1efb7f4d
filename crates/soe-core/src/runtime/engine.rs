//! The engine, as applications use it.

use std::sync::Arc;

use soe_backends::{
    Backends, Context, Event, ExecutionId, ExecutionState, ExecutionSummary, History, ListPage, ListQuery, TreeState,
};

use super::shared::{Finished, Shared};
use super::wait::{end_of, number_in};
use super::{
    ContextExport, EngineBuilder, EngineError, EngineErrorKind, EventStream, Execution, Orchestration, TokenStream,
};
use crate::machine::MachineError;

/// Runs workflows. Cheap to clone; all clones are the same engine. Dropping it cancels nothing.
///
/// It must be used within a Tokio runtime with time enabled; trees go on in the runtime in which they were started or
/// taken up. Its futures are `Send`, and may be dropped at any time: those that only read change nothing then, the others
/// say what it means.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use soe_core::config::Config;
/// use soe_core::runtime::{Engine, Orchestration};
///
/// let engine = Engine::builder().build()?;
/// let config = Config::from_yaml(
///     "hello: {Start: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: DONE}]}}",
/// )?;
/// let finished = engine.orchestrate(Orchestration::new(config, "hello").signal("START")).await?;
/// let context = engine.context(&finished.execution).await?;
/// assert!(context.operational.signals.contains("DONE"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

impl Engine {
    /// An engine with everything by default: in memory, without tools.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The stores that it works with.
    pub fn backends(&self) -> &Backends {
        &self.shared.backends
    }

    /// Starts an execution and waits until it rests.
    ///
    /// Cancel safety: dropping the future ends the waiting; an execution that has begun goes on. To know its id then, give
    /// it one ([`Orchestration::id`]), or use [`Engine::start`].
    ///
    /// # Errors
    /// As [`Engine::start`] and [`Engine::wait`]. The error of an execution that was started names it:
    /// [`EngineError::execution`].
    pub async fn orchestrate(&self, orchestration: Orchestration) -> Result<Finished, EngineError> {
        if orchestration.signals.is_empty() {
            return Err(crate::machine::MachineError::NoSignals.into());
        }
        let begun = self.begin(orchestration).await?;
        let (id, mut progress) = (begun.id.clone(), begun.progress.clone());
        // Waited for first: to be woken for the first commit, too, would cost as much as a short execution.
        let end = end_of(&mut progress).await;
        begun.stored().await?;
        match end {
            // Another process has taken it over: it is what that one makes of it.
            Some(Err(error)) if *error.kind() == EngineErrorKind::LostRace => self.wait(&id).await,
            Some(result) => result,
            None => self.wait(&id).await,
        }
    }

    /// Starts an execution; it goes on by itself. When this returns, its first commit is stored.
    ///
    /// Cancel safety: if the future is dropped, the execution was started or it was not, as a whole.
    ///
    /// # Errors
    /// It is refused (no signals, an unknown workflow, a tool or node type that this engine doesn't have, a limit), the store
    /// fails or has an execution of that id, or the engine is shut down. Nothing was started then.
    pub async fn start(&self, orchestration: Orchestration) -> Result<Execution, EngineError> {
        if orchestration.signals.is_empty() {
            return Err(MachineError::NoSignals.into());
        }
        self.create(orchestration).await
    }

    /// As [`Engine::start`], with the text of its LLMs as it arrives, from the first piece on.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub async fn start_streamed(
        &self,
        mut orchestration: Orchestration,
    ) -> Result<(Execution, TokenStream), EngineError> {
        let id = match &orchestration.id {
            Some(id) => id.clone(),
            None => super::create::new_id()?,
        };
        orchestration.id = Some(id.clone());
        let tokens = self.tokens(&id);
        let execution = self.start(orchestration).await?;
        Ok((execution, tokens))
    }

    /// Creates an execution without starting it: its first [`Engine::broadcast_signals`] does. Signals that the
    /// orchestration names are not sent.
    ///
    /// Cancel safety: as [`Engine::start`].
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub async fn prepare(&self, mut orchestration: Orchestration) -> Result<Execution, EngineError> {
        orchestration.signals.clear();
        self.create(orchestration).await
    }

    /// A handle on an execution, whether it exists or not.
    pub fn execution(&self, id: ExecutionId) -> Execution {
        Execution {
            engine: self.clone(),
            id,
            started: None,
        }
    }

    /// Sends a batch of signals to an execution: one that runs, rests or is prepared, in this process, in another one or in the store.
    /// When this returns, the batch is stored and will be handled whatever happens.
    ///
    /// Cancel safety: if the future is dropped, the batch was sent or it was not; it is handled at most once.
    ///
    /// # Errors
    /// The execution doesn't exist or takes no signals any more, the batch is empty, the store fails, or the engine is shut
    /// down.
    pub async fn broadcast_signals<S: Into<Arc<str>>>(
        &self,
        execution: &ExecutionId,
        signals: impl IntoIterator<Item = S>,
    ) -> Result<(), EngineError> {
        self.shared
            .signal(execution, signals.into_iter().map(Into::into).collect())
            .await
    }

    /// Cancels an execution for good, and all below it. What they have in flight is dropped, and what comes of it is discarded. If
    /// another process runs the tree, that one does it.
    ///
    /// Cancel safety: if the future is dropped, the execution may or may not be cancelled.
    ///
    /// # Errors
    /// The execution doesn't exist, the store fails, or the engine is shut down.
    pub async fn cancel(&self, execution: &ExecutionId) -> Result<(), EngineError> {
        self.shared.cancel(execution).await
    }

    /// What happens in an execution, from its first event on, stored ones first. Where no telemetry is stored, from now on.
    pub fn events(&self, execution: &ExecutionId) -> EventStream {
        self.events_from(execution, 0)
    }

    /// As [`Engine::events`], from the event with number `from` on. Events are numbered in the tree: those of one execution have
    /// gaps between them.
    pub fn events_from(&self, execution: &ExecutionId, from: u64) -> EventStream {
        EventStream::tree(self.shared.clone(), execution.root(), Some(execution.clone()), from)
    }

    /// What happens in the whole tree of an execution, in its one order, from the event with number `from` on.
    pub fn tree_events(&self, execution: &ExecutionId, from: u64) -> EventStream {
        EventStream::tree(self.shared.clone(), execution.root(), None, from)
    }

    /// What happens from now on, in all executions of this engine.
    pub fn all_events(&self) -> EventStream {
        EventStream::all(self.shared.clone())
    }

    /// Text of LLMs as it arrives for an execution's requests, from now on. Only callers that stream send any, and only
    /// requests that are made from now on are streamed: [`Engine::start_streamed`] misses none.
    pub fn tokens(&self, execution: &ExecutionId) -> TokenStream {
        self.shared.tokens.stream(Some(execution.clone()))
    }

    /// As [`Engine::tokens`], for all executions.
    pub fn all_tokens(&self) -> TokenStream {
        self.shared.tokens.stream(None)
    }

    /// At most `limit` stored events of an execution, from number `from` on; none where no telemetry is stored.
    ///
    /// # Errors
    /// The store fails.
    pub async fn telemetry(&self, execution: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, EngineError> {
        const PAGE: usize = 1_000;
        let (mut from, mut found) = (from, Vec::new());
        loop {
            let page = self.tree_telemetry(execution, from, PAGE).await?;
            let Some(last) = page.last() else { return Ok(found) };
            from = last.seq + 1;
            let is_last = page.len() < PAGE;
            found.extend(page.into_iter().filter(|event| event.execution == *execution));
            if found.len() >= limit || is_last {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    /// At most `limit` stored events of the tree of an execution, from number `from` on; none where no telemetry is stored.
    ///
    /// # Errors
    /// The store fails.
    pub async fn tree_telemetry(
        &self,
        execution: &ExecutionId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Event>, EngineError> {
        match self.shared.backends.telemetry() {
            Some(telemetry) => Ok(telemetry.events(&execution.root(), from, limit).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Where an execution stands, as it is stored.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn status(&self, execution: &ExecutionId) -> Result<ExecutionSummary, EngineError> {
        let tree = self.tree(execution).await?;
        let summary = tree.summary_of(number_in(&tree, execution)?);
        summary.ok_or_else(|| EngineError::new(EngineErrorKind::NotFound).of(execution))
    }

    /// The whole stored state of the tree of an execution.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn tree(&self, execution: &ExecutionId) -> Result<Arc<TreeState>, EngineError> {
        self.shared.load_tree(execution).await
    }

    /// The stored state of an execution. What has become of those above it is not in it: [`Engine::status`] says where it stands.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn state(&self, execution: &ExecutionId) -> Result<Arc<ExecutionState>, EngineError> {
        self.shared.load(execution).await
    }

    /// The context of an execution, as it is stored.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn context(&self, execution: &ExecutionId) -> Result<Arc<Context>, EngineError> {
        Ok(self.state(execution).await?.context.clone())
    }

    /// Every value that a field of an execution had, oldest first; empty if it was never written.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn history(&self, execution: &ExecutionId, field: &str) -> Result<History, EngineError> {
        Ok(self
            .context(execution)
            .await?
            .history(field)
            .cloned()
            .unwrap_or_default())
    }

    /// A page of the stored trees, newest first: what is said of each is said of its root. The executions of one are in
    /// [`Engine::tree`].
    ///
    /// # Errors
    /// The store fails.
    pub async fn list(&self, query: &ListQuery) -> Result<ListPage, EngineError> {
        Ok(self.shared.backends.context().list(query).await?)
    }

    /// The histories of an execution's fields, to be kept or imported into another: [`Orchestration::import`].
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn export(&self, execution: &ExecutionId) -> Result<ContextExport, EngineError> {
        Ok(ContextExport::of(self.state(execution).await?.as_ref()))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("backends", &self.shared.backends)
            .finish_non_exhaustive()
    }
}
