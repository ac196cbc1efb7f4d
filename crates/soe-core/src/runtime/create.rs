//! Starting executions.

use std::sync::Arc;

use soe_backends::{ExecutionId, ExecutionState, RegistryId};
use tokio::sync::{oneshot, watch};

use super::claim::{Claim, Claiming};
use super::coordinator::Coordinator;
use super::shared::{Progress, Shared};
use super::{Engine, EngineError, EngineErrorKind, Execution, Orchestration};
use crate::config::{LlmNode, Node, NodeKind, Registry};
use crate::machine::{Machine, MachineError, Start, Step, could_be_a_childs};

/// An execution whose coordinator was started; its first commit is on its way to the store.
pub(super) struct Begun {
    pub(super) id: ExecutionId,
    pub(super) progress: watch::Receiver<Progress>,
    stored: oneshot::Receiver<Result<(), EngineError>>,
}

impl Begun {
    /// A handle on it, when its first commit is stored.
    pub(super) async fn execution(self, engine: &Engine) -> Result<Execution, EngineError> {
        let execution = Execution {
            engine: engine.clone(),
            id: self.id.clone(),
            started: Some(self.progress.clone()),
        };
        self.stored().await.map(|()| execution)
    }

    /// Waits until the first commit is stored.
    pub(super) async fn stored(self) -> Result<(), EngineError> {
        match self.stored.await {
            Ok(Err(error)) if error.is_conflict() => Err(EngineError::new(EngineErrorKind::AlreadyExists).of(&self.id)),
            Ok(result) => result,
            // The runtime that the coordinator was to run on is gone.
            Err(_) => Err(EngineError::new(EngineErrorKind::ShutDown).of(&self.id)),
        }
    }
}

impl Engine {
    pub(super) async fn create(&self, orchestration: Orchestration) -> Result<Execution, EngineError> {
        self.begin(orchestration).await?.execution(self).await
    }

    /// Starts the coordinator of a new execution, and doesn't wait for it.
    pub(super) async fn begin(&self, mut orchestration: Orchestration) -> Result<Begun, EngineError> {
        let shared = &self.shared;
        shared.check_open()?;
        let given = shared.given(&mut orchestration).await?;
        shared.check_runnable(&given.registry, &orchestration.workflow)?;
        self.begin_as(orchestration.id, |id| {
            let start = Start {
                id,
                main_execution_id: None,
                parent: None,
                registry: given.registry,
                workflow: orchestration.workflow,
                fields: given.fields.into_iter().collect(),
                definitions: given.definitions,
                schedule: orchestration.schedule,
                limits: orchestration.limits.unwrap_or_else(|| shared.limits.clone()),
                signals: orchestration.signals,
                inherited: given.inherited,
            };
            Machine::start(shared.now(), start, shared.specs.clone())
        })
        .await
    }

    /// Starts the coordinator of what is made under an id: the one that is given, or a new one.
    pub(super) async fn begin_as(
        &self,
        given: Option<ExecutionId>,
        make: impl FnOnce(ExecutionId) -> Result<(Machine, Step), MachineError>,
    ) -> Result<Begun, EngineError> {
        let shared = &self.shared;
        let is_named = given.is_some();
        let id = match given {
            Some(id) => own_name(id)?,
            None => new_id()?,
        };
        // Claimed before it is stored: whoever finds it in the store finds this coordinator too.
        let Claiming::Claimed(claim) = Claim::take(shared, &id)? else {
            return Err(EngineError::new(EngineErrorKind::AlreadyExists).of(&id));
        };
        // Separate stores keep what a commit refers to before they find out that they can't take it.
        if is_named && shared.find(&id).await?.is_some() {
            return Err(EngineError::new(EngineErrorKind::AlreadyExists).of(&id));
        }
        let (machine, step) = make(id.clone())?;
        let progress = claim.active.progress.clone();
        let (reply, stored) = oneshot::channel();
        Coordinator::spawn_new(claim, machine, step, reply);
        Ok(Begun { id, progress, stored })
    }
}

