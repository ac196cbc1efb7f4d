//! From format 1 to trees. In format 1 each execution of a tree had a state, a version and commits of its own, and told its
//! parent what had happened by messages. A store that finds executions in that form makes one tree of them, with [`tree`].
//!
//! * What children have told and parents haven't taken is delivered: it is on the work list of the tree, in order, each once.
//! * Runs in flight go on as after a crash, cascades where they were.
//! * What has failed or was cancelled carries its own mark; what was suspended below it is what it was before.
//! * The fence is above those of all executions, so whoever ran one of them has lost the tree.
//!
//! Identities and context schema were in their stores only: whoever converts a tree puts them into
//! [`TreeState::definitions`]. The commits from before aren't the tree's: it can't be loaded as it was before its
//! conversion.

mod changes;
mod fold;
mod levels;
mod numbering;
mod old;
mod tree;
mod work;

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde_json::Value as Json;

use self::old::{State, Written};
use crate::{Event, EventKind, ExecutionId, Timestamp, TreeState, snapshots};

/// The format that is converted.
const FORMAT: u32 = 1;

/// Why executions can't become a tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A state can't be read.
    #[error("a state of format 1 can't be read: {0}")]
    State(#[from] serde_json::Error),
    /// A commit can't be read, or doesn't fit the state.
    #[error("commit {version} doesn't fit the state: {why}")]
    Commit {
        /// The version that it makes.
        version: u64,
        /// What is wrong.
        why: String,
    },
    /// There is no root, or more than one.
    #[error("{0} of the executions are roots, a tree has one")]
    Roots(usize),
    /// An execution is missing, or doesn't know its child.
    #[error("the parent of execution {0} is missing, or doesn't know of it")]
    Orphan(ExecutionId),
}

/// The tree that executions of format 1 make. Each of `old` is the state of one of them, as it was stored:
/// `{"state": {...}, "snapshots": [...]}`. All executions of the tree must be there; their order doesn't matter.
///
/// # Errors
/// One of them can't be read, or one is missing.
pub fn tree(old: Vec<Json>) -> Result<TreeState, ConvertError> {
    let states = old.into_iter().map(Execution::of_json);
    tree_of(states.collect::<Result<_, _>>()?)
}

/// As [`tree`], of states that were read or made of their commits.
///
/// # Errors
/// An execution of the tree is missing.
pub fn tree_of(executions: Vec<Execution>) -> Result<TreeState, ConvertError> {
    let states = executions.into_iter().map(|execution| execution.0);
    tree::convert(states.collect())
}

/// The state of an execution in format 1: for stores that kept commits.
#[derive(Clone, Debug)]
pub struct Execution(State);

impl Execution {
    /// Reads a state: `{"state": {...}, "snapshots": [...]}`.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read(json: &[u8]) -> Result<Self, ConvertError> {
        let json = crate::stored::read(json)?;
        Self::of_json(json)
    }

    fn of_json(json: Json) -> Result<Self, ConvertError> {
        let Written { mut state, snapshots } = serde_json::from_value(json)?;
        if state.format != FORMAT {
            let message = format!("it has format {}, not {FORMAT}", state.format);
            return Err(serde_json::Error::custom(message).into());
        }
        state.snapshots = snapshots::read(snapshots, &state.context)?;
        Ok(Self(state))
    }

    /// The state that the first commit of an execution made. `changes` is the JSON of its changes, `events` the number of its
    /// events.
    ///
    /// # Errors
    /// It is damaged, or no first commit.
    pub fn create(id: &ExecutionId, at: Timestamp, changes: &[u8], events: u64) -> Result<Self, ConvertError> {
        fold::create(id, at, changes, events).map(Self)
    }

    /// Applies the commit that follows.
    ///
    /// # Errors
    /// It is damaged, or doesn't fit; the state must not be used any more.
    pub fn apply(&mut self, at: Timestamp, changes: &[u8], events: u64) -> Result<(), ConvertError> {
        fold::apply(&mut self.0, at, changes, events)
    }

    /// Its name.
    pub fn id(&self) -> &ExecutionId {
        &self.0.id
    }

    /// The root of its tree.
    pub fn root(&self) -> &ExecutionId {
        self.0
            .context
            .operational
            .main_execution_id
            .as_ref()
            .unwrap_or(&self.0.id)
    }

    /// The number of its commits.
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// The number of its events.
    pub fn events(&self) -> u64 {
        self.0.next_event
    }
}

/// An event of format 1, of which `kind` is `{"event": "...", "data": {...}}`; `None` if there is none of its kind any more.
///
/// # Errors
/// It is damaged.
pub fn event_kind(kind: Json) -> Result<Option<EventKind>, serde_json::Error> {
    const GONE: [&str; 2] = ["delivery_discarded", "execution_suspended"];
    match kind.get("event").and_then(Json::as_str) {
        Some(name) if GONE.contains(&name) => Ok(None),
        _ => serde_json::from_value(kind).map(Some),
    }
}

/// The events of a tree in one order: those of each of its executions in theirs, in the order of their times. They are numbered
/// so that the last has the number before `next`: [`TreeState::next_event`] of a converted tree.
pub fn events(of_executions: Vec<(ExecutionId, Vec<(Timestamp, EventKind)>)>, next: u64) -> Vec<Event> {
    let mut ordered: BTreeMap<(Timestamp, usize, usize), (ExecutionId, EventKind)> = BTreeMap::new();
    for (number, (execution, events)) in of_executions.into_iter().enumerate() {
        let mut latest = Timestamp::from_micros(0);
        for (place, (time, kind)) in events.into_iter().enumerate() {
            // A clock that was set back doesn't turn their order round.
            latest = latest.max(time);
            ordered.insert((latest, number, place), (execution.clone(), kind));
        }
    }
    let first = next.saturating_sub(ordered.len() as u64);
    let mut events = Vec::with_capacity(ordered.len());
    for (seq, ((time, ..), (execution, kind))) in (first..).zip(ordered) {
        events.push(Event {
            seq,
            time,
            execution,
            kind,
        });
    }
    events
}

#[cfg(test)]
mod tests;
