//! What an onlooker knows who sees all that is committed and all that is performed: what may happen again, and what may not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};
use soe_backends::{Change, Commit, DialogueStep, ExecutionId, Told, Turn};

use crate::sim::flow::Name;
use crate::trees::run::together;

/// What is performed for a run, and under which number: its idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// An attempt of a tool node or a custom node.
    Attempt(u64, u32),
    /// An attempt of an agent's call of a tool.
    Call(u64, u32, u32),
    /// A request to an LLM.
    Request(u64, u32),
    /// The creation of children.
    Children(u64, u32),
}

impl Key {
    pub(super) fn run(self) -> u64 {
        let (Key::Attempt(run, _) | Key::Call(run, ..) | Key::Request(run, _) | Key::Children(run, _)) = self;
        run
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has to be performed, or is.
    Open,
    /// Who performed it is lost, or doesn't want it any more.
    Lost,
    /// What came of it is committed.
    Done,
}

/// A run, by names that don't depend on the order of events.
#[derive(Debug)]
pub(super) struct Dispatched {
    pub(super) node: Name,
    /// How many runs of the node there were before.
    pub(super) before: u64,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) runs: BTreeMap<(ExecutionId, u64), Dispatched>,
    by_node: BTreeMap<(ExecutionId, Name), u64>,
    effects: BTreeMap<(ExecutionId, Key), (Stage, String)>,
    /// Messages as they were first on their way.
    told: BTreeMap<(ExecutionId, u64), Arc<Told>>,
    /// The last message of each child that its parent has applied.
    received: BTreeMap<ExecutionId, u64>,
    /// The keys of all turns that were committed.
    pub(super) turns: BTreeSet<Arc<str>>,
    /// By run that asks an LLM: its requests, those that were lost not counted, and the most of them that there ever were.
    asked: BTreeMap<(ExecutionId, u64), (u32, u32)>,
    /// Requests that were made, or were to be made, again, and so counted again.
    pub(super) repeated: BTreeMap<ExecutionId, u64>,
    /// Everything that was committed to be performed.
    pub(super) emitted: u64,
}

impl Ledger {
    pub(super) fn committed(&mut self, commit: &Commit) -> Result<()> {
        let id = &commit.execution;
        let mut ridden = commit.turns.iter().flat_map(|turns| &turns.turns);
        ridden.try_for_each(|turn| self.said(turn))?;
        for change in &commit.changes {
            match change {
                Change::Dispatched(run) => {
                    let before = self.by_node.entry((id.clone(), run.node.clone())).or_default();
                    let dispatched = Dispatched {
                        node: run.node.clone(),
                        before: *before,
                    };
                    *before += 1;
                    let known = self.runs.insert((id.clone(), run.number), dispatched);
                    ensure!(known.is_none(), "run {} of {id} was dispatched twice", run.number);
                }
                // A depth-first run that starts children goes on with them when they rest.
                Change::Finished { run } => self.settle_children(id, *run),
                Change::Dialogue { run, step } => self.asked(id, *run, step),
                Change::Turns(turns) => turns.iter().try_for_each(|turn| self.said(turn))?,
                Change::Received { child, message } => {
                    let last = self.received.insert(child.clone(), message.number).unwrap_or(0);
                    let number = message.number;
                    ensure!(
                        number == last + 1,
                        "{id} applied message {number} of {child} after {last}"
                    );
                    let told = self.told.get(&(child.clone(), number));
                    let told = told.ok_or_else(|| anyhow!("{child} never told {number}"))?;
                    together(commit, child, told)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn asked(&mut self, id: &ExecutionId, run: u64, step: &DialogueStep) {
        let (now, most) = self.asked.entry((id.clone(), run)).or_default();
        match step {
            DialogueStep::Lost => *now -= 1,
            DialogueStep::Asked => {
                *now += 1;
                if now <= most {
                    *self.repeated.entry(id.clone()).or_default() += 1;
                }
                *most = (*most).max(*now);
            }
            _ => {}
        }
    }

    fn settle_children(&mut self, id: &ExecutionId, run: u64) {
        let (from, to) = (Key::Children(run, 0), Key::Children(run, u32::MAX));
        for (_, (stage, _)) in self.effects.range_mut((id.clone(), from)..=(id.clone(), to)) {
            *stage = Stage::Done;
        }
    }

    fn said(&mut self, turn: &Turn) -> Result<()> {
        let key = turn.key.clone().ok_or_else(|| anyhow!("{turn:?} has no key"))?;
        ensure!(self.turns.insert(key), "{turn:?} was committed before");
        Ok(())
    }

    /// A message is on its way: the same as ever.
    pub(super) fn tells(&mut self, id: &ExecutionId, message: &Arc<Told>) -> Result<()> {
        let known = self
            .told
            .entry((id.clone(), message.number))
            .or_insert_with(|| message.clone());
        ensure!(
            known == message,
            "{id} tells another message than {known:?}: {message:?}"
        );
        Ok(())
    }

    /// What `key` stands for has to be performed: for the first time, or because it was lost.
    pub(super) fn emitted(&mut self, id: &ExecutionId, key: Key, content: String) -> Result<()> {
        self.emitted += 1;
        let entry = self.effects.get_mut(&(id.clone(), key));
        let Some((stage, first)) = entry else {
            self.effects.insert((id.clone(), key), (Stage::Open, content));
            return Ok(());
        };
        ensure!(*stage != Stage::Open, "{key:?} of {id} is performed twice at a time");
        ensure!(
            *stage != Stage::Done,
            "{key:?} of {id} is performed after its end was committed"
        );
        ensure!(*first == content, "{key:?} of {id} was '{first}', and is '{content}'");
        *stage = Stage::Open;
        Ok(())
    }

    /// What came of it is committed; `again` if it may have to be performed again all the same.
    pub(super) fn answered(&mut self, id: &ExecutionId, key: Key, again: bool) -> Result<()> {
        let entry = self.effects.get_mut(&(id.clone(), key));
        let (stage, _) = entry.ok_or_else(|| anyhow!("{key:?} of {id} was never asked for"))?;
        ensure!(*stage != Stage::Done, "{key:?} of {id} was applied twice");
        *stage = if again { Stage::Lost } else { Stage::Done };
        Ok(())
    }

    pub(super) fn aborted(&mut self, id: &ExecutionId, run: u64) {
        let from = (id.clone(), Key::Attempt(0, 0));
        let of_execution = self.effects.range_mut(from..).take_while(|((of, _), _)| of == id);
        for ((_, key), (stage, _)) in of_execution {
            if key.run() == run && *stage == Stage::Open {
                *stage = Stage::Lost;
            }
        }
    }

    /// The process crashed.
    pub(super) fn crashed(&mut self) {
        for (stage, _) in self.effects.values_mut() {
            if *stage == Stage::Open {
                *stage = Stage::Lost;
            }
        }
    }

    /// What has still to be performed, or to be performed again, for this execution.
    pub(super) fn unanswered(&self, id: &ExecutionId) -> Vec<Key> {
        let of_execution = self.effects.iter().filter(|((of, _), _)| of == id);
        let left = of_execution.filter(|(_, (stage, _))| *stage != Stage::Done);
        left.map(|((_, key), _)| *key).collect()
    }
}