impl Shared {
    /// Checks that this engine has what a workflow needs.
    pub(super) fn check_runnable(&self, registry: &Arc<Registry>, workflow: &Arc<str>) -> Result<(), EngineError> {
        let shared = self;
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

    /// Checks that this engine has what a stored execution needs to go on: its workflow, and the nodes in flight as they were
    /// when they were dispatched. What is missing would become their failure otherwise, and be stored as that.
    pub(super) fn check_taken_up(
        &self,
        state: &ExecutionState,
        registries: &[Arc<Registry>],
    ) -> Result<(), EngineError> {
        let registry = |id: &RegistryId| registries.iter().find(|registry| registry.id == *id);
        if let Some(current) = registry(&state.registry) {
            self.check_runnable(current, &state.workflow)?;
        }
        for run in state.runs.values().filter(|run| run.registry != state.registry) {
            let workflow = registry(&run.registry).and_then(|registry| registry.workflows.get(&run.workflow));
            let node = workflow.and_then(|workflow| workflow.nodes.get(&run.node));
            if let Some(missing) = node.and_then(|node| self.missing_for(node)) {
                let message = format!("a run in flight can't go on with this engine: {missing}");
                return Err(EngineError::because(EngineErrorKind::Refused, message));
            }
        }
        Ok(())
    }

    fn missing_for(&self, node: &Node) -> Option<String> {
        let name = &node.name;
        match &node.kind {
            NodeKind::Router => None,
            NodeKind::Tool(tool) => self.missing_tool(name, &tool.tool),
            NodeKind::Llm(llm) => self.missing_llm(name, llm),
            NodeKind::Agent(agent) => {
                let missing = agent.tools.iter().find_map(|tool| self.missing_tool(name, tool));
                missing.or_else(|| self.missing_llm(name, &agent.llm))
            }
            NodeKind::Custom(kind) => self
                .nodes
                .get(kind)
                .is_none()
                .then(|| format!("node '{name}' has node_type '{kind}', which is not registered with this engine")),
            // Its workflow is checked when a child is created: it may be injected until then.
            NodeKind::Child(_) => None,
        }
    }

    fn missing_tool(&self, node: &str, tool: &str) -> Option<String> {
        let tools = &self.specs.tools;
        if tools.contains(tool) {
            return None;
        }
        let known = listed(tools.names());
        Some(format!(
            "node '{node}' uses tool '{tool}', which is not registered ({known})"
        ))
    }

    fn missing_llm(&self, node: &str, llm: &LlmNode) -> Option<String> {
        let llms = &self.specs.llms;
        match &llm.llm {
            _ if llms.get(llm.llm.as_deref()).is_some() => None,
            None => Some(format!("node '{node}' asks the default LLM, and none is registered")),
            Some(name) => {
                let known = listed(llms.names());
                Some(format!(
                    "node '{node}' asks LLM '{name}', which is not registered ({known})"
                ))
            }
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> String {
    let known: Vec<&str> = names.map(AsRef::as_ref).collect();
    match known.as_slice() {
        [] => "none are".to_owned(),
        known => format!("there are: {}", known.join(", ")),
    }
}

/// An id that an application gives: none that a child could get.
fn own_name(id: ExecutionId) -> Result<ExecutionId, EngineError> {
    if !could_be_a_childs(&id) {
        return Ok(id);
    }
    let message =
        "it ends like the id of a child (in '.NUMBER.NUMBER', or a dot and 32 hexadecimal digits); choose another";
    Err(EngineError::because(EngineErrorKind::Refused, message).of(&id))
}

/// An id that sorts by time.
pub(super) fn new_id() -> Result<ExecutionId, EngineError> {
    Ok(ExecutionId::new(uuid::Uuid::now_v7().to_string())?)
}
