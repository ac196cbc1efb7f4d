//! What has still to be done for events that were begun: the work list of a tree.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::state::Batch;
use crate::{RegistryId, TreeTotals, Value};

/// What has still to be done for events that were begun: an event is worked off in one commit if it is short, else in a chain of
/// them. Mostly empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Batches whose listeners are being visited, the innermost last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Frame>,
    /// What children have for their parents, oldest first. It is taken when the stack is empty.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    pub deliveries: VecDeque<Arc<Delivery>>,
    /// Runs that have children to create, oldest first. They go on when there are no deliveries.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    pub spawns: VecDeque<Spawn>,
    /// Batches from outside that were accepted and wait for a depth-first tree to be idle, oldest first.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    pub accepted: VecDeque<Accepted>,
}

impl Work {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.stack.is_empty() && self.deliveries.is_empty() && self.spawns.is_empty() && self.accepted.is_empty()
    }
}

/// A batch whose listeners are being visited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// The execution that it was broadcast in.
    #[serde(default)]
    pub execution: u64,
    /// The batch.
    pub signals: Batch,
    /// The registry in which its listeners were looked up.
    pub registry: RegistryId,
    /// The first listener, in the order of the file, that was not visited yet.
    pub next: usize,
    /// What comes when the batch and all that followed from it is worked off, in a depth-first tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Box<Then>>,
}

/// What comes when a batch and all that followed from it is worked off, in a depth-first tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Then {
    /// These signals go to the parent, which reacts to them before the execution goes on.
    Deliver(Batch),
    /// A run goes on to its next child, or is over.
    Spawn {
        /// The number of the run.
        run: u64,
    },
}

/// What a child has for its parent: values and signals travel together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The child.
    pub child: u64,
    /// Signals that are passed on, as one batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals: Option<Batch>,
    /// Values for fields of the parent, oldest first. Each is delivered once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<(Arc<str>, Value)>,
    /// What the child and its own children have used since the last delivery.
    #[serde(default)]
    pub used: TreeTotals,
    /// Why the child has failed or was cancelled, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
}

/// What an execution and those below it had on the work list when it failed: it is put back when the execution is resumed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stopped {
    /// Batches whose listeners were being visited, the innermost last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Frame>,
    /// Deliveries that were not taken, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<Arc<Delivery>>,
    /// Batches that were not broadcast, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
}

impl Stopped {
    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        self.stack.is_empty() && self.deliveries.is_empty() && self.accepted.is_empty()
    }
}

/// A run that has children to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawn {
    /// The execution of the run.
    pub execution: u64,
    /// The number of the run.
    pub run: u64,
}

/// A batch from outside that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The execution that it is for.
    pub execution: u64,
    /// The batch.
    pub signals: Batch,
}

/// What a commit leaves of the work list. Only what changed of the stack is said, so that a deep one costs nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkChange {
    /// How many frames of the stack stay as they are; the others go.
    pub kept: usize,
    /// The frames on top of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Frame>,
    /// How many of the oldest deliveries were taken.
    #[serde(default)]
    pub delivered: usize,
    /// The deliveries behind the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<Arc<Delivery>>,
    /// The runs that have children to create, if they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawns: Option<Vec<Spawn>>,
    /// How many of the oldest batches were taken.
    #[serde(default)]
    pub taken: usize,
    /// The batches behind the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
}
