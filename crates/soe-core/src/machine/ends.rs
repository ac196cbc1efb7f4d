//! Failing and cancelling: one mark on an execution, which holds for all below it.

use std::sync::Arc;

use soe_backends::{Accepted, Delivery, EventKind, ExecutionChange, Failure, Frame, Status, Stopped, TreeState};

use super::Effect;
use super::transaction::{Applied, Transaction};

impl Transaction<'_> {
    pub(super) fn fail_for_limit(&mut self, limit: &'static str, message: String) -> Applied {
        let message = format!("limit {limit} exceeded: {message}");
        self.fail(Failure {
            message,
            node: None,
            limit: Some(limit.into()),
        })
    }

    /// Fails the root: a limit of the whole tree is used up.
    pub(super) fn fail_tree(&mut self, limit: &'static str, message: String) -> Applied {
        let here = std::mem::replace(&mut self.here, 0);
        self.touched.push(0);
        self.fail_for_limit(limit, message)?;
        self.here = here;
        Ok(())
    }

    /// Fails the execution. What it and those below it have in flight and on the work list is kept, to be gone on with when it is
    /// resumed.
    pub(super) fn fail(&mut self, failure: Failure) -> Applied {
        if !self.status().accepts_signals() {
            return Ok(());
        }
        self.wake()?;
        let error: Arc<str> = failure.to_string().into();
        self.event(EventKind::ExecutionFailed { error: error.clone() });
        self.change(ExecutionChange::Status {
            status: Status::Failed,
            at: self.at,
            failure: Some(Arc::new(failure)),
        })?;
        let stopped = self.stop();
        if !stopped.is_empty() {
            self.change(ExecutionChange::Stopped(Some(Arc::new(stopped))))?;
        }
        self.send_end(error)
    }

    /// Cancels the execution, and all below it, for good.
    pub(super) fn cancel(&mut self) -> Applied {
        if self.status() == Status::Cancelled {
            return Ok(());
        }
        let runs: Vec<u64> = self.state().runs.keys().collect();
        self.event(EventKind::ExecutionCancelled {
            aborted_runs: runs.len() as u64,
        });
        let was_failed = self.state().status == Status::Failed;
        self.change(ExecutionChange::Status {
            status: Status::Cancelled,
            at: self.at,
            failure: None,
        })?;
        self.stop();
        self.first.remove(&self.here);
        if self.state().stopped.is_some() {
            self.change(ExecutionChange::Stopped(None))?;
        }
        for run in runs {
            self.finish(run)?;
        }
        // The parent knows of a failure already.
        match was_failed {
            true => Ok(()),
            false => self.send_end("it was cancelled".into()),
        }
    }

    /// Stops what is performed for the execution and those below it, and takes what they have off the work list.
    fn stop(&mut self) -> Stopped {
        self.ended = true;
        let here = self.here;
        let is_below = |tree: &TreeState, execution: u64| tree.is_within(execution, here);
        let tree = &self.machine.state;
        self.machine
            .awaited
            .retain(|(execution, _)| !is_below(tree, *execution));
        self.dispatched.retain(|run| !is_below(tree, run.execution));
        let keeps = |effect: &Effect| !effect.performs_for().is_some_and(|execution| is_below(tree, execution));
        self.effects.retain(keeps);
        self.effects.push(Effect::Abort { execution: here });
        let spawns = self.work.spawns.len();
        self.work.spawns.retain(|spawn| !is_below(tree, spawn.execution));
        self.work.spawns_changed |= spawns != self.work.spawns.len();
        self.work.spawns_before = self.work.spawns_before.min(self.work.spawns.len());
        if self
            .brood
            .as_ref()
            .is_some_and(|brood| is_below(tree, brood.spawn.execution))
        {
            self.brood = None;
        }
        Stopped {
            stack: self.stop_stack(),
            deliveries: self.stop_deliveries(),
            accepted: self.stop_accepted(),
        }
    }

    fn stop_stack(&mut self) -> Vec<Frame> {
        let machine = &mut *self.machine;
        let (tree, here) = (&machine.state, self.here);
        let Some(first) = machine
            .stack
            .iter()
            .position(|cursor| tree.is_within(cursor.execution, here))
        else {
            return Vec::new();
        };
        machine.stack_kept = machine.stack_kept.min(first);
        let (mut frames, mut below_base) = (Vec::new(), 0);
        for (place, cursor) in machine.stack.split_off(first).into_iter().enumerate() {
            if !tree.is_within(cursor.execution, here) {
                machine.stack.push(cursor);
                continue;
            }
            below_base += usize::from(first + place < self.work.base);
            if cursor.next < cursor.listeners.len() || cursor.then.is_some() {
                frames.push(cursor.frame());
            }
        }
        // Of a longer event that this one comes between, there is less now.
        self.work.base -= below_base;
        frames
    }

    /// Takes the deliveries off that are for the execution or for one below it. Those to its parent stay.
    fn stop_deliveries(&mut self) -> Vec<Arc<Delivery>> {
        let (tree, here) = (&self.machine.state, self.here);
        let is_below = |delivery: &Arc<Delivery>| {
            let parent = tree.get(delivery.child).and_then(|child| child.parent());
            parent.is_some_and(|parent| tree.is_within(parent, here))
        };
        let stored = tree.work.deliveries.iter().skip(self.work.delivered).cloned();
        let late = self.work.late.drain(..);
        let (stopped, others): (Vec<_>, Vec<_>) = stored.chain(late).partition(is_below);
        let (more, new): (Vec<_>, Vec<_>) = self.work.deliveries.drain(..).partition(is_below);
        // What was stored is stored anew, behind what is taken: the list says only what goes from its front.
        self.work.delivered = tree.work.deliveries.len();
        match self.work.between {
            true => self.work.late = others,
            false => self.work.deliveries.extend(others),
        }
        self.work.deliveries.extend(new);
        stopped.into_iter().chain(more).collect()
    }

    fn stop_accepted(&mut self) -> Vec<Accepted> {
        let (tree, here) = (&self.machine.state, self.here);
        let stored = tree.work.accepted.iter().skip(self.work.taken).cloned();
        let all = self
            .work
            .held_back
            .take()
            .into_iter()
            .chain(stored)
            .chain(self.work.accepted.drain(..));
        let (stopped, others) = all.partition(|accepted| tree.is_within(accepted.execution, here));
        self.work.taken = tree.work.accepted.len();
        self.work.accepted = others;
        stopped
    }

    /// Keeps a delivery for an execution that has failed, until it is resumed. Nothing below a cancelled one ever is.
    pub(super) fn keep_for_later(&mut self, delivery: &Arc<Delivery>) -> Applied {
        let tree = &self.machine.state;
        let Some(holder) = tree.ended_at(self.here).filter(|_| !tree.is_cancelled(self.here)) else {
            return Ok(());
        };
        let here = std::mem::replace(&mut self.here, holder.number);
        let mut stopped = self.state().stopped.as_deref().cloned().unwrap_or_default();
        stopped.deliveries.push(delivery.clone());
        self.change(ExecutionChange::Stopped(Some(Arc::new(stopped))))?;
        self.here = here;
        Ok(())
    }
}
