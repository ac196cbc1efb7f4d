//! The workflows of an execution, for applications: what they are, what they were, and back.

use std::sync::Arc;

use soe_backends::{ExecutionId, ExecutionState, WorkflowVersion};

use super::shared::Message;
use super::{Engine, EngineError};
use crate::config::Registry;
use crate::machine::MachineError;

impl Engine {
    /// The workflows of an execution as they are now, changes at run time included.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn workflows(&self, execution: &ExecutionId) -> Result<Arc<Registry>, EngineError> {
        let state = self.state(execution).await?;
        self.shared.registry(&state.registry, execution).await
    }

    /// The versions of an execution's workflows, oldest first: what it was started with (number 0), and what came of each
    /// change since. The last one is in use. They are part of the execution's state, so no telemetry is needed; of more than
    /// 1,000, those after the first and before the newest are left out.
    ///
    /// # Errors
    /// It doesn't exist, or the store fails.
    pub async fn workflow_versions(&self, execution: &ExecutionId) -> Result<Vec<Arc<WorkflowVersion>>, EngineError> {
        Ok(self.state(execution).await?.workflow_versions())
    }

    /// The workflows of an execution as they were in one of its [versions](Self::workflow_versions).
    ///
    /// # Errors
    /// It or the version doesn't exist, or the store fails.
    pub async fn workflows_at(&self, execution: &ExecutionId, version: u64) -> Result<Arc<Registry>, EngineError> {
        let state = self.state(execution).await?;
        self.registry_of(&state, version).await
    }

    /// Makes an execution go on with the workflows of an earlier version, as a change of its own: a new version, with an
    /// event `workflow_changed`. They take part from the next broadcast on; runs in flight end with the configuration that
    /// they began with. When this returns, it is stored. If the workflows are those already, nothing changes.
    ///
    /// It works on executions in any state but cancelled, whether they run, rest or have failed. The policy's limit on
    /// changes is for what nodes do: this is not counted.
    ///
    /// Cancel safety: if the future is dropped, it was done or it was not, as a whole.
    ///
    /// # Errors
    /// The execution or the version doesn't exist, the execution is cancelled, this engine doesn't have what the workflow
    /// needs (a tool, an LLM, a node type), the store fails, or the engine is shut down.
    pub async fn revert_workflows(&self, execution: &ExecutionId, version: u64) -> Result<(), EngineError> {
        self.shared.check_open().map_err(|error| error.of(execution))?;
        let state = self.state(execution).await?;
        let registry = self.registry_of(&state, version).await?;
        let runnable = self.shared.check_runnable(&registry, &state.workflow);
        runnable.map_err(|error| error.of(execution))?;
        let message = |reply| Message::Revert {
            execution: execution.clone(),
            to: version,
            registry: registry.clone(),
            reply,
        };
        self.shared.ask(execution, message).await
    }

    async fn registry_of(&self, state: &ExecutionState, number: u64) -> Result<Arc<Registry>, EngineError> {
        let versions = state.workflow_versions();
        let Some(version) = versions.iter().find(|version| version.number == number) else {
            return Err(EngineError::from(MachineError::UnknownVersion(number)).of(&state.id));
        };
        self.shared.registry(&version.registry, &state.id).await
    }
}
