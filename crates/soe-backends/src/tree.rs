//! The state of an execution tree: one aggregate, with one version, one owner and one order of events.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Definitions, Event, ExecutionId, ExecutionState, ExecutionSummary, Limits, NumberMap, Owner, RegistryId, Schedule,
    Status, Timestamp, Turn, Work,
};

/// The version of the stored form of a [`TreeState`]. States of every earlier version stay readable.
pub const FORMAT: u32 = 2;

/// The state of an execution tree: a root execution and all below it. It is all that is needed to go on with them. It is changed
/// by [`TreeState::apply`] alone, in the live engine, in every store and at recovery. A clone shares what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeState {
    /// The version of the stored form: [`FORMAT`].
    pub format: u32,
    /// The name of the root execution, and so of the tree.
    pub root: ExecutionId,
    /// The number of commits applied; the version that the next commit must be computed from.
    pub version: u64,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// Who runs it, or ran it last; `None` on stores that keep no leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The order in which its executions run their nodes.
    pub schedule: Schedule,
    /// What it may use.
    pub limits: Arc<Limits>,
    /// What it has used, as far as limits count it.
    pub used: Used,
    /// Identities and context schema.
    #[serde(default)]
    pub definitions: Arc<Definitions>,
    /// The number of the next telemetry event.
    pub next_event: u64,
    /// Its executions by number, in the order of creation; the root has 0.
    pub executions: NumberMap<Arc<ExecutionState>>,
    /// The rest of what has to be done for events that were begun.
    #[serde(default)]
    pub work: Arc<Work>,
    /// The last message of its inbox that was taken.
    #[serde(default)]
    pub inbox: u64,
    /// What separate stores have still to be given.
    #[serde(default)]
    pub owed: Arc<Owed>,
}

/// What the executions of a tree have used, as far as limits count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Used {
    /// Signal broadcasts.
    pub broadcasts: u64,
    /// Node runs, routers included.
    pub runs: u64,
    /// Child executions created.
    pub children: u64,
    /// Requests to LLMs.
    pub llm_calls: u64,
    /// Tool calls.
    pub tool_calls: u64,
    /// Tokens, as the endpoints report them.
    pub tokens: u64,
}

/// Sections of commits that stores of their own have not acknowledged yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owed {
    /// Whether identities and context schema have changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub definitions: bool,
    /// Turns for the conversation history.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<Turn>,
    /// Events for the telemetry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

impl Owed {
    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        !self.definitions && self.turns.is_empty() && self.events.is_empty()
    }
}

impl TreeState {
    /// The execution with this number.
    pub fn get(&self, number: u64) -> Option<&Arc<ExecutionState>> {
        self.executions.get(number)
    }

    /// The root execution. `None` only before the tree is created.
    pub fn root_state(&self) -> Option<&Arc<ExecutionState>> {
        self.get(0)
    }

    /// The number of the execution of that name; `None` if the tree has none.
    pub fn number_of(&self, id: &ExecutionId) -> Option<u64> {
        if *id == self.root {
            return Some(0);
        }
        let path = id.path_below(&self.root)?;
        let mut parts = path.split('.').map(str::parse::<u64>);
        let mut number = 0;
        while let Some(run) = parts.next() {
            let (run, index) = (run.ok()?, parts.next()?.ok()?);
            number = match run {
                // The short form of a name that would be too long.
                0 => index,
                run => *self.get(number)?.children.as_ref()?.by_run.get(run)?.get(index)?,
            };
        }
        // One spelling for each.
        self.get(number)
            .filter(|found| found.id == *id)
            .map(|found| found.number)
    }

    /// The execution of that name.
    pub fn find(&self, id: &ExecutionId) -> Option<&Arc<ExecutionState>> {
        self.get(self.number_of(id)?)
    }

    /// The executions above one, the nearest first.
    pub fn above(&self, number: u64) -> impl Iterator<Item = &Arc<ExecutionState>> {
        let parent = |state: &&Arc<ExecutionState>| self.get(state.parent()?);
        std::iter::successors(self.get(number).and_then(|state| self.get(state.parent()?)), parent)
    }

