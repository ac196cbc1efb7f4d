//! A coordinator takes inputs, stores what came of them, performs the effects and answers. Here the process crashes.

use anyhow::{Result, anyhow, bail, ensure};
use soe_backends::{Change, Commit, ExecutionId, Status};
use soe_core::machine::{Effect, Input, MachineError, Outcome, Step};

use super::ledger::Key;
use super::process::Coordinator;
use super::run::{Crashed, Move, Sim};
use crate::sim::check::consistent;

/// What arrives at a coordinator.
pub(super) struct Message {
    pub(super) input: Input,
    pub(super) origin: Origin,
}

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Nobody,
    /// A relay.
    Relay(u64),
    /// Somebody who sends signals from outside.
    Outside(usize),
}

/// What was taken and not stored yet.
#[derive(Default)]
struct Taken {
    commits: Vec<Commit>,
    effects: Vec<Effect>,
    senders: Vec<usize>,
    /// What was answered, and whether it may be performed again.
    answered: Vec<(Key, bool)>,
}

impl Message {
    pub(super) fn of(input: Input) -> Self {
        let origin = Origin::Nobody;
        Self { input, origin }
    }
}

impl Sim<'_> {
    /// Has the coordinator of an execution take these messages.
    pub(super) fn serve(&mut self, id: &ExecutionId, messages: Vec<Message>) -> Result<()> {
        let mut taken = Taken::default();
        let coordinator = self
            .process
            .live
            .get_mut(id)
            .ok_or_else(|| anyhow!("nobody runs {id}"))?;
        if std::mem::take(&mut coordinator.more) {
            self.take(id, Message::of(Input::Continue), &mut taken)?;
        }
        for message in messages {
            let acknowledged = matches!(message.input, Input::Acknowledged { .. });
            self.take(id, message, &mut taken)?;
            if acknowledged && self.process.live.get(id).is_some_and(Coordinator::may_settle) {
                self.take(id, Message::of(Input::Settled), &mut taken)?;
            }
        }
        self.store(id, taken)
    }

    /// Stores the first commit of an execution, and performs its effects.
    pub(super) fn created(&mut self, id: &ExecutionId, step: Step) -> Result<()> {
        let taken = Taken {
            commits: Vec::from_iter(step.commit),
            effects: step.effects,
            ..Taken::default()
        };
        self.store(id, taken)
    }

    fn take(&mut self, id: &ExecutionId, message: Message, taken: &mut Taken) -> Result<()> {
        let (Message { input, origin }, at) = (message, self.at());
        self.moves.push(Move::Input(id.clone(), input.clone()));
        let coordinator = self
            .process
            .live
            .get_mut(id)
            .ok_or_else(|| anyhow!("nobody runs {id}"))?;
        let step = match coordinator.machine.step(at, input.clone()) {
            Ok(step) => step,
            Err(MachineError::OutOfOrder { .. } | MachineError::NotAChild(_)) => return self.refused(origin),
            Err(MachineError::NotAccepting(_)) => return Ok(()),
            Err(error) => bail!("{id}: {error}"),
        };
        match (&input, origin) {
            (Input::FromChild { child, message }, Origin::Relay(relay)) => {
                let before = coordinator.answers.insert((child.clone(), message.number), relay);
                before.map_or(Ok(()), |before| self.refused(Origin::Relay(before)))?;
            }
            (_, Origin::Outside(sender)) => taken.senders.push(sender),
            _ => {}
        }
        let changed = step.commit.as_ref().filter(|commit| !commit.changes.is_empty());
        if let (Some(key), Some(commit)) = (answers(&input), changed) {
            self.wrote(id, key, &input, commit)?;
            taken.answered.push((key, self.may_repeat(id, &input)));
        }
        taken.commits.extend(step.commit);
        taken.effects.extend(step.effects);
        Ok(())
    }

    /// What is brought again later.
    fn refused(&mut self, origin: Origin) -> Result<()> {
        if let Origin::Relay(relay) = origin
            && let Some(relay) = self.process.relays.get_mut(&relay)
        {
            relay.waits = false;
        }
        Ok(())
    }

    /// Whether what was answered is performed again in spite of that: a node that has failed its execution when that is
    /// resumed, and the creation of children that a depth-first run waits for.
    fn may_repeat(&self, id: &ExecutionId, input: &Input) -> bool {
        let Input::Completed { run, outcome, .. } = input else {
            return false;
        };
        let state = self.process.live.get(id).map(|live| live.machine.state());
        let in_flight = state.is_some_and(|state| state.runs.contains_key(run));
        match outcome {
            Outcome::Node(Err(_)) | Outcome::Spawned(Ok(())) => in_flight,
            _ => false,
        }
    }

    /// What a tool returned is written in the event that ends its run, once.
    fn wrote(&self, id: &ExecutionId, key: Key, input: &Input, commit: &Commit) -> Result<()> {
        let Input::Completed {
            outcome: Outcome::Tool(Ok(value)),
            run,
            ..
        } = input
        else {
            return Ok(());
        };
        let field = self.output_of(id, *run)?;
        let finished = |change: &Change| matches!(change, Change::Finished { run: over } if over == run);
        let position = commit.changes.iter().position(finished);
        let position = position.ok_or_else(|| anyhow!("{key:?} of {id} didn't end its run"))?;
        let next = commit.changes.get(position + 1);
        let written =
            |field| matches!(next, Some(Change::Appended { field: f, value: v, .. }) if *f == field && v == value);
        let as_it_should = field.filter(|_| !value.is_null()).is_none_or(written);
        ensure!(
            as_it_should,
            "{key:?} of {id} returned {value}, and that was not written with it"
        );
        Ok(())
    }

    fn store(&mut self, id: &ExecutionId, taken: Taken) -> Result<()> {
        let mut dies = None;
        if !taken.commits.is_empty() {
            self.store.commit(id, &taken.commits)?;
            self.stores += 1;
            for (key, again) in taken.answered {
                self.ledger.answered(id, key, again)?;
            }
            taken
                .commits
                .iter()
                .try_for_each(|commit| self.ledger.committed(commit))?;
            self.same(id)?;
            dies = self.dies_after();
        }
        for sender in taken.senders {
            self.outside[sender].stored = true;
        }
        self.note(id, &taken.effects)?;
        let (turns, others): (Vec<_>, Vec<_>) = taken
            .effects
            .into_iter()
            .partition(|effect| matches!(effect, Effect::StoreTurns(_)));
        let aborted = others.iter().any(|effect| matches!(effect, Effect::Abort { .. }));
        for (performed, effect) in turns.into_iter().chain(others).enumerate() {
            if dies == Some(performed) {
                bail!(Crashed);
            }
            self.perform(id, effect, aborted)?;
        }
        match dies {
            Some(_) => bail!(Crashed),
            None => Ok(()),
        }
    }

    /// The live state is what its commits make of it.
    pub(super) fn same(&self, id: &ExecutionId) -> Result<()> {
        let state = self.store.state(id)?;
        if self.stores.is_multiple_of(8) || state.status != Status::Running {
            let live = self.process.live.get(id).map(|live| live.machine.state());
            ensure!(
                live.is_none_or(|live| live == state),
                "{id} is another than its commits make it"
            );
            consistent(state)?;
        }
        Ok(())
    }
}

/// What an input answers.
fn answers(input: &Input) -> Option<Key> {
    match input {
        Input::Completed { run, attempt, outcome } => Some(match outcome {
            Outcome::Llm(_) => Key::Request(*run, *attempt),
            Outcome::AgentTool { index, .. } => Key::Call(*run, *index, *attempt),
            Outcome::Spawned(_) => Key::Children(*run, *attempt),
            _ => Key::Attempt(*run, *attempt),
        }),
        _ => None,
    }
}
