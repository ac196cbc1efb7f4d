//! One interleaving: the machine and the model take the same inputs, and are compared after each.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail, ensure};
use fastrand::Rng;
use soe_backends::{Commit, ExecutionState, Schedule, Status, Timestamp, Value};
use soe_core::machine::{Effect, Input, Machine, MachineError, Outcome, Step};

use super::check::{self, Told};
use super::flow::Name;
use super::model::{InFlight, Model};
use super::outcome::{outcome, rng};
use super::plan::{Move, Plan, Prepared};

/// An interleaving in progress.
#[derive(Debug)]
pub struct Sim<'f> {
    prepared: &'f Prepared,
    plan: Plan,
    rng: Rng,
    machine: Machine,
    /// The state, made of the commits alone.
    folded: ExecutionState,
    model: Model<'f>,
    /// The attempt that is being performed, by run.
    performing: BTreeMap<u64, u32>,
    /// Attempts that are over or aborted.
    past: Vec<(u64, u32)>,
    delivered: usize,
    paused: bool,
    ever_paused: bool,
    moves_after_end: u8,
    told: Told,
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
            performing: BTreeMap::new(),
            past: Vec::new(),
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
        let crash = self.plan.crashes > 0 && self.rng.u8(..self.plan.crashes) == 0;
        if !self.state().status.accepts_signals() {
            if self.moves_after_end == 0 {
                return Ok(false);
            }
            self.moves_after_end -= 1;
            match self.rng.u8(..3) {
                0 => self.refused()?,
                1 if self.plan.crashes > 0 => self.crash()?,
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
        } else if more && (self.performing.is_empty() || self.rng.u8(..5) == 0) {
            self.deliver()?;
        } else {
            let next = self.rng.usize(..self.performing.len());
            let chosen = self.performing.iter().nth(next).map(|(run, attempt)| (*run, *attempt));
            let (run, attempt) = chosen.ok_or_else(|| anyhow!("nothing is being performed"))?;
            self.complete(run, attempt)?;
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

    /// What changes nothing but leaves an event: completions that nobody waits for.
    fn noise(&mut self) -> Result<()> {
        let past = (!self.past.is_empty()).then(|| self.past[self.rng.usize(..self.past.len())]);
        let current = self
            .performing
            .iter()
            .next_back()
            .map(|(run, attempt)| (*run, *attempt));
        match (self.rng.u8(..4), past, current) {
            (0, _, Some((run, attempt))) => self.complete(run, attempt + 1),
            (1, _, _) => self.complete(self.state().next_run, 1),
            (2, _, _) => self.input(Input::Continue),
            (_, Some((run, attempt)), _) => self.complete(run, attempt),
            _ => Ok(()),
        }
    }

    fn complete(&mut self, run: u64, attempt: u32) -> Result<()> {
        let running = self.state().status == Status::Running;
        let wanted = running && self.performing.get(&run) == Some(&attempt);
        if wanted {
            self.performing.remove(&run);
            self.past.push((run, attempt));
        }
        self.discarded += u64::from(!wanted);
        let outcome = self.outcome(run, attempt);
        if self.plan.schedule == Schedule::Concurrent {
            ensure!(
                self.model.complete(run, attempt) == wanted,
                "the model disagrees about {run}, {attempt}"
            );
        }
        let before = (!wanted).then(|| self.state().context.clone());
        self.input(Input::Completed { run, attempt, outcome })?;
        ensure!(
            before.is_none_or(|before| before == self.state().context),
            "a discarded completion left a trace"
        );
        Ok(())
    }

    fn outcome(&self, run: u64, attempt: u32) -> Outcome {
        let flow = &self.prepared.flow;
        let started = usize::try_from(run - 1)
            .ok()
            .and_then(|run| self.told.dispatched.get(run));
        match flow.nodes.iter().find(|node| Some(&node.name) == started) {
            Some(node) => outcome(flow, self.plan.seed, node, run, attempt),
            None => Outcome::Tool(Ok(Value::Null)),
        }
    }

    fn crash(&mut self) -> Result<()> {
        let at = self.at();
        self.moves.push(Move::Crash(at));
        self.machine = self.prepared.reload(&self.machine)?;
        let lost = std::mem::take(&mut self.performing);
        self.paused = false;
        let step = self.machine.step(at, Input::Recover)?;
        self.take(step, false)?;
        let again = lost
            .iter()
            .all(|(run, attempt)| self.performing.get(run) == Some(attempt));
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
                self.folded.apply(&commit)?;
            }
            self.told.take(&commit.events)?;
            self.commits.push(commit);
        }
        if self.plan.stored {
            self.folds()?;
        }
        for effect in step.effects {
            self.perform(effect)?;
        }
        check::consistent(self.machine.state())?;
        let performed = self.performing.keys().eq(self.state().runs.keys());
        let running = self.state().status == Status::Running;
        ensure!(
            performed || !running,
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
            _ => check::as_expected(
                &self.model,
                self.machine.state(),
                &self.prepared.flow,
                !self.ever_paused,
            )?,
        }
        Ok(())
    }

    fn folds(&self) -> Result<()> {
        let same = self.folded == *self.machine.state();
        ensure!(same, "the commits make another state:\n{:#?}", self.folded);
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<()> {
        let (run, attempt) = match effect {
            Effect::Continue => {
                self.paused = true;
                self.ever_paused = true;
                return Ok(());
            }
            Effect::Abort { run } => {
                self.past
                    .extend(self.performing.remove(&run).map(|attempt| (run, attempt)));
                return Ok(());
            }
            Effect::CallTool(call) => {
                if let Some(expected) = self.compared(call.run) {
                    let expected = self.model.arguments(expected);
                    ensure!(call.arguments == expected, "{call:?} should have arguments {expected}");
                }
                (call.run, call.attempt)
            }
            Effect::RunNode(run) => {
                if let Some(expected) = self.compared(run.run) {
                    check::saw(&run.context, expected)?;
                }
                (run.run, 1)
            }
            Effect::Complete { run, attempt, .. } => (run, attempt),
            other => bail!("what is {other:?}?"),
        };
        let before = self.performing.insert(run, attempt);
        ensure!(before.is_none(), "run {run} is performed twice at a time");
        ensure!(
            !self.past.contains(&(run, attempt)),
            "attempt {attempt} of run {run} is performed again"
        );
        Ok(())
    }

    /// What the model knows of a run, where its snapshot is comparable.
    fn compared(&self, run: u64) -> Option<&InFlight> {
        let comparable = self.plan.schedule == Schedule::Concurrent && !self.ever_paused;
        self.model.in_flight.get(&run).filter(|_| comparable)
    }

    fn finished(&self) -> Result<()> {
        self.folds()?;
        let state = self.state();
        check::as_expected(&self.model, state, &self.prepared.flow, !self.ever_paused)?;
        self.told.agrees(state, self.model.warnings, self.discarded)?;
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
                    machine = self.prepared.reload(&machine)?;
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
