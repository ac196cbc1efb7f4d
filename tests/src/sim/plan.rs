//! What is simulated: a compiled workflow, and what may happen to it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use soe_backends::{ExecutionId, ExecutionState, Schedule, Timestamp};
use soe_core::config::Registry;
use soe_core::machine::{Input, Machine, Specs, Start, Step};

use super::flow::{Flow, WORKFLOW};

/// A workflow, compiled.
#[derive(Debug)]
pub struct Prepared {
    /// What it was made of.
    pub flow: Flow,
    registry: Arc<Registry>,
    specs: Specs,
}

/// What may happen in an interleaving.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where all its random choices come from.
    pub seed: u64,
    /// The machine's schedule.
    pub schedule: Schedule,
    /// Completions that come twice, too late, or of runs that don't exist.
    pub noise: bool,
    /// A cancellation at any time.
    pub cancel: bool,
    /// Crashes: the state is stored, loaded and recovered. One in so many moves; 0 for none.
    pub crashes: u8,
    /// Every commit is written and read before it is applied.
    pub stored: bool,
}

/// What was done to the machine.
#[derive(Clone, Debug)]
pub enum Move {
    /// It got an input.
    Input(Timestamp, Input),
    /// Its state was stored and loaded, and recovered.
    Crash(Timestamp),
}

impl Prepared {
    /// Compiles a workflow.
    ///
    /// # Errors
    /// The engine refuses it.
    pub fn new(flow: Flow) -> Result<Self> {
        let (registry, specs) = (flow.registry()?, flow.specs()?);
        Ok(Self { flow, registry, specs })
    }

    pub(super) fn start(&self, schedule: Schedule) -> Result<(Machine, Step)> {
        let start = Start {
            id: ExecutionId::new("sim")?,
            main_execution_id: None,
            parent: None,
            registry: self.registry.clone(),
            workflow: WORKFLOW.into(),
            fields: self
                .flow
                .fields
                .iter()
                .map(|(name, values)| (name.clone(), values.iter().cloned().collect()))
                .collect(),
            definitions: Default::default(),
            schedule,
            limits: Arc::new(self.flow.limits.clone()),
            signals: self.flow.start.clone(),
            inherited: Default::default(),
        };
        Ok(Machine::start(Timestamp::from_micros(0), start, self.specs.clone())?)
    }

    /// Stores a state, and takes it up again.
    pub(super) fn load(&self, state: &ExecutionState) -> Result<Machine> {
        let stored = serde_json::to_string(state)?;
        let read: ExecutionState = serde_json::from_str(&stored)?;
        ensure!(read == *state, "the state is another after it was stored:\n{stored}");
        Ok(Machine::load(read, vec![self.registry.clone()], self.specs.clone())?)
    }
}
