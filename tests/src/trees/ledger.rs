//! What an onlooker knows who sees all that is committed and all that is performed: what may happen again, and what may not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};
use soe_backends::{Change, Commit, DialogueStep, EventKind, ExecutionChange, TreeState};

use super::model::Task;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is performed.
    Open,
    /// Who performed it is lost, or doesn't want it any more.
    Lost,
    /// What came of it is committed.
    Done,
}

/// The onlooker.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The names of executions and of runs.
    paths: Vec<String>,
    runs: HashMap<(u64, u64), String>,
    by_node: HashMap<(u64, Arc<str>), u64>,
    /// How often a run has failed, as committed.
    pub(super) failed: HashMap<(u64, u64), u32>,
    effects: HashMap<(u64, Task), (Stage, String)>,
    /// By execution, the requests that were lost and made again.
    pub lost: BTreeMap<u64, u64>,
    /// The messages that were taken, and whether they were refused.
    pub(super) taken: BTreeMap<Arc<str>, bool>,
    /// Whether the model was ever ahead of the machine.
    pub(super) was_ahead: bool,
    /// The keys of all turns that were committed, in order.
    pub(super) turns: Vec<Arc<str>>,
    keys: BTreeSet<Arc<str>>,
}

impl Ledger {
    /// A commit is stored. `state` is what it makes.
    pub(super) fn committed(&mut self, commit: &Commit, state: &TreeState) -> Result<()> {
        for change in &commit.changes {
            match change {
                Change::Created(_) => self.paths.push("x".to_owned()),
                Change::Started(genesis) => {
                    let (origin, place) = genesis.origin.as_ref().ok_or_else(|| anyhow!("a child of nobody"))?;
                    let started = self.run(origin.parent, origin.run)?;
                    let path = format!("{started}.{place}");
                    self.paths.push(path);
                }
                Change::In { execution, change } => self.changed(*execution, change)?,
                _ => {}
            }
        }
        let owed = commit.changes.iter().filter_map(|change| match change {
            Change::Owed(owed) => Some(&owed.turns),
            _ => None,
        });
        for turn in owed.flatten().chain(&commit.turns) {
            let key = turn.key.clone().ok_or_else(|| anyhow!("{turn:?} has no key"))?;
            ensure!(self.keys.insert(key.clone()), "{turn:?} was committed before");
            self.turns.push(key);
        }
        for event in &commit.events {
            if let EventKind::MessageTaken { message, refused } = &event.kind {
                let before = self.taken.insert(message.clone(), refused.is_some());
                ensure!(before.is_none(), "message {message} was taken twice");
            }
        }
        ensure!(
            self.paths.len() == state.executions.len(),
            "an execution was not created by a commit"
        );
        Ok(())
    }

    fn changed(&mut self, execution: u64, change: &ExecutionChange) -> Result<()> {
        match change {
            ExecutionChange::Routed { node } => *self.by_node.entry((execution, node.clone())).or_default() += 1,
            ExecutionChange::Dispatched(run) => {
                let before = self.by_node.entry((execution, run.node.clone())).or_default();
                let path = &self.paths[execution as usize];
                let name = format!("{path}/{}{before}", run.node);
                *before += 1;
                let known = self.runs.insert((execution, run.number), name);
                ensure!(
                    known.is_none(),
                    "run {} of {execution} was dispatched twice",
                    run.number
                );
            }
            ExecutionChange::Dialogue {
                step: DialogueStep::Lost,
                ..
            } => *self.lost.entry(execution).or_default() += 1,
            _ => {}
        }
        Ok(())
    }

    /// The name of an execution.
    pub fn path(&self, execution: u64) -> &str {
        &self.paths[execution as usize]
    }

    /// The name of a run.
    pub(super) fn run(&self, execution: u64, run: u64) -> Result<&str> {
        let name = self.runs.get(&(execution, run));
        name.map(String::as_str)
            .ok_or_else(|| anyhow!("run {run} of {execution} was never dispatched"))
    }

    /// What `task` stands for is performed: for the first time, or because it was lost.
    pub(super) fn performed(&mut self, execution: u64, task: Task, content: String) -> Result<()> {
        let Some((stage, first)) = self.effects.get_mut(&(execution, task)) else {
            self.effects.insert((execution, task), (Stage::Open, content));
            return Ok(());
        };
        // The time until the next child comes for each of them.
        let again = matches!(task, Task::Due(_));
        ensure!(
            *stage != Stage::Open,
            "{task:?} of {execution} is performed twice at a time"
        );
        ensure!(
            *stage != Stage::Done || again,
            "{task:?} of {execution} is performed after its end was committed"
        );
        ensure!(
            *first == content || again,
            "{task:?} of {execution} was '{first}', and is '{content}'"
        );
        *stage = Stage::Open;
        Ok(())
    }

    /// What came of it is committed; `again` if it may have to be performed again all the same.
    pub(super) fn answered(&mut self, execution: u64, task: Task, again: bool) -> Result<()> {
        let effect = self.effects.get_mut(&(execution, task));
        let (stage, _) = effect.ok_or_else(|| anyhow!("{task:?} of {execution} was never asked for"))?;
        ensure!(*stage != Stage::Done, "{task:?} of {execution} was applied twice");
        *stage = if again { Stage::Lost } else { Stage::Done };
        Ok(())
    }

    /// Nobody wants any more what is in flight below.
    pub(super) fn aborted(&mut self, is_below: impl Fn(u64) -> bool) {
        for ((execution, _), (stage, _)) in &mut self.effects {
            if *stage == Stage::Open && is_below(*execution) {
                *stage = Stage::Lost;
            }
        }
    }

    /// What is in flight, and nobody has answered.
    pub(super) fn open(&self) -> usize {
        self.effects.values().filter(|(stage, _)| *stage == Stage::Open).count()
    }
}
