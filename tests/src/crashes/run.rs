//! A tree in a process that crashes: what happens next.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use fastrand::Rng;
use soe_backends::{ExecutionId, Status, Timestamp};
use soe_core::machine::{Input, Specs, Start};

use super::generate::{Grove, ROOT};
use super::ledger::Ledger;
use super::process::{Process, What};
use super::serve::{Message, Origin};
use super::store::Store;
use super::summary::Summary;
use super::{Cancels, Plan};
use crate::sim::flow::Name;
use crate::sim::outcome::rng;

/// So many moves bring every tree to an end.
const MOVES: usize = 20_000;

/// The most crashes of one schedule.
const CRASHES: u32 = 4;

/// A tree of executions, and the process that runs them.
pub struct Sim<'g> {
    pub(super) grove: &'g Grove,
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) specs: Specs,
    pub(super) store: Store,
    pub(super) process: Process,
    pub(super) ledger: Ledger,
    pub(super) outside: Vec<Outside>,
    /// How often custom nodes were performed, by execution and run.
    pub(super) performed: BTreeMap<(ExecutionId, u64), u32>,
    /// So often something was stored.
    pub(super) stores: u64,
    pub(super) crashes: u32,
    pub(super) coordinators: u64,
    pub(super) cancelled: Vec<ExecutionId>,
    cancels: bool,
    now: u64,
    /// What was done so far, for people.
    pub moves: Vec<Move>,
}

/// What was done.
#[derive(Debug)]
pub enum Move {
    /// An execution got an input.
    Input(ExecutionId, Input),
    /// It is created.
    Created(ExecutionId),
    /// Its coordinator has ended.
    Released(ExecutionId),
    /// The process crashes, after so many times that it stored something.
    Crash(u64),
}

/// Signals from outside.
pub(super) struct Outside {
    pub(super) to: ExecutionId,
    pub(super) signals: Vec<Name>,
    pub(super) stored: bool,
}

/// The process ended in the middle of something.
#[derive(Debug, thiserror::Error)]
#[error("the process crashed")]
pub(super) struct Crashed;

/// What can be next, apart from tasks.
enum Next {
    More(ExecutionId),
    Bring(u64),
    Descend(ExecutionId),
}

impl<'g> Sim<'g> {
    /// Nothing is started yet.
    pub fn new(grove: &'g Grove, plan: Plan) -> Self {
        let mut specs = grove.specs.clone();
        specs.turns_follow = plan.turns_follow;
        Self {
            grove,
            plan,
            rng: rng(&[plan.group, 23]),
            specs,
            store: Store::default(),
            process: Process::default(),
            ledger: Ledger::default(),
            outside: Vec::new(),
            performed: BTreeMap::new(),
            stores: 0,
            crashes: 0,
            coordinators: 0,
            cancelled: Vec::new(),
            cancels: plan.cancels.is_some(),
            now: 0,
            moves: Vec::new(),
        }
    }

