//! What a crash leaves: states, made of commits alone, and the conversation history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};
use soe_backends::{Commit, ExecutionId, ExecutionState, Turn};

/// A store in memory, which nothing is lost from.
#[derive(Default)]
pub(super) struct Store {
    pub(super) states: BTreeMap<ExecutionId, ExecutionState>,
    /// The turns, in their order; none twice.
    pub(super) turns: Vec<Turn>,
    keys: BTreeSet<Arc<str>>,
}

impl Store {
    /// Stores commits of one execution, all of them or none.
    pub(super) fn commit(&mut self, id: &ExecutionId, commits: &[Commit]) -> Result<()> {
        if let Some(state) = self.states.get_mut(id) {
            state.fits(commits)?;
            for commit in commits {
                ensure!(
                    commit.events.first().is_none_or(|event| event.seq == state.next_event),
                    "the events of {id} have a gap"
                );
                state.apply(commit)?;
            }
        } else {
            let [first] = commits else {
                return Err(anyhow!("{id} begins with {} commits", commits.len()));
            };
            self.states.insert(id.clone(), ExecutionState::create(first)?);
        }
        for turns in commits.iter().filter_map(|commit| commit.turns.as_ref()) {
            self.append(&turns.turns)?;
        }
        Ok(())
    }

    /// Appends the turns that aren't there yet.
    pub(super) fn append(&mut self, turns: &[Turn]) -> Result<()> {
        for turn in turns {
            let key = turn.key.clone().ok_or_else(|| anyhow!("{turn:?} has no key"))?;
            if self.keys.insert(key) {
                self.turns.push(turn.clone());
            }
        }
        Ok(())
    }

    pub(super) fn has_turn(&self, turn: &Turn) -> bool {
        turn.key.as_ref().is_some_and(|key| self.keys.contains(key))
    }

    pub(super) fn state(&self, id: &ExecutionId) -> Result<&ExecutionState> {
        self.states.get(id).ok_or_else(|| anyhow!("{id} is not stored"))
    }

    /// The state as another process reads it.
    pub(super) fn read(&self, id: &ExecutionId) -> Result<ExecutionState> {
        let state = self.state(id)?;
        let stored = serde_json::to_string(state)?;
        let read: ExecutionState = serde_json::from_str(&stored)?;
        ensure!(read == *state, "{id} is another after it was stored:\n{stored}");
        Ok(read)
    }
}
