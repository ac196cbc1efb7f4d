//! The engine, as applications use it.

use std::sync::Arc;

use soe_backends::{
    Backends, Context, Definitions, Event, ExecutionId, ExecutionState, ExecutionSummary, History, ListPage, ListQuery,
    Status,
};
use tokio::sync::{oneshot, watch};

use super::claim::{Claim, Claiming};
use super::coordinator::Coordinator;
use super::shared::{Active, Control, Finished, Message, Progress, Shared, ended};
use super::{ContextExport, EngineBuilder, EngineError, EngineErrorKind, EventStream, Orchestration};
use crate::config::{Config, Node, NodeKind, Registry};
use crate::machine::{Machine, Start};

/// Runs workflows. Cheap to clone; all clones are the same engine. Dropping it cancels nothing.
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

/// A handle on an execution. Cheap to clone; dropping it doesn't cancel the execution.
#[derive(Clone, Debug)]
pub struct Execution {
    engine: Engine,
    id: ExecutionId,
    /// How its first stretch ended, if this handle comes from its start.
    started: Option<watch::Receiver<Progress>>,
}

/// How often a call is tried again that met a coordinator in the moment of its end.
const TRIES: usize = 100;

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
        let execution = self.start(orchestration).await?;
        if let Some(mut progress) = execution.started.clone()
            && let Some(result) = end_of(&mut progress).await
        {
            return result;
        }
        execution.wait().await
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
            return Err(crate::machine::MachineError::NoSignals.into());
        }
        self.create(orchestration).await
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

    async fn create(&self, orchestration: Orchestration) -> Result<Execution, EngineError> {
        let shared = &self.shared;
        shared.check_open()?;
        let registry = orchestration.config.registry().clone();
        self.check_runnable(&registry, &orchestration.workflow)?;
        let given = orchestration.id.is_some();
        let id = match orchestration.id {
            Some(id) => id,
            None => ExecutionId::new(uuid::Uuid::now_v7().to_string())?,
        };
        // Claimed before it is stored: whoever finds it in the store finds this coordinator too.
        let Claiming::Claimed(claim) = Claim::new(shared, &id)? else {
            return Err(EngineError::new(EngineErrorKind::AlreadyExists).of(&id));
        };
        // Separate stores keep what a commit refers to before they find out that they can't take it.
        if given && shared.backends.context().load(&id).await?.is_some() {
            return Err(EngineError::new(EngineErrorKind::AlreadyExists).of(&id));
        }
        let start = Start {
            id: id.clone(),
            main_execution_id: None,
            parent: None,
            registry,
            workflow: orchestration.workflow,
            fields: orchestration.fields.into_iter().collect(),
            definitions: definitions(&orchestration.config),
            schedule: orchestration.schedule,
            limits: orchestration.limits.unwrap_or_else(|| shared.limits.clone()),
            signals: orchestration.signals,
        };
        let (machine, step) = Machine::start(shared.now(), start, shared.specs.clone())?;
        let started = Some(claim.active.progress.clone());
        let (reply, created) = oneshot::channel();
        Coordinator::spawn_new(claim, machine, step, reply);
        match created.await {
            Ok(Ok(())) => Ok(Execution {
                engine: self.clone(),
                id,
                started,
            }),
            Ok(Err(error)) if error.is_conflict() => Err(EngineError::new(EngineErrorKind::AlreadyExists).of(&id)),
            Ok(Err(error)) => Err(error),
            // The runtime that the coordinator was to run on is gone.
            Err(_) => Err(EngineError::new(EngineErrorKind::ShutDown).of(&id)),
        }
    }

    /// Checks that this engine has what a workflow needs.
    fn check_runnable(&self, registry: &Arc<Registry>, workflow: &Arc<str>) -> Result<(), EngineError> {
        let shared = &self.shared;
        if shared.registries.is_checked(registry, workflow) {
            return Ok(());
        }
        let Some(found) = registry.workflows.get(workflow) else {
            return Ok(());
        };
        let missing: Vec<String> = found.nodes.values().filter_map(|node| self.missing_for(node)).collect();
        if !missing.is_empty() {
            let message = format!("workflow '{workflow}' can't run on this engine: {}", missing.join("; "));
            return Err(EngineError::because(EngineErrorKind::Refused, message));
        }
        shared.registries.insert_checked(registry, workflow);
        Ok(())
    }

    fn missing_for(&self, node: &Node) -> Option<String> {
        let name = &node.name;
        match &node.kind {
            NodeKind::Router => None,
            NodeKind::Tool(tool) => self.shared.specs.get(&tool.tool).is_none().then(|| {
                let known: Vec<&str> = self.shared.specs.iter().map(|spec| spec.name.as_ref()).collect();
                let known = if known.is_empty() {
                    "none are".to_owned()
                } else {
                    format!("there are: {}", known.join(", "))
                };
                format!(
                    "node '{name}' uses tool '{}', which is not registered ({known})",
                    tool.tool
                )
            }),
            NodeKind::Custom(kind) => self
                .shared
                .nodes
                .get(kind)
                .is_none()
                .then(|| format!("node '{name}' has node_type '{kind}', which is not registered with this engine")),
            NodeKind::Llm(_) | NodeKind::Agent(_) | NodeKind::Child(_) => Some(format!(
                "node '{name}': this version doesn't run nodes of type '{}' yet",
                node.type_name
            )),
        }
    }

    /// A handle on an execution, whether it exists or not.
    pub fn execution(&self, id: ExecutionId) -> Execution {
        Execution {
            engine: self.clone(),
            id,
            started: None,
        }
    }

    /// Sends a batch of signals to an execution: one that runs, rests or is prepared, in this process or in the store.
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
            .broadcast(execution, signals.into_iter().map(Into::into).collect())
            .await
    }

    /// Cancels an execution for good. What it has in flight is dropped, and what comes of it is discarded.
    ///
    /// Cancel safety: if the future is dropped, the execution may or may not be cancelled.
    ///
    /// # Errors
    /// The execution doesn't exist, the store fails, or the engine is shut down.
    pub async fn cancel(&self, execution: &ExecutionId) -> Result<(), EngineError> {
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let control = Control::Cancel { reply };
            match Claim::new(&self.shared, execution)? {
                Claiming::Claimed(claim) => {
                    // Into an empty channel that the claim holds open.
                    let _ = claim.active.control.try_send(control);
                    Coordinator::spawn_stored(claim, false);
                }
                Claiming::Taken(active) => {
                    if active.control.send(control).await.is_err() {
                        continue;
                    }
                }
            }
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
        Err(EngineError::new(EngineErrorKind::Internal).of(execution))
    }

    /// Waits until an execution rests.
    ///
    /// Cancel safety: dropping the future changes nothing.
    ///
    /// # Errors
    /// It doesn't exist; it has failed, is suspended or cancelled; or nobody in this process runs it. The application's
    /// error that failed it is the error's source only for those who waited while it failed, and for the handle that
    /// [`Engine::start`] gave; later the text is left.
    pub async fn wait(&self, execution: &ExecutionId) -> Result<Finished, EngineError> {
        let mut seen = None;
        loop {
            let active = self.shared.active().get(execution).cloned();
            if let Some(Active { mut progress, .. }) = active {
                if let Some(result) = end_of(&mut progress).await {
                    return result;
                }
                continue;
            }
            let state = self.shared.load(execution).await?;
            // Running, but without a coordinator here: unless one came or went just now, nobody here runs it.
            if state.status != Status::Running || seen == Some(state.version) {
                return ended(&state, None);
            }
            seen = Some(state.version);
        }
    }

    /// What happens in an execution, from its first event on, stored ones first. Where no telemetry is stored, from now on.
    pub fn events(&self, execution: &ExecutionId) -> EventStream {
        self.events_from(execution, 0)
    }

    /// As [`Engine::events`], from the event with number `from` on.
    pub fn events_from(&self, execution: &ExecutionId, from: u64) -> EventStream {
        EventStream::one(self.shared.clone(), execution.clone(), from)
    }

    /// What happens from now on, in all executions of this engine.
    pub fn all_events(&self) -> EventStream {
        EventStream::all(self.shared.clone())
    }

    /// At most `limit` stored events of an execution, from number `from` on; none where no telemetry is stored.
    ///
    /// # Errors
    /// The store fails.
    pub async fn telemetry(&self, execution: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, EngineError> {
        match self.shared.backends.telemetry() {
            Some(telemetry) => Ok(telemetry.events(execution, from, limit).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Where an execution stands, as it is stored.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn status(&self, execution: &ExecutionId) -> Result<ExecutionSummary, EngineError> {
        Ok(self.state(execution).await?.summary())
    }

    /// The whole stored state of an execution.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn state(&self, execution: &ExecutionId) -> Result<ExecutionState, EngineError> {
        self.shared.load(execution).await
    }

    /// The context of an execution, as it is stored.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn context(&self, execution: &ExecutionId) -> Result<Arc<Context>, EngineError> {
        Ok(self.state(execution).await?.context)
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

    /// A page of the stored executions, newest first.
    ///
    /// # Errors
    /// The store fails.
    pub async fn list(&self, query: &ListQuery) -> Result<ListPage, EngineError> {
        Ok(self.shared.backends.context().list(query).await?)
    }

    /// Deletes an execution with all that belongs to it.
    ///
    /// Cancel safety: if the future is dropped, a part may be deleted already; calling it again goes on.
    ///
    /// # Errors
    /// It doesn't exist, it is running, the store fails, or the engine is shut down.
    pub async fn delete(&self, execution: &ExecutionId) -> Result<(), EngineError> {
        let running = || EngineError::new(EngineErrorKind::Active).of(execution);
        // The claim keeps it from being taken up meanwhile.
        let (_claim, state) = loop {
            match Claim::new(&self.shared, execution)? {
                Claiming::Claimed(claim) => break (claim, self.shared.load(execution).await?),
                Claiming::Taken(Active { mut progress, .. }) => {
                    if self.shared.load(execution).await?.status == Status::Running {
                        return Err(running());
                    }
                    // Its coordinator is about to end.
                    end_of(&mut progress).await;
                }
            }
        };
        if state.status == Status::Running {
            return Err(running());
        }
        self.shared.backends.delete(&state).await?;
        Ok(())
    }

    /// The histories of an execution's fields, to be kept or imported into another: [`Orchestration::import`].
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn export(&self, execution: &ExecutionId) -> Result<ContextExport, EngineError> {
        Ok(ContextExport::of(&self.state(execution).await?))
    }
}

/// What is stored for an execution's tree.
fn definitions(config: &Config) -> Definitions {
    let schema = config.context_schema().and_then(|schema| schema.document.as_map());
    Definitions {
        identities: config
            .identities()
            .map(|identities| identities.as_ref().clone())
            .unwrap_or_default(),
        context_schema: schema.cloned().unwrap_or_default(),
    }
}

/// Waits for the end of a coordinator; `None` if it went away without saying how it ended.
async fn end_of(progress: &mut watch::Receiver<Progress>) -> Option<Result<Finished, EngineError>> {
    let ended = progress
        .wait_for(|progress| matches!(progress, Progress::Ended(_)))
        .await;
    match &*ended.ok()? {
        Progress::Ended(result) => Some(result.clone()),
        Progress::Running => None,
    }
}

impl Shared {
    pub(super) async fn broadcast(
        self: &Arc<Self>,
        execution: &ExecutionId,
        signals: Vec<Arc<str>>,
    ) -> Result<(), EngineError> {
        self.check_open().map_err(|error| error.of(execution))?;
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let signals = signals.clone();
            let message = Message::Broadcast { signals, reply };
            match Claim::new(self, execution)? {
                Claiming::Claimed(claim) => {
                    // Into an empty channel that the claim holds open.
                    let _ = claim.active.mailbox.try_send(message);
                    Coordinator::spawn_stored(claim, true);
                }
                Claiming::Taken(active) => {
                    if active.mailbox.send(message).await.is_err() {
                        continue;
                    }
                }
            }
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
        Err(EngineError::new(EngineErrorKind::Internal).of(execution))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("backends", &self.shared.backends)
            .finish_non_exhaustive()
    }
}

impl Execution {
    /// Its id.
    pub fn id(&self) -> &ExecutionId {
        &self.id
    }

    /// As [`Engine::wait`].
    ///
    /// # Errors
    /// As [`Engine::wait`].
    pub async fn wait(&self) -> Result<Finished, EngineError> {
        let result = self.engine.wait(&self.id).await;
        if let (Err(error), Some(started)) = (&result, &self.started)
            && let Progress::Ended(Err(first)) = &*started.borrow()
            && first.kind() == error.kind()
        {
            // The same failure, with the application's error as its source.
            return Err(first.clone());
        }
        result
    }

    /// As [`Engine::broadcast_signals`].
    ///
    /// # Errors
    /// As [`Engine::broadcast_signals`].
    pub async fn signal<S: Into<Arc<str>>>(&self, signals: impl IntoIterator<Item = S>) -> Result<(), EngineError> {
        self.engine.broadcast_signals(&self.id, signals).await
    }

    /// As [`Engine::cancel`].
    ///
    /// # Errors
    /// As [`Engine::cancel`].
    pub async fn cancel(&self) -> Result<(), EngineError> {
        self.engine.cancel(&self.id).await
    }

    /// As [`Engine::events`].
    pub fn events(&self) -> EventStream {
        self.engine.events(&self.id)
    }

    /// As [`Engine::status`].
    ///
    /// # Errors
    /// As [`Engine::status`].
    pub async fn status(&self) -> Result<ExecutionSummary, EngineError> {
        self.engine.status(&self.id).await
    }

    /// As [`Engine::context`].
    ///
    /// # Errors
    /// As [`Engine::context`].
    pub async fn context(&self) -> Result<Arc<Context>, EngineError> {
        self.engine.context(&self.id).await
    }

    /// As [`Engine::history`].
    ///
    /// # Errors
    /// As [`Engine::history`].
    pub async fn history(&self, field: &str) -> Result<History, EngineError> {
        self.engine.history(&self.id, field).await
    }
}
