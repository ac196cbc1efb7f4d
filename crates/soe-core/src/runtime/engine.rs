//! The engine, as applications use it.

use std::sync::Arc;

use soe_backends::{
    Backends, Context, Definitions, Event, ExecutionId, ExecutionState, ExecutionSummary, History, ListPage, ListQuery,
    Status,
};
use tokio::sync::oneshot;

use super::coordinator::{Claim, Coordinator, published};
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
    /// # Errors
    /// As [`Engine::start`] and [`Engine::wait`]. The error of an execution that was started names it:
    /// [`EngineError::execution`].
    pub async fn orchestrate(&self, orchestration: Orchestration) -> Result<Finished, EngineError> {
        self.start(orchestration).await?.wait().await
    }

    /// Starts an execution; it goes on by itself. When this returns, its first commit is stored.
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
        // An id that nobody knows yet needs no claim before it is stored.
        let (id, mut claim) = match orchestration.id {
            Some(id) => {
                let claim = Claim::new(shared, &id).map_err(|_| already_exists(&id))?;
                (id, Some(claim))
            }
            None => (ExecutionId::new(uuid::Uuid::now_v7().to_string())?, None),
        };
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
        let commits: Vec<_> = step.commit.into_iter().collect();
        let events = published(shared, &commits);
        shared
            .backends
            .commit(commits)
            .await
            .map_err(|error| EngineError::from(error).of(&id))?;
        if !events.is_empty() {
            shared.subscribers.publish(&id, events);
        }
        if machine.state().status == Status::Running {
            if claim.is_none() {
                claim = Some(Claim::new(shared, &id).map_err(|_| already_exists(&id))?);
            }
            if let Some(claim) = claim {
                Coordinator::spawn(claim, machine, step.effects);
            }
        }
        Ok(Execution {
            engine: self.clone(),
            id,
        })
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
        }
    }

    /// Sends a batch of signals to an execution: one that runs, rests or is prepared, in this process or in the store.
    /// When this returns, the batch is stored and will be handled whatever happens.
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
    /// # Errors
    /// The execution doesn't exist, or the store fails.
    pub async fn cancel(&self, execution: &ExecutionId) -> Result<(), EngineError> {
        for _ in 0..TRIES {
            let active = self.shared.reach(execution, false);
            let (reply, answer) = oneshot::channel();
            if active.control.send(Control::Cancel { reply }).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
        }
        Err(EngineError::new(EngineErrorKind::Internal).of(execution))
    }

    /// Waits until an execution rests.
    ///
    /// # Errors
    /// It doesn't exist; it has failed, is suspended or cancelled; or nobody in this process runs it.
    pub async fn wait(&self, execution: &ExecutionId) -> Result<Finished, EngineError> {
        let active = self.shared.active().get(execution).cloned();
        if let Some(Active { mut progress, .. }) = active {
            let ended = progress
                .wait_for(|progress| matches!(progress, Progress::Ended(_)))
                .await;
            if let Ok(progress) = ended
                && let Progress::Ended(result) = &*progress
            {
                return result.clone();
            }
        }
        ended(&self.shared.load(execution).await?, None)
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
    /// # Errors
    /// It doesn't exist, it is running, or the store fails.
    pub async fn delete(&self, execution: &ExecutionId) -> Result<(), EngineError> {
        let running = || EngineError::new(EngineErrorKind::Active).of(execution);
        // The claim keeps it from being taken up meanwhile.
        let _claim = Claim::new(&self.shared, execution).map_err(|_| running())?;
        let state = self.shared.load(execution).await?;
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

fn already_exists(id: &ExecutionId) -> EngineError {
    EngineError::because(EngineErrorKind::Refused, "there is an execution of that id already").of(id)
}

impl Shared {
    pub(super) async fn broadcast(
        self: &Arc<Self>,
        execution: &ExecutionId,
        signals: Vec<Arc<str>>,
    ) -> Result<(), EngineError> {
        self.check_open()?;
        for _ in 0..TRIES {
            let active = self.reach(execution, true);
            let (reply, answer) = oneshot::channel();
            let message = Message::Broadcast {
                signals: signals.clone(),
                reply,
            };
            if active.mailbox.send(message).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
        }
        Err(EngineError::new(EngineErrorKind::Internal).of(execution))
    }

    /// The coordinator of an execution; one is started if there is none.
    fn reach(self: &Arc<Self>, execution: &ExecutionId, recover: bool) -> Active {
        match Claim::new(self, execution) {
            Err(active) => active,
            Ok(claim) => {
                let active = claim.active().clone();
                Coordinator::spawn_stored(claim, recover);
                active
            }
        }
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
        self.engine.wait(&self.id).await
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