    /// The execution with everything below it, each before its children.
    pub fn subtree(&self, number: u64) -> impl Iterator<Item = &Arc<ExecutionState>> {
        let mut left = vec![number];
        std::iter::from_fn(move || {
            let state = self.get(left.pop()?)?;
            if let Some(children) = &state.children {
                left.extend(children.numbers());
            }
            Some(state)
        })
    }

    /// Where an execution stands: by itself if it has come to an end of its own, else as the nearest one above it that has
    /// ended makes it. `None` if there is none of that number.
    pub fn status(&self, number: u64) -> Option<Status> {
        let own = self.get(number)?.status;
        if matches!(own, Status::Failed | Status::Cancelled) {
            return Some(own);
        }
        let ended = self.above(number).find_map(|state| match state.status {
            Status::Failed => Some(Status::Suspended),
            Status::Cancelled => Some(Status::Cancelled),
            _ => None,
        });
        Some(ended.unwrap_or(own))
    }

    /// The highest execution from this one upwards that carries an end: the one that is to be resumed.
    pub fn ended_at(&self, number: u64) -> Option<&Arc<ExecutionState>> {
        let ended = |state: &&Arc<ExecutionState>| matches!(state.status, Status::Failed | Status::Cancelled);
        self.get(number)
            .into_iter()
            .chain(self.above(number))
            .filter(ended)
            .last()
    }

    /// Whether an execution, or one above it, was cancelled: nothing in it ever goes on, whatever is resumed.
    pub fn is_cancelled(&self, number: u64) -> bool {
        let mut upwards = self.get(number).into_iter().chain(self.above(number));
        upwards.any(|state| state.status == Status::Cancelled)
    }

    /// Whether `number` is `ancestor` or below it.
    pub fn is_within(&self, number: u64, ancestor: u64) -> bool {
        number == ancestor || self.above(number).any(|state| state.number == ancestor)
    }

    /// The fence of its owner; 0 if it has none.
    pub fn fence(&self) -> u64 {
        self.owner.as_ref().map_or(0, |owner| owner.fence)
    }

    /// Whether something is left to do for it that nobody has to ask for: it runs, or separate stores have still to be given
    /// something. A process that starts takes up these.
    pub fn is_unsettled(&self) -> bool {
        let runs = self.root_state().is_some_and(|root| root.status == Status::Running);
        runs || !self.owed.is_empty()
    }

    /// What a list says of the tree.
    pub fn summary(&self) -> Option<ExecutionSummary> {
        let root = self.root_state()?;
        Some(ExecutionSummary {
            id: root.id.clone(),
            main_execution_id: root.id.clone(),
            workflow: root.workflow.clone(),
            status: root.status,
            version: self.version,
            created_at: root.created_at,
            updated_at: self.updated_at,
            children: self.used.children,
            unsettled: self.is_unsettled(),
        })
    }

    /// What a list says of one of its executions.
    pub fn summary_of(&self, number: u64) -> Option<ExecutionSummary> {
        if number == 0 {
            return self.summary();
        }
        let state = self.get(number)?;
        let children = state.children.as_ref();
        Some(ExecutionSummary {
            id: state.id.clone(),
            main_execution_id: self.root.clone(),
            workflow: state.workflow.clone(),
            status: self.status(number)?,
            version: self.version,
            created_at: state.created_at,
            updated_at: state.updated_at,
            children: children.map_or(0, |children| children.by_run.values().map(|run| run.len() as u64).sum()),
            unsettled: false,
        })
    }

    /// The registries that are needed to go on with the tree, each once.
    pub fn needed_registries(&self) -> Vec<RegistryId> {
        let mut seen = std::collections::HashSet::new();
        let of_executions = self.executions.values().flat_map(|state| {
            let runs = state.runs.values().map(|run| &run.registry);
            std::iter::once(&state.registry).chain(runs)
        });
        let frames = self.work.stack.iter().map(|frame| &frame.registry);
        let needed = of_executions.chain(frames).filter(|id| seen.insert(*id));
        needed.cloned().collect()
    }
}
