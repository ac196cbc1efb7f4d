//! One interleaving: the machine and the model take the same inputs, and are compared after each.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, ensure};
use fastrand::Rng;
use soe_backends::{Commit, ExecutionState, Schedule, Status, Timestamp};
use soe_core::machine::{Input, Machine, MachineError, Step};

use super::answer::usage;
use super::check::{self, Told};
use super::flow::{Kind, Name};
use super::model::Model;
use super::outcome::rng;
use super::plan::{Move, Plan, Prepared};
use super::talk::Said;
use super::task::Task;

/// An interleaving in progress.
#[derive(Debug)]
pub struct Sim<'f> {
    pub(super) prepared: &'f Prepared,
    pub(super) plan: Plan,
    rng: Rng,
    machine: Machine,
    /// The state, made of the commits alone.
    folded: ExecutionState,
    pub(super) model: Model<'f>,
    /// What is being performed.
    pub(super) performing: BTreeSet<Task>,
    /// What is answered or aborted.
    pub(super) past: Vec<Task>,
    /// What was performed so far; what was lost in a crash counts once.
    pub(super) effects: u64,
    /// The conversation history.
    pub(super) said: Vec<Said>,
    delivered: usize,
    pub(super) paused: bool,
    pub(super) ever_paused: bool,
    moves_after_end: u8,
    pub(super) told: Told,
    discarded: u64,
    now: u64,
    /// What was done so far.
    pub moves: Vec<Move>,
    /// What came of it.
    pub commits: Vec<Commit>,
}

impl<'f> Sim<'f> {
    /// Starts the workflow.
    ///
    /// # Errors
    /// What went wrong.
    pub fn start(prepared: &'f Prepared, plan: Plan) -> Result<Self> {
        let (machine, step) = prepared.start(plan.schedule)?;
        let commit = step.commit.as_ref().ok_or_else(|| anyhow!("nothing was created"))?;
        let mut sim = Self {
            folded: ExecutionState::create(commit)?,
            model: Model::new(&prepared.flow, plan.seed, plan.schedule),
            rng: rng(&[plan.seed, 1]),
            prepared,
            plan,
            machine,
            performing: BTreeSet::new(),
            past: Vec::new(),
            effects: 0,
            said: Vec::new(),
            delivered: 0,
            paused: false,
            ever_paused: false,
            moves_after_end: 4,
            told: Told::default(),
            discarded: 0,
            now: 0,
            moves: Vec::new(),
            commits: Vec::new(),
        };
        sim.model.broadcast(&prepared.flow.start);
        sim.take(step, true)?;
        Ok(sim)
    }

