//! Between executions, and between processes: creating, taking up, bringing messages, going down.

use anyhow::{Result, anyhow, bail};
use soe_backends::{ExecutionId, ExecutionState, Status};
use soe_core::machine::{Descend, Input, Machine, Outcome, Spawn, Start};

use super::process::{Coordinator, What};
use super::run::{Move, Outside, Sim};
use super::serve::{Message, Origin};

impl Sim<'_> {
    /// Creates an execution; one that exists is taken up.
    pub(super) fn begin(&mut self, start: Start) -> Result<()> {
        let id = start.id.clone();
        if self.process.live.contains_key(&id) {
            return self.control(&id, Input::Recover);
        }
        if self.store.states.contains_key(&id) {
            return self.revive(&id);
        }
        let workflow = start.workflow.clone();
        let (machine, step) = Machine::start(self.at(), start, self.specs.clone())?;
        self.moves.push(Move::Created(id.clone()));
        self.claim(&id, machine, false);
        let external = self.grove.flows.get(&workflow).map(|flow| flow.external.clone());
        self.outside
            .extend(external.into_iter().flatten().map(|signals| Outside {
                to: id.clone(),
                signals,
                stored: false,
            }));
        self.created(&id, step)
    }

    fn claim(&mut self, id: &ExecutionId, machine: Machine, taken_up: bool) {
        self.coordinators += 1;
        let coordinator = Coordinator {
            machine,
            number: self.coordinators,
            more: false,
            taken_up,
            recovered: false,
            descents: Default::default(),
            answers: Default::default(),
        };
        self.process.live.insert(id.clone(), coordinator);
    }

    fn load(&mut self, id: &ExecutionId) -> Result<()> {
        let registries = vec![self.grove.registry.clone()];
        let machine = Machine::load(self.store.read(id)?, registries, self.specs.clone())?;
        self.claim(id, machine, true);
        Ok(())
    }

    /// Has somebody run an execution.
    fn revive(&mut self, id: &ExecutionId) -> Result<()> {
        if self.process.live.contains_key(id) {
            return Ok(());
        }
        self.load(id)?;
        self.serve(id, vec![Message::of(Input::Recover)])
    }

    /// Sends a message to the coordinator of an execution, which is started if there is none.
    pub(super) fn ask(&mut self, id: &ExecutionId, message: Message) -> Result<()> {
        self.revive(id)?;
        self.serve(id, vec![message])
    }

    /// Interrupts an execution, in this process or in the store.
    pub(super) fn control(&mut self, id: &ExecutionId, input: Input) -> Result<()> {
        if !self.process.live.contains_key(id) {
            self.load(id)?;
        }
        self.serve(id, vec![Message::of(input)])
    }

    /// Takes up what an earlier process has left, as `Engine::recover` does.
    pub(super) fn take_up(&mut self) -> Result<()> {
        let Some(id) = self.process.left.pop() else {
            return Ok(());
        };
        if self.process.live.contains_key(&id) {
            return Ok(());
        }
        let running = self.process.found.get(&id) == Some(&Status::Running);
        let above = if running { self.ended_above(&id)? } else { None };
        let input = match above {
            Some(Status::Cancelled) => Input::Cancel,
            Some(_) => Input::Suspend,
            None => Input::Recover,
        };
        self.load(&id)?;
        if let Some(live) = self.process.live.get_mut(&id) {
            live.recovered = matches!(input, Input::Recover);
        }
        self.control(&id, input)
    }

    fn ended_above(&self, id: &ExecutionId) -> Result<Option<Status>> {
        let mut next = parent_of(self.store.state(id)?);
        while let Some(id) = next {
            let status = self.process.found.get(&id).copied();
            let status = status.ok_or_else(|| anyhow!("{id} wasn't there"))?;
            if !status.accepts_signals() {
                return Ok(Some(status));
            }
            next = parent_of(self.store.state(&id)?);
        }
        Ok(None)
    }

    /// Ends the coordinator of an execution that isn't active; says whether there was one to be ended.
    pub(super) fn release(&mut self) -> Result<bool> {
        let idle = self.process.live.iter().filter(|(_, live)| live.is_idle());
        let idle: Vec<_> = idle.map(|(id, _)| id.clone()).collect();
        let Some(id) = self.rng.choice(idle) else {
            return Ok(false);
        };
        if let Some(live) = self.process.live.get_mut(&id)
            && live.machine.state().is_unsettled()
            && std::mem::take(&mut live.taken_up)
        {
            self.serve(&id, vec![Message::of(Input::Settled)])?;
            return Ok(true);
        }
        if let Some(ended) = self.process.live.remove(&id) {
            for relay in ended.answers.values() {
                if let Some(relay) = self.process.relays.get_mut(relay) {
                    relay.waits = false;
                }
            }
        }
        self.moves.push(Move::Released(id));
        Ok(true)
    }

    /// Takes the oldest message of a relay to the parent.
    pub(super) fn bring(&mut self, number: u64) -> Result<()> {
        let relay = self.process.relays.get_mut(&number);
        let relay = relay.ok_or_else(|| anyhow!("there is no relay {number}"))?;
        let Some(message) = relay.queue.front().cloned() else {
            bail!("relay {number} has nothing to bring");
        };
        relay.waits = true;
        let (parent, child) = (relay.parent.clone(), relay.child.clone());
        let origin = Origin::Relay(number);
        let input = Input::FromChild { child, message };
        self.ask(&parent, Message { input, origin })
    }

    /// Takes what becomes of an execution down to one more child.
    pub(super) fn go_down(&mut self, of: &ExecutionId) -> Result<()> {
        let live = self
            .process
            .live
            .get_mut(of)
            .ok_or_else(|| anyhow!("nobody runs {of}"))?;
        let Some((what, children)) = live.descents.front_mut() else {
            bail!("nothing goes down from {of}");
        };
        let Some((child, heard)) = children.pop() else {
            live.descents.pop_front();
            let descending = live
                .machine
                .state()
                .family
                .as_ref()
                .is_some_and(|family| family.descending);
            return match live.descents.is_empty() && descending {
                true => self.serve(of, vec![Message::of(Input::Settled)]),
                false => Ok(()),
            };
        };
        let input = match what {
            Descend::Cancel => Input::Cancel,
            Descend::Resume { limits } => Input::Resume {
                limits: Some(limits.clone()),
                parent: Some(heard),
            },
            _ => Input::Suspend,
        };
        // It was registered, and its parent ended before it was created.
        match self.store.states.contains_key(&child) {
            true => self.control(&child, input),
            false => Ok(()),
        }
    }

    /// Creates one more child of a run; after the last, answers.
    pub(super) fn spawn(&mut self, of: &ExecutionId, by: u64, mut spawn: Spawn) -> Result<()> {
        let Some(start) = spawn.children.pop() else {
            let (run, attempt, outcome) = (spawn.run, spawn.next, Outcome::Spawned(Ok(())));
            return self.serve(of, vec![Message::of(Input::Completed { run, attempt, outcome })]);
        };
        self.task(of, by, What::Spawn(spawn));
        self.begin(start)
    }
}

fn parent_of(state: &ExecutionState) -> Option<ExecutionId> {
    let parent = state.context.parent.as_ref()?;
    Some(parent.parent_execution_id.clone())
}
