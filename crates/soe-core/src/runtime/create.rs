//! Starting executions.

use std::collections::HashSet;
use std::sync::Arc;

use soe_backends::{ExecutionId, RegistryId, Status, TreeState};
use tokio::sync::{oneshot, watch};

use super::claim::{Claim, Claiming};
use super::coordinator::Coordinator;
use super::shared::{Progress, Shared};
use super::{Engine, EngineError, EngineErrorKind, Execution, Orchestration};
use crate::config::{NodeKind, Registry};
use crate::machine::{Machine, MachineError, Start, Step};

/// A tree whose coordinator was started; its first commit is on its way to the store.
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
            Ok(Err(error)) if *error.kind() == EngineErrorKind::LostRace => {
                Err(EngineError::new(EngineErrorKind::AlreadyExists).of(&self.id))
            }
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
        if is_named && shared.find_tree(&id).await?.is_some() {
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
    /// Checks that this engine has what a workflow needs, and those that its children run. A workflow that there isn't may be
    /// injected until it is needed.
    pub(super) fn check_runnable(&self, registry: &Arc<Registry>, workflow: &Arc<str>) -> Result<(), EngineError> {
        if self.registries.is_checked(registry, workflow) {
            return Ok(());
        }
        let (mut left, mut seen) = (vec![workflow.clone()], HashSet::new());
        while let Some(workflow) = left.pop() {
            let Some(found) = registry
                .workflows
                .get(&workflow)
                .filter(|_| seen.insert(workflow.clone()))
            else {
                continue;
            };
            if let Some(missing) = self.specs.missing_for(registry, &workflow) {
                return Err(EngineError::because(EngineErrorKind::Refused, missing));
            }
            left.extend(found.nodes.values().filter_map(|node| match &node.kind {
                NodeKind::Child(child) => Some(child.workflow.clone()),
                _ => None,
            }));
        }
        self.registries.insert_checked(registry, workflow);
        Ok(())
    }

    /// Checks that this engine has what a stored tree needs to go on: the workflows of what runs, and the nodes in flight as they
    /// were when they were dispatched. What is missing would become their failure otherwise, and be stored as that.
    pub(super) fn check_taken_up(&self, tree: &TreeState, registries: &[Arc<Registry>]) -> Result<(), EngineError> {
        let registry = |id: &RegistryId| registries.iter().find(|registry| registry.id == *id);
        let mut checked = HashSet::new();
        for state in tree
            .executions
            .values()
            .filter(|state| state.number == 0 || state.status == Status::Running)
        {
            if !tree.status(state.number).is_some_and(Status::accepts_signals) {
                continue;
            }
            if let Some(current) = registry(&state.registry)
                && checked.insert((&state.registry, &state.workflow))
            {
                self.check_runnable(current, &state.workflow)?;
            }
            for run in state.runs.values().filter(|run| run.registry != state.registry) {
                let workflow = registry(&run.registry).and_then(|registry| registry.workflows.get(&run.workflow));
                let node = workflow.and_then(|workflow| workflow.nodes.get(&run.node));
                if let Some(missing) = node.and_then(|node| self.specs.missing_for_node(node)) {
                    let message = format!("a run in flight can't go on with this engine: {missing}");
                    return Err(EngineError::because(EngineErrorKind::Refused, message));
                }
            }
        }
        Ok(())
    }
}

/// The most characters of an id that an application gives: those of children are longer.
const MAX_ROOT: usize = 128;

/// An id that an application gives: none that a child could get.
fn own_name(id: ExecutionId) -> Result<ExecutionId, EngineError> {
    let message = if !id.is_root() {
        "it ends like the id of a child (in '.NUMBER.NUMBER', or a dot and 32 hexadecimal digits); choose another"
    } else if id.as_str().len() > MAX_ROOT {
        "it has more than 128 characters; choose a shorter one"
    } else {
        return Ok(id);
    };
    Err(EngineError::because(EngineErrorKind::Refused, message).of(&id))
}

/// An id that sorts by time.
pub(super) fn new_id() -> Result<ExecutionId, EngineError> {
    Ok(ExecutionId::new(uuid::Uuid::now_v7().to_string())?)
}