    /// Makes random moves until everything has come to rest.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn run(&mut self) -> Result<()> {
        while self.next_move()? {}
        self.finished()
    }

    /// The state as of now.
    pub fn state(&self) -> &ExecutionState {
        self.machine.state()
    }

    fn next_move(&mut self) -> Result<bool> {
        let more = self.delivered < self.prepared.flow.external.len();
        // A depth-first model is ahead: it can't know which requests are lost, to be made and counted again.
        let asks = self.performing.iter().any(|task| matches!(task, Task::Reply(..)));
        let foreseen = self.plan.schedule == Schedule::Concurrent || !asks;
        let crash = foreseen && self.plan.crashes > 0 && self.rng.u8(..self.plan.crashes) == 0;
        if !self.state().status.accepts_signals() {
            if self.moves_after_end == 0 {
                return Ok(false);
            }
            self.moves_after_end -= 1;
            match self.rng.u8(..4) {
                0 => self.refused()?,
                3 => self.custom_talks()?,
                1 if foreseen && self.plan.crashes > 0 => self.crash()?,
                _ => self.noise()?,
            }
        } else if self.paused {
            match self.rng.u8(..4) {
                0 | 1 if crash => self.crash()?,
                2 if more => self.deliver()?,
                _ => self.input(Input::Continue)?,
            }
        } else if self.performing.is_empty() && !more {
            return Ok(false);
        } else if crash {
            self.crash()?;
        } else if self.plan.cancel && self.rng.u8(..12) == 0 {
            self.model.cancel();
            self.input(Input::Cancel)?;
        } else if self.plan.noise && self.rng.u8(..6) == 0 {
            self.noise()?;
        } else if self.plan.schedule == Schedule::Concurrent && self.rng.u8(..10) == 0 {
            self.custom_talks()?;
        } else if more && (self.performing.is_empty() || self.rng.u8(..5) == 0) {
            self.deliver()?;
        } else {
            let next = self.rng.usize(..self.performing.len());
            let chosen = self.performing.iter().nth(next).copied();
            self.complete(chosen.ok_or_else(|| anyhow!("nothing is being performed"))?)?;
        }
        Ok(true)
    }

    fn deliver(&mut self) -> Result<()> {
        let signals = &self.prepared.flow.external[self.delivered];
        self.delivered += 1;
        let accepted = self.model.broadcast(signals);
        ensure!(
            accepted || self.plan.schedule == Schedule::DepthFirst,
            "the model refused {signals:?}"
        );
        self.input(Input::Broadcast(signals.clone()))
    }

    /// An execution that is over takes no signals.
    fn refused(&mut self) -> Result<()> {
        let before = self.state().clone();
        let at = self.at();
        let result = self.machine.step(at, Input::Broadcast(vec!["LATE".into()]));
        ensure!(
            matches!(result, Err(MachineError::NotAccepting(_))),
            "a signal was not refused: {result:?}"
        );
        ensure!(before == *self.state(), "a refused signal left a trace");
        Ok(())
    }

    /// What changes nothing but leaves an event: answers that nobody waits for.
    fn noise(&mut self) -> Result<()> {
        let past = (!self.past.is_empty()).then(|| self.past[self.rng.usize(..self.past.len())]);
        let current = self.performing.last().copied();
        let run = self.state().next_run;
        let unknown = [
            Task::Attempt(run, 1),
            Task::Grant(run, 1),
            Task::Reply(run, 1),
            Task::Tool(run, 0),
        ];
        let unknown = unknown[self.rng.usize(..unknown.len())];
        match (self.rng.u8(..5), past, current) {
            (0, _, Some(task)) => self.complete(task.next()),
            (1, Some(task), _) => self.complete(task.next()),
            (2, _, _) => self.complete(unknown),
            (3, _, _) => self.input(Input::Continue),
            (_, Some(task), _) => self.complete(task),
            _ => Ok(()),
        }
    }

    /// A custom node asks an LLM by itself, or is answered; perhaps one that is over.
    fn custom_talks(&mut self) -> Result<()> {
        let custom = |task: &&Task| {
            let node = usize::try_from(task.run() - 1)
                .ok()
                .and_then(|run| self.told.dispatched.get(run));
            let mut nodes = self.prepared.flow.nodes.iter();
            nodes.any(|each| Some(&each.name) == node && matches!(each.kind, Kind::Custom(_)))
        };
        let tasks: Vec<Task> = self
            .performing
            .iter()
            .chain(&self.past)
            .filter(custom)
            .copied()
            .collect();
        let (Some(task), call) = (self.rng.choice(tasks), self.rng.u32(1..4)) else {
            return Ok(());
        };
        let run = task.run();
        let usage = self.rng.bool().then(|| usage(&mut self.rng));
        let counts = self.model.custom_talked(run, usage);
        let commits = self.commits.len();
        self.input(match usage {
            None => Input::Asked { run, call },
            Some(usage) => Input::Replied { run, call, usage },
        })?;
        ensure!(
            self.commits.len() == commits + usize::from(counts),
            "{counts}: run {run} asked by itself"
        );
        Ok(())
    }

    fn complete(&mut self, task: Task) -> Result<()> {
        let running = self.state().status == Status::Running;
        let wanted = running && self.performing.contains(&task);
        if wanted {
            self.performing.remove(&task);
            self.past.push(task);
        }
        self.discarded += u64::from(!wanted);
        let input = self.answer(task);
        if self.plan.schedule == Schedule::Concurrent {
            ensure!(
                self.model.complete(task) == wanted,
                "the model disagrees about {task:?}"
            );
        }
        let before = (!wanted).then(|| self.state().clone());
        self.input(input)?;
        let Some(mut expected) = before else {
            return Ok(());
        };
        let state = self.state();
        expected.version += 1;
        expected.next_event += 1;
        expected.updated_at = state.updated_at;
        ensure!(expected == *state, "{task:?} was discarded, and left a trace");
        Ok(())
    }

    /// The state is taken up again as the commits make it.
    fn crash(&mut self) -> Result<()> {
        let at = self.at();
        self.moves.push(Move::Crash(at));
        self.folds()?;
        self.machine = self.prepared.load(&self.folded)?;
        let limits = &self.prepared.flow.limits;
        let limited = limits.llm_calls.is_some() || limits.tokens.is_some();
        // A request that was lost has to be allowed again.
        let again = |task| match task {
            Task::Reply(run, call) if limited => Task::Grant(run, call),
            task => task,
        };
        let lost = std::mem::take(&mut self.performing);
        let asked = lost.iter().filter(|task| matches!(task, Task::Reply(..)));
        let asked: BTreeSet<u64> = asked.map(|task| task.run()).collect();
        let lost: BTreeSet<Task> = lost.into_iter().map(again).collect();
        self.past.retain(|task| !lost.contains(task));
        self.paused = false;
        let step = self.machine.step(at, Input::Recover)?;
        self.model.recover(&asked);
        self.effects -= lost.len() as u64;
        self.take(step, false)?;
        let again = self.performing.is_superset(&lost);
        ensure!(again, "{lost:?} were lost, {:?} are performed", self.performing);
        Ok(())
    }

    fn at(&mut self) -> Timestamp {
        self.now += self.rng.u64(1..5_000);
        Timestamp::from_micros(self.now)
    }

    fn input(&mut self, input: Input) -> Result<()> {
        let at = self.at();
        self.moves.push(Move::Input(at, input.clone()));
        self.paused &= !matches!(input, Input::Continue);
        let step = self.machine.step(at, input)?;
        self.take(step, false)
    }

    /// Stores the commit, performs the effects, and compares.
    fn take(&mut self, step: Step, first: bool) -> Result<()> {
        if let Some(mut commit) = step.commit {
            if self.plan.stored {
                let stored = serde_json::to_string(&commit)?;
                let read: Commit = serde_json::from_str(&stored)?;
                ensure!(read == commit, "the commit is another after it was stored:\n{stored}");
                commit = read;
            }
            if !first {
                self.folded.fits(std::slice::from_ref(&commit))?;
                self.folded.apply(&commit)?;
            }
            self.told.take(&commit.events)?;
            self.said(&commit)?;
            self.commits.push(commit);
        }
        if self.plan.stored {
            self.folds()?;
        }
        for effect in step.effects {
            self.perform(effect)?;
        }
        check::consistent(self.machine.state())?;
        let performed: BTreeSet<u64> = self.performing.iter().map(|task| task.run()).collect();
        let running = self.state().status == Status::Running;
        ensure!(
            performed.iter().eq(self.state().runs.keys()) || !running,
            "{:?} are performed, in flight are {:?}",
            self.performing,
            self.state().runs
        );
        ensure!(
            running || self.performing.is_empty(),
            "{:?} were not aborted",
            self.performing
        );
        match self.plan.schedule {
            Schedule::DepthFirst => ensure!(self.state().runs.len() <= 1, "several runs: {:?}", self.state().runs),
            _ if self.paused => {}
            _ => self.as_expected()?,
        }
        Ok(())
    }

    fn as_expected(&self) -> Result<()> {
        let flow = &self.prepared.flow;
        check::as_expected(&self.model, self.state(), flow, !self.ever_paused)?;
        if self.state().status == Status::Running {
            let expected: BTreeSet<Task> = self.model.tasks().collect();
            ensure!(
                self.performing == expected,
                "{:?} are performed, not {expected:?}",
                self.performing
            );
        }
        let (effects, expected) = (self.effects, self.model.effects);
        ensure!(effects == expected, "{effects} effects were performed, not {expected}");
        self.same_conversation()
    }

    fn folds(&self) -> Result<()> {
        let same = self.folded == *self.machine.state();
        ensure!(same, "the commits make another state:\n{:#?}", self.folded);
        Ok(())
    }

    fn finished(&self) -> Result<()> {
        self.folds()?;
        let state = self.state();
        self.as_expected()?;
        // What is asked again warns again; the model may be further than the machine when that happens.
        let ahead = self.plan.schedule == Schedule::DepthFirst || self.ever_paused;
        let ahead = ahead && self.plan.crashes > 0;
        let warnings = if ahead { self.told.warnings } else { self.model.warnings };
        self.told.agrees(state, &self.model, warnings, self.discarded)?;
        if state.status == Status::Rested {
            for signal in &self.prepared.flow.exactly_once {
                let times = count(state, signal);
                ensure!(times == 1, "{signal} was broadcast {times} times");
            }
        }
        Ok(())
    }

    /// Does the same again: the same commits, the same state.
    ///
    /// # Errors
    /// They differ.
    pub fn replay(&self) -> Result<()> {
        let (mut machine, step) = self.prepared.start(self.plan.schedule)?;
        let mut commits = Vec::from_iter(step.commit);
        for each in &self.moves {
            let (at, input) = match each {
                Move::Input(at, input) => (*at, input.clone()),
                Move::Crash(at) => {
                    machine = self.prepared.load(machine.state())?;
                    (*at, Input::Recover)
                }
            };
            commits.extend(machine.step(at, input)?.commit);
        }
        ensure!(
            commits == self.commits,
            "the same inputs made other commits:\n{commits:#?}"
        );
        ensure!(machine.state() == self.state(), "the same inputs made another state");
        Ok(())
    }
}

fn count(state: &ExecutionState, signal: &Name) -> usize {
    state
        .context
        .operational
        .signals
        .iter()
        .filter(|recorded| *recorded == signal)
        .count()
}
