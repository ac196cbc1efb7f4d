//! An execution's children and its parent: what they know of each other, and the messages between them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::state::Batch;
use crate::{ExecutionId, TreeTotals, Value};

/// What an execution knows of its children, and what it has to tell its parent. Most executions have neither.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Family {
    /// Its children.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub children: BTreeMap<ExecutionId, Child>,
    /// How many of them are active.
    pub active: u64,
    /// Whether it has failed, was suspended, cancelled or resumed, and that has still to go down to its children; or has still to
    /// be heard by its parent, where that takes it for resting.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub descending: bool,
    /// Values that wait for the next message to the parent, with their fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unsent: Vec<(Arc<str>, Value)>,
    /// Messages to the parent that it hasn't acknowledged, oldest first.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    pub outbox: VecDeque<Arc<Told>>,
    /// The number of messages to the parent so far.
    pub told: u64,
    /// Messages of children that wait: for the cascade in progress, or for the execution to be resumed.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    pub inbox: VecDeque<Arc<Incoming>>,
}

/// A child, as its parent knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// The run that started it.
    pub run: u64,
    /// The node of that run.
    pub node: Arc<str>,
    /// The signal that the parent broadcasts when the child has failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_signal: Option<Arc<str>>,
    /// Where it stands, as far as it has told.
    pub status: ChildStatus,
    /// The number of the last message that was applied.
    pub received: u64,
    /// What it and its own children have used, as far as it has told.
    #[serde(default)]
    pub totals: TreeTotals,
}

/// Where a child stands, as far as it has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChildStatus {
    /// Something is in flight in it.
    Active,
    /// Nothing is in flight in it.
    Rested,
    /// It has failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// A message from a child to its parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Its number, from 1 without gaps.
    pub number: u64,
    /// Signals that are passed on, as one batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<Batch>,
    /// Values for fields of the parent, oldest first. Each is told once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<(Arc<str>, Value)>,
    /// Where the child stands now, if that is another than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ChildStatus>,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
    /// What the child and its own children have used.
    #[serde(default)]
    pub totals: TreeTotals,
}

/// A message of a child that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incoming {
    /// The child.
    pub child: ExecutionId,
    /// What it told.
    pub message: Arc<Told>,
}

/// Children that a run starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The run.
    pub run: u64,
    /// Its node.
    pub node: Arc<str>,
    /// The signal to broadcast when one has failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_signal: Option<Arc<str>>,
    /// Their ids.
    pub children: Vec<ExecutionId>,
}

/// What a child tells, apart from what its state has ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tell {
    /// Signals that are passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<Batch>,
    /// Where the child stands now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ChildStatus>,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
    /// Whether this completes the message before, made in the same commit, instead of being one of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joined: bool,
}

impl Family {
    pub(crate) fn start(&mut self, started: &Started) {
        for id in &started.children {
            let child = Child {
                run: started.run,
                node: started.node.clone(),
                failure_signal: started.failure_signal.clone(),
                status: ChildStatus::Active,
                received: 0,
                totals: TreeTotals::default(),
            };
            self.children.insert(id.clone(), child);
            self.active += 1;
        }
    }

    pub(crate) fn tell(&mut self, tell: &Tell, totals: TreeTotals) {
        let mut updates = std::mem::take(&mut self.unsent);
        match self.outbox.back_mut() {
            Some(last) if tell.joined => {
                let last = Arc::make_mut(last);
                last.updates.append(&mut updates);
                last.status = tell.status.or(last.status);
                last.error = tell.error.clone().or(last.error.take());
                last.totals = totals;
            }
            _ => {
                self.told += 1;
                self.outbox.push_back(Arc::new(Told {
                    number: self.told,
                    signals: tell.signals.clone(),
                    updates,
                    status: tell.status,
                    error: tell.error.clone(),
                    totals,
                }));
            }
        }
    }

    pub(crate) fn acknowledged(&mut self, number: u64) {
        while self.outbox.front().is_some_and(|message| message.number <= number) {
            self.outbox.pop_front();
        }
    }

    /// A child is resumed: it is active until it tells otherwise.
    pub(crate) fn revive(&mut self, id: &ExecutionId) -> Option<()> {
        let child = self.children.get_mut(id)?;
        self.active += u64::from(child.status != ChildStatus::Active);
        child.status = ChildStatus::Active;
        Some(())
    }

    /// Takes note of a message; gives what the child used since the last one. `None` if there is no such child.
    pub(crate) fn received(&mut self, id: &ExecutionId, message: &Received) -> Option<(TreeTotals, TreeTotals)> {
        let child = self.children.get_mut(id)?;
        child.received = message.number;
        if let Some(status) = message.status {
            self.active -= u64::from(child.status == ChildStatus::Active && status != ChildStatus::Active);
            self.active += u64::from(child.status != ChildStatus::Active && status == ChildStatus::Active);
            child.status = status;
        }
        Some((std::mem::replace(&mut child.totals, message.totals), message.totals))
    }
}

/// A message of a child, as far as its parent keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Its number.
    pub number: u64,
    /// Where the child stands now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ChildStatus>,
    /// What the child and its own children have used.
    pub totals: TreeTotals,
}
