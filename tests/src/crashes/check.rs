//! What holds when nothing is left to do.

use anyhow::{Result, anyhow, ensure};
use soe_backends::{ExecutionState, Status};

use super::run::{Outside, Sim};
use super::summary::Summary;
use crate::sim::check::consistent;
use crate::trees::check::{child_in, ended_like, family, heard, is_below, totals};

impl Sim<'_> {
    /// Whether everything must have come to its end as if nothing had happened.
    fn clean(&self) -> bool {
        let fails = self.plan.shape.fails > 0 && (!self.plan.resumes || self.plan.shape.handled);
        !fails && self.plan.cancels.is_none()
    }

    pub(super) fn finished(&self, calm: Option<&Summary>) -> Result<Summary> {
        for state in self.store.states.values() {
            self.execution(state)?;
        }
        for outside in &self.outside {
            self.heard_once(outside)?;
        }
        for id in &self.cancelled {
            let all = self.store.states.iter();
            let mut below = all.filter(|(other, _)| *other == id || is_below(other, id));
            let alive = below.find(|(_, state)| state.status != Status::Cancelled);
            ensure!(
                alive.is_none(),
                "{id} was cancelled, and not {:?}",
                alive.map(|(id, _)| id)
            );
        }
        let stored = self.store.turns.iter().filter_map(|turn| turn.key.as_ref());
        ensure!(
            stored.count() == self.ledger.turns.len(),
            "{} turns were committed, and {} are stored",
            self.ledger.turns.len(),
            self.store.turns.len()
        );
        let summary = self.summary();
        if let Some(calm) = calm.filter(|_| self.clean()) {
            summary.same(calm)?;
        }
        Ok(summary)
    }

    fn execution(&self, state: &ExecutionState) -> Result<()> {
        let id = &state.id;
        ensure!(state.status != Status::Running, "{id} hangs: {state:?}");
        // Acknowledgements may come too late for whoever waited for them; who takes it up then waits longer.
        let unheard = family(state).is_some_and(|family| !family.outbox.is_empty());
        let descending = family(state).is_some_and(|family| family.descending);
        ensure!(!descending || unheard, "what became of {id} never went down");
        consistent(state)?;
        totals(state)?;
        let rests = state.status == Status::Rested;
        let left = self.ledger.unanswered(id);
        ensure!(
            !rests || left.is_empty(),
            "{id} rests, and nobody has applied what came of {left:?}"
        );
        self.fired_once(state)?;
        ensure!(!self.clean() || rests, "{id} is {}", state.status);
        let Some(info) = &state.context.parent else {
            return Ok(());
        };
        let parent = self.store.state(&info.parent_execution_id)?;
        ended_like(parent, state)?;
        if parent.status == Status::Rested {
            heard(parent, state)?;
            let received = child_in(parent, id)?.received;
            let told = family(state).map_or(0, |family| family.told);
            ensure!(
                received == told,
                "{id} has told {told} messages, {received} were applied"
            );
        }
        Ok(())
    }

    /// No join fires twice; in an execution that rests and had no failures each has fired.
    fn fired_once(&self, state: &ExecutionState) -> Result<()> {
        let flow = self.grove.flows.get(&state.workflow);
        let flow = flow.ok_or_else(|| anyhow!("there is no workflow {}", state.workflow))?;
        let outside: Vec<_> = self.outside.iter().filter(|outside| outside.to == state.id).collect();
        for signal in &flow.exactly_once {
            let count = recorded(state, signal);
            let whole = self.clean() && outside.iter().all(|outside| outside.stored);
            ensure!(
                count == 1 || count == 0 && !whole,
                "{} recorded {signal} {count} times",
                state.id
            );
        }
        Ok(())
    }

    /// A signal that was taken is there once.
    fn heard_once(&self, outside: &Outside) -> Result<()> {
        let Outside { to, signals, stored } = outside;
        let (state, Some(signal)) = (self.store.state(to)?, signals.first()) else {
            return Ok(());
        };
        let waits = state.pending.iter().flat_map(|batch| batch.iter());
        let count = recorded(state, signal) + waits.filter(|each| *each == signal).count();
        let lost = state.status == Status::Cancelled;
        let fits = match stored {
            true => count == 1 || lost && count == 0,
            false => count == 0 && !self.clean(),
        };
        ensure!(fits, "{to} has {count} times the signal {signal}, taken: {stored}");
        Ok(())
    }
}

fn recorded(state: &ExecutionState, signal: &str) -> usize {
    let signals = state.context.operational.signals.iter();
    signals.filter(|each| each.as_ref() == signal).count()
}
