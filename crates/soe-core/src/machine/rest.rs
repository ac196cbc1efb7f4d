//! Waking and resting: an execution rests when nothing is in flight in it and below it, and nothing is left to do for it.

use soe_backends::{EventKind, ExecutionChange, Status};

use super::transaction::{Applied, Transaction};

impl Transaction<'_> {
    /// Makes a resting execution run, and those above it.
    pub(super) fn wake(&mut self) -> Applied {
        let here = self.here;
        while !matches!(
            self.state().status,
            Status::Running | Status::Failed | Status::Cancelled
        ) {
            self.change(ExecutionChange::Status {
                status: Status::Running,
                at: self.at,
                failure: None,
            })?;
            match self.state().parent() {
                Some(parent) => self.enter(parent)?,
                None => break,
            }
        }
        if self.here != here {
            self.enter(here)?;
        }
        Ok(())
    }

    /// At the end of an event: what was touched may have come to rest, and what is above it then.
    pub(super) fn rest(&mut self) -> Applied {
        let mut left = std::mem::take(&mut self.touched);
        left.sort_unstable();
        left.dedup();
        let on_list = match left.is_empty() {
            true => Default::default(),
            false => self.on_work_list(),
        };
        while let Some(execution) = left.pop() {
            self.enter(execution)?;
            let state = self.state();
            let is_idle = state.runs.is_empty() && state.active_children() == 0;
            if !is_idle || !self.is_running() || on_list.contains(&execution) {
                continue;
            }
            let parent = state.parent();
            self.change(ExecutionChange::Status {
                status: Status::Rested,
                at: self.at,
                failure: None,
            })?;
            self.event(EventKind::ExecutionRested {});
            if let Some(parent) = parent {
                self.leave_to(parent)?;
                left.push(parent);
            }
        }
        Ok(())
    }

    /// What no signal followed reaches the parent when the child rests.
    fn leave_to(&mut self, parent: u64) -> Applied {
        let state = self.state();
        if state.unsent.is_empty() && state.sent == state.context.operational.tree {
            return Ok(());
        }
        let delivery = self.delivery()?;
        self.enter(parent)?;
        if let Some((limit, text)) = self.too_much(&delivery.updates) {
            self.fail_for_limit(limit, text)?;
            return self.keep_for_later(&delivery.into());
        }
        self.take_values(&delivery)
    }
}
