//! Where the executions of a tree stand by themselves, and what becomes of what they had still to do.

use std::collections::HashSet;

use super::numbering::Numbered;
use super::old::{ChildStatus, State};
use super::work::Pending;
use crate::Status;

/// What becomes of what an execution had still to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    GoesOn,
    /// It waits for this execution, which has failed, to be resumed.
    Waits(u64),
    /// It, or one above it, is cancelled.
    Over,
}

pub(super) struct Levels {
    status: Vec<Status>,
    fate: Vec<Fate>,
    revived: HashSet<u64>,
}

impl Levels {
    pub(super) fn of(tree: &Numbered, pending: &Pending) -> Self {
        let failed = tree.old.iter().zip(0..).filter(|(old, _)| old.status == Status::Failed);
        let revived = failed.filter(|(old, number)| revived(tree, pending, old, *number));
        let revived: HashSet<u64> = revived.map(|(_, number)| number).collect();
        let own = |(old, number): (&State, u64)| match old.status {
            Status::Suspended => Status::Running,
            Status::Failed if revived.contains(&number) => Status::Running,
            status => status,
        };
        let status = tree.old.iter().zip(0..).map(own).collect();
        let mut levels = Self {
            status,
            fate: vec![Fate::GoesOn; tree.old.len()],
            revived,
        };
        levels.settle(tree, pending);
        levels.decide(tree);
        levels
    }

    pub(super) fn status(&self, number: u64) -> Status {
        self.status[number as usize]
    }

    pub(super) fn fate(&self, number: u64) -> Fate {
        self.fate[number as usize]
    }

    /// Whether it had failed, and had still to hear that it goes on.
    pub(super) fn was_revived(&self, number: u64) -> bool {
        self.revived.contains(&number)
    }

    /// What has something to do runs; what has nothing, in it or in its children, rests.
    fn settle(&mut self, tree: &Numbered, pending: &Pending) {
        let mut busy: HashSet<u64> = pending.signals.keys().copied().collect();
        busy.extend(
            pending
                .deliveries
                .iter()
                .filter_map(|delivery| tree.parent(delivery.child)),
        );
        for number in tree.upwards() {
            let old = &tree.old[number as usize];
            let to_do = !old.runs.is_empty() || !old.stack.is_empty() || !old.pending.is_empty();
            let to_do = to_do || busy.contains(&number);
            let to_do = to_do
                || tree
                    .children(number)
                    .iter()
                    .any(|child| self.status(*child) == Status::Running);
            let status = &mut self.status[number as usize];
            match (*status, to_do) {
                (Status::Running, false) => *status = Status::Rested,
                (Status::Rested, true) => *status = Status::Running,
                _ => {}
            }
        }
    }

    fn decide(&mut self, tree: &Numbered) {
        for number in tree.upwards().into_iter().rev() {
            let above = tree.parent(number).map_or(Fate::GoesOn, |parent| self.fate(parent));
            self.fate[number as usize] = match self.status(number) {
                _ if above == Fate::Over => Fate::Over,
                Status::Cancelled => Fate::Over,
                Status::Failed => Fate::Waits(number),
                _ => above,
            };
        }
    }
}

/// Whether an execution that has failed goes on: its parent was resumed with it, but it hasn't heard of that.
fn revived(tree: &Numbered, pending: &Pending, old: &State, number: u64) -> bool {
    let Some(parent) = tree.parent(number) else {
        return false;
    };
    let above = &tree.old[parent as usize];
    let active = above
        .child(&old.id)
        .is_some_and(|child| child.status == ChildStatus::Active);
    active && above.status != Status::Cancelled && !pending.tells_error(number)
}
