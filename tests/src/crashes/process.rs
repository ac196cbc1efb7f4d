//! What a crash takes: coordinators with their machines, tasks, messages and ends on their way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use soe_backends::{ExecutionId, Status, Told};
use soe_core::machine::{Descend, Heard, Input, Machine, Spawn};

/// A process that runs executions.
#[derive(Default)]
pub(super) struct Process {
    /// Who runs what.
    pub(super) live: BTreeMap<ExecutionId, Coordinator>,
    /// Who brings the messages of which coordinator, by its number.
    pub(super) relays: BTreeMap<u64, Relay>,
    pub(super) tasks: Vec<Task>,
    /// What has still to be taken up, with the status that it and those above it had when the process began.
    pub(super) left: Vec<ExecutionId>,
    /// How everything stood when the process began.
    pub(super) found: BTreeMap<ExecutionId, Status>,
}

/// Who runs an execution, as long as it is active.
pub(super) struct Coordinator {
    pub(super) machine: Machine,
    /// No other has it.
    pub(super) number: u64,
    /// The machine wants to go on by itself.
    pub(super) more: bool,
    /// It goes on with what another coordinator has begun.
    pub(super) taken_up: bool,
    /// It was taken up because something was left to do.
    pub(super) recovered: bool,
    /// What goes down, one after the other.
    pub(super) descents: VecDeque<(Descend, Vec<(ExecutionId, Heard)>)>,
    /// The relays that wait until a message is dealt with, by child and number.
    pub(super) answers: BTreeMap<(ExecutionId, u64), u64>,
}

impl Coordinator {
    /// Whether what became of the execution has still to go down, or to be heard.
    pub(super) fn is_descending(&self) -> bool {
        let family = self.machine.state().family.as_ref();
        family.is_some_and(|family| family.descending)
    }

    fn is_running(&self) -> bool {
        self.machine.state().status == Status::Running
    }

    /// Whether it ends when nothing arrives any more.
    pub(super) fn is_idle(&self) -> bool {
        let unheard = self.recovered && self.is_descending();
        !self.is_running() && self.descents.is_empty() && !self.more && !unheard
    }

    /// Whether an acknowledgement may have been the last thing that it had to do.
    pub(super) fn may_settle(&self) -> bool {
        self.descents.is_empty() && !self.is_running() && self.is_descending()
    }
}

/// Brings messages of an execution to its parent, one after the other.
pub(super) struct Relay {
    pub(super) child: ExecutionId,
    pub(super) parent: ExecutionId,
    pub(super) queue: VecDeque<Arc<Told>>,
    /// The first is brought, and not dealt with yet.
    pub(super) waits: bool,
}

/// Something that is performed for a coordinator.
pub(super) struct Task {
    pub(super) of: ExecutionId,
    /// The coordinator's number: nobody else wants to hear of it.
    pub(super) by: u64,
    pub(super) what: What,
}

pub(super) enum What {
    /// An answer that is on its way, of something that is performed for this run.
    Answer { run: u64, input: Input },
    /// Children that have to be created.
    Spawn(Spawn),
    /// The parent has dealt with a message.
    Acknowledged(u64),
}

impl What {
    pub(super) fn is_of(&self, aborted: u64) -> bool {
        match self {
            What::Answer { run, .. } => *run == aborted,
            What::Spawn(spawn) => spawn.run == aborted,
            What::Acknowledged(_) => false,
        }
    }
}
