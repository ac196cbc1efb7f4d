//! Random moves until everything has come to its end.

use anyhow::{Result, bail, ensure};
use soe_backends::{Request, Status};
use soe_core::machine::{Effect, Input};

use super::world::{Pending, Taken, World};
use super::{Plan, check};

/// The most moves: more are a tree that doesn't come to an end.
const MOVES: usize = 10_000;

/// What is still to come.
struct Left {
    pings: u32,
    cancels: u32,
    /// Late answers that are still given.
    noise: u32,
}

impl World<'_> {
    /// Makes random moves until everything has come to its end.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn play(&mut self, plan: &Plan) -> Result<()> {
        let mut left = Left {
            pings: plan.pings,
            cancels: plan.cancels,
            noise: 3,
        };
        for _ in 0..MOVES {
            if !self.next_move(plan, &mut left)? {
                self.settle()?;
                return check::finished(self, plan.is_clean());
            }
        }
        bail!("it doesn't come to an end")
    }

    fn settle(&mut self) -> Result<()> {
        while self.recovering || !self.stored.owed.is_empty() {
            let input = match std::mem::take(&mut self.recovering) {
                true => Input::Recover,
                false => Input::Settle,
            };
            self.input(input)?;
        }
        Ok(())
    }

    fn next_move(&mut self, plan: &Plan, left: &mut Left) -> Result<bool> {
        if self.recovering {
            self.recovering = false;
            if self.input(Input::Recover)? == Taken::Lost {
                self.recovering = true;
            }
            return Ok(true);
        }
        let failed = |number: u64| {
            self.stored
                .get(number)
                .is_some_and(|state| state.status == Status::Failed)
        };
        if self.depth_first() && plan.resumes && failed(0) {
            let (execution, limits) = (0, None);
            self.input(Input::Resume { execution, limits })?;
            return Ok(true);
        }
        let busy = !self.tasks.is_empty() || self.more;
        let chance = self.rng.u8(..100);
        if left.pings > 0 && (!busy || chance < 8) {
            left.pings -= 1;
            self.ping(plan)?;
        } else if left.cancels > 0 && (!busy || (8..14).contains(&chance)) {
            left.cancels -= 1;
            self.cancel(plan)?;
        } else if self.next_message().is_some() && (!busy || chance < 40) {
            self.take_message()?;
        } else if left.noise > 0 && !self.late.is_empty() && chance > 90 {
            left.noise -= 1;
            let again = self.rng.usize(..self.late.len());
            let late = self.late[again].clone();
            if self.machine.can_take(&late.input) {
                // What was performed again since answers first: this one comes later then.
                let is_same = |task: &Pending| (task.execution, task.task) == (late.execution, late.task);
                let input = match self.tasks.iter().position(is_same) {
                    Some(same) => self.tasks.swap_remove(same).input,
                    None => late.input,
                };
                self.input(input)?;
            }
        } else if self.more && (self.tasks.is_empty() || chance < 70) {
            self.input(Input::Continue)?;
        } else if busy && self.answer()? {
        } else if self.more {
            self.input(Input::Continue)?;
        } else {
            ensure!(
                self.tasks.is_empty(),
                "nothing in flight can be taken: {:?}",
                self.tasks
            );
            return self.resume(plan);
        }
        Ok(true)
    }

    /// Answers something that is in flight. False if none can be taken now.
    fn answer(&mut self) -> Result<bool> {
        let takes = |at: &usize| self.machine.can_take(&self.tasks[*at].input);
        let can: Vec<usize> = (0..self.tasks.len()).filter(takes).collect();
        if can.is_empty() {
            return Ok(false);
        }
        let pending = self.tasks.swap_remove(can[self.rng.usize(..can.len())]);
        if self.rng.u8(..16) == 0 {
            self.late.push(pending.clone());
        }
        self.input(pending.input)?;
        Ok(true)
    }

    fn any(&mut self) -> u64 {
        self.rng.u64(..self.stored.executions.len() as u64)
    }

    fn ping(&mut self, plan: &Plan) -> Result<()> {
        let execution = self.any();
        if plan.posts && self.rng.bool() {
            self.post(execution, Request::Signal(["PING".into()].into()));
            return Ok(());
        }
        self.unordered |= self.more;
        let signals = vec!["PING".into()];
        self.input(Input::Signal { execution, signals })?;
        Ok(())
    }

    fn cancel(&mut self, plan: &Plan) -> Result<()> {
        let execution = self.any();
        if plan.posts && self.rng.bool() {
            self.post(execution, Request::Cancel);
            return Ok(());
        }
        self.input(Input::Cancel { execution })?;
        Ok(())
    }

    /// Takes the oldest message. One that was stored twice is taken once.
    fn take_message(&mut self) -> Result<()> {
        let Some(posted) = self.next_message().cloned() else {
            return Ok(());
        };
        self.unordered |= self.more;
        if self.input(Input::Message(posted.clone()))? == Taken::Applied && self.rng.u8(..4) == 0 && !self.recovering {
            let version = self.stored.version;
            self.again(posted)?;
            ensure!(self.stored.version == version, "a message was taken twice");
        }
        Ok(())
    }

    fn again(&mut self, posted: soe_backends::Posted) -> Result<()> {
        let step = self
            .machine
            .step(soe_backends::Timestamp::from_micros(1), Input::Message(posted))?;
        ensure!(
            step.commit.is_none() && step.effects.iter().all(|effect| matches!(effect, Effect::Continue)),
            "a message was taken twice"
        );
        Ok(())
    }

    /// Goes on with something that has failed.
    fn resume(&mut self, plan: &Plan) -> Result<bool> {
        let failed = self
            .stored
            .executions
            .values()
            .filter(|state| state.status == Status::Failed);
        let failed: Vec<u64> = failed.map(|state| state.number).collect();
        // What has been cancelled above can't be resumed.
        let can = |number: &u64| self.stored.status(*number) == Some(Status::Failed);
        let above = |number: u64| self.stored.above(number).any(|state| !state.status.accepts_signals());
        let failed: Vec<u64> = failed.into_iter().filter(can).collect();
        let all_below_ends = failed.iter().all(|number| above(*number));
        if !plan.resumes || failed.is_empty() || all_below_ends {
            return Ok(false);
        }
        let execution = failed[self.rng.usize(..failed.len())];
        if plan.posts && self.rng.bool() {
            let limits = None;
            self.post(execution, Request::Resume { limits });
        } else {
            let limits = None;
            self.input(Input::Resume { execution, limits })?;
        }
        Ok(true)
    }
}