    /// Starts the root, and goes on until nothing is left to do. `calm` is what comes of it without a crash.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn run(&mut self, calm: Option<&Summary>) -> Result<Summary> {
        let root = ExecutionId::new("x")?;
        let fields = self.grove.fields.iter();
        let start = Start {
            id: root.clone(),
            main_execution_id: None,
            parent: None,
            registry: self.grove.registry.clone(),
            workflow: ROOT.into(),
            fields: fields
                .map(|(name, value)| (name.clone(), [value.clone()].into_iter().collect()))
                .collect(),
            definitions: Default::default(),
            schedule: self.plan.schedule,
            limits: self.grove.limits.clone(),
            signals: vec!["START".into()],
            inherited: Default::default(),
        };
        let started = self.begin(start);
        self.survive(started)?;
        self.until_the_end()?;
        let summary = self.finished(calm)?;
        // Whoever takes up a tree that has come to its end finds nothing to perform.
        let emitted = self.ledger.emitted;
        self.crash();
        self.crashes = CRASHES;
        self.until_the_end()?;
        if emitted != self.ledger.emitted {
            bail!("something is performed for a tree that has come to its end");
        }
        let unsettled = self.store.states.values().find(|state| state.is_unsettled());
        if let Some(state) = unsettled {
            bail!("something is left to do for {}: {state:?}", state.id);
        }
        self.finished(Some(&summary))
    }

    fn until_the_end(&mut self) -> Result<()> {
        for _ in 0..MOVES {
            let moved = self.next_move();
            if !self.survive(moved)?.unwrap_or(true) {
                return Ok(());
            }
        }
        bail!("it doesn't come to an end")
    }

    fn survive<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(error) if error.is::<Crashed>() => {
                self.crash();
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    fn crash(&mut self) {
        self.moves.push(Move::Crash(self.stores));
        self.crashes += 1;
        if let (1, Some(crash)) = (self.crashes, self.plan.crash) {
            self.rng = rng(&[crash.seed, 24]);
        }
        self.ledger.crashed();
        let all = self.store.states.iter();
        let mut left: Vec<_> = all
            .clone()
            .filter(|(_, state)| state.is_unsettled())
            .map(|(id, _)| id.clone())
            .collect();
        self.rng.shuffle(&mut left);
        self.process = Process {
            left,
            found: all.map(|(id, state)| (id.clone(), state.status)).collect(),
            ..Process::default()
        };
    }

    /// After what was stored just now, the process performs so many effects, and crashes.
    pub(super) fn dies_after(&mut self) -> Option<usize> {
        let crash = self.plan.crash?;
        match self.crashes {
            0 => (self.stores >= crash.stored).then_some(crash.effects),
            1..CRASHES => (crash.again > 0 && self.rng.u8(..crash.again) == 0).then(|| self.rng.usize(..4)),
            _ => None,
        }
    }

    fn next_move(&mut self) -> Result<bool> {
        let next = self.next();
        let busy = !next.is_empty() || !self.process.tasks.is_empty();
        if !self.process.left.is_empty() && (!busy || self.rng.u8(..3) == 0) {
            self.take_up()?;
        } else if self.cancels && self.rng.u8(..30) == 0 {
            self.cancel()?;
        } else if self.aside(busy)? {
            return Ok(true);
        } else if busy {
            let chosen = self.rng.usize(..next.len() + self.process.tasks.len());
            match next.into_iter().nth(chosen) {
                Some(Next::More(id)) => self.serve(&id, Vec::new())?,
                Some(Next::Bring(relay)) => self.bring(relay)?,
                Some(Next::Descend(id)) => self.go_down(&id)?,
                None => self.tasks()?,
            }
        } else {
            return Ok(self.release()? || self.resume()?);
        }
        Ok(true)
    }

    /// What goes on beside: coordinators end, and signals come from outside.
    fn aside(&mut self, busy: bool) -> Result<bool> {
        let releases = self.rng.u8(..8) == 0;
        if releases && self.release()? {
            return Ok(true);
        }
        let sends = !busy || self.rng.u8(..10) == 0;
        Ok(sends && self.outside()?)
    }

    fn next(&self) -> Vec<Next> {
        let mut next = Vec::new();
        for (id, coordinator) in &self.process.live {
            if coordinator.more {
                next.push(Next::More(id.clone()));
            }
            if !coordinator.descents.is_empty() {
                next.push(Next::Descend(id.clone()));
            }
        }
        let relays = self.process.relays.iter();
        let idle = relays.filter(|(_, relay)| !relay.waits && !relay.queue.is_empty());
        next.extend(idle.map(|(number, _)| Next::Bring(*number)));
        next
    }

    /// Some of what is performed is done; what arrives together is stored together.
    fn tasks(&mut self) -> Result<()> {
        let task = self
            .process
            .tasks
            .swap_remove(self.rng.usize(..self.process.tasks.len()));
        let (of, by) = (task.of, task.by);
        let heard = |sim: &Self| sim.process.live.get(&of).is_some_and(|live| live.number == by);
        if !heard(self) {
            return Ok(());
        }
        let mut messages = match task.what {
            What::Spawn(spawn) => return self.spawn(&of, by, spawn),
            What::Answer { input, .. } => vec![Message::of(input)],
            What::Acknowledged(number) => vec![Message::of(Input::Acknowledged { number })],
        };
        while self.rng.u8(..4) == 0 {
            let more = |task: &super::process::Task| task.of == of && matches!(task.what, What::Answer { .. });
            let Some(position) = self.process.tasks.iter().position(more) else {
                break;
            };
            if let What::Answer { input, .. } = self.process.tasks.swap_remove(position).what {
                messages.push(Message::of(input));
            }
        }
        self.serve(&of, messages)
    }

    /// Sends signals, if there are any to be sent.
    fn outside(&mut self) -> Result<bool> {
        let accepts = |outside: &Outside| {
            let state = self.store.states.get(&outside.to);
            !outside.stored && state.is_some_and(|state| state.status.accepts_signals())
        };
        let waiting = self.outside.iter().enumerate().filter(|(_, outside)| accepts(outside));
        let waiting: Vec<usize> = waiting.map(|(position, _)| position).collect();
        let Some(chosen) = self.rng.choice(waiting) else {
            return Ok(false);
        };
        let Outside { to, signals, .. } = &self.outside[chosen];
        let (to, input) = (to.clone(), Input::Broadcast(signals.clone()));
        let origin = Origin::Outside(chosen);
        self.ask(&to, Message { input, origin })?;
        Ok(true)
    }

    fn cancel(&mut self) -> Result<()> {
        self.cancels = false;
        let chosen = match self.plan.cancels {
            Some(Cancels::Any) => self.rng.usize(..self.store.states.len()),
            _ => 0,
        };
        let Some(id) = self.store.states.keys().nth(chosen).cloned() else {
            return Ok(());
        };
        self.cancelled.push(id.clone());
        self.control(&id, Input::Cancel)
    }

    /// Somebody has the highest execution go on that has failed.
    fn resume(&mut self) -> Result<bool> {
        let failed = self
            .store
            .states
            .values()
            .filter(|state| state.status == Status::Failed);
        let highest = failed
            .min_by_key(|state| state.id.as_str().len())
            .map(|state| state.id.clone());
        let Some(id) = highest.filter(|_| self.plan.resumes) else {
            return Ok(false);
        };
        let (limits, parent) = (None, None);
        self.control(&id, Input::Resume { limits, parent })?;
        Ok(true)
    }

    pub(super) fn at(&mut self) -> Timestamp {
        self.now += self.rng.u64(1..5_000);
        Timestamp::from_micros(self.now)
    }
}
