//! Who in a tree waits for what.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use soe_backends::{ExecutionId, ExecutionState, RegistryId, Status, TreeState};
use soe_core::config::Registry;
use soe_core::runtime::Engine;
use soe_core::tools::ToolSpecs;

use crate::awaited::{Awaited, Listening};

/// The most executions that are named.
const MOST: usize = 1_000;

/// An execution that waits for somebody to send it one of these signals.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Waiting {
    pub(crate) execution: ExecutionId,
    pub(crate) workflow: Arc<str>,
    pub(crate) signals: Vec<Arc<str>>,
}

/// Who in a tree waits for what.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// In the order of their creation; of very many the first.
    pub(crate) waiting: Vec<Waiting>,
    /// How many there are.
    pub(crate) count: u64,
}

/// Looks into stored workflows; each is read once.
pub(crate) struct Lookout<'e> {
    engine: &'e Engine,
    /// `None` where it isn't known which tools there are.
    tools: Option<ToolSpecs>,
    registries: HashMap<RegistryId, Option<Arc<Registry>>>,
    listening: HashMap<(RegistryId, Arc<str>), Option<Listening>>,
}

impl<'e> Lookout<'e> {
    pub(crate) fn new(engine: &'e Engine, tools: Option<ToolSpecs>) -> Self {
        Self {
            engine,
            tools,
            registries: HashMap::new(),
            listening: HashMap::new(),
        }
    }

    /// All workflows of an execution; `None` if the store has lost them.
    pub(crate) async fn registry(&mut self, state: &ExecutionState) -> anyhow::Result<Option<Arc<Registry>>> {
        if let Some(known) = self.registries.get(&state.registry) {
            return Ok(known.clone());
        }
        let stored = self.engine.backends().workflows().registry(&state.registry).await?;
        let read = stored.map(|document| Registry::from_document(document.workflows.clone()));
        let registry = read.transpose()?.map(Arc::new);
        self.registries.insert(state.registry.clone(), registry.clone());
        Ok(registry)
    }

    /// What somebody else has to send to an execution, or can.
    pub(crate) async fn awaited(&mut self, state: &ExecutionState) -> anyhow::Result<Awaited> {
        let key = (state.registry.clone(), state.workflow.clone());
        if !self.listening.contains_key(&key) {
            let registry = self.registry(state).await?;
            let workflow = registry
                .as_ref()
                .and_then(|registry| registry.workflows.get(&state.workflow));
            let listening = workflow.map(|workflow| Listening::of(workflow, self.tools.as_ref()));
            self.listening.insert(key.clone(), listening);
        }
        let listening = self.listening.get(&key).and_then(Option::as_ref);
        Ok(listening.map(|listening| listening.awaited(state)).unwrap_or_default())
    }

    /// The executions of a tree that wait for a signal from outside.
    pub(crate) async fn look(&mut self, tree: &TreeState) -> anyhow::Result<Waits> {
        let mut waits = Waits::default();
        for state in tree.executions.values() {
            if !matches!(tree.status(state.number), Some(Status::Rested | Status::Prepared)) && !rests(tree, state) {
                continue;
            }
            let signals = self.awaited(state).await?.needed;
            if signals.is_empty() {
                continue;
            }
            waits.count += 1;
            if waits.waiting.len() < MOST {
                waits.waiting.push(Waiting {
                    execution: state.id.clone(),
                    workflow: state.workflow.clone(),
                    signals,
                });
            }
        }
        Ok(waits)
    }
}

/// Whether nothing is in flight in an execution itself: something below it may be, and that may wait.
fn rests(tree: &TreeState, state: &ExecutionState) -> bool {
    tree.status(state.number) == Some(Status::Running) && state.runs.is_empty() && state.active_children() == 0
}
