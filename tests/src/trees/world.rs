//! A tree in a world: a machine, a store, an inbox, what is in flight, and processes that crash.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};
use fastrand::Rng;
use soe_backends::stored::{check_versions, read_tree, version_of, write_tree};
use soe_backends::{
    Commit, EventKind, ExecutionId, Limits, Message, Posted, Request, Schedule, Sections, Timestamp, TreeState,
};
use soe_core::machine::{Effect, Input, Machine, MachineError, Pace, Specs, Start, Step};

use super::check;
use super::flow::{Grove, Name, ROOT};
use super::ledger::Ledger;
use super::model::{Model, Task};

/// Where a process crashes.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// When so many commits were made since the last one.
    pub commits: u64,
    /// Whether the last of them is stored, and how many of its effects are performed.
    pub stored: Option<usize>,
}

/// How a world is made.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Where all random choices come from.
    pub seed: u64,
    /// The order in which the tree runs its nodes.
    pub schedule: Schedule,
    /// What stores take of a commit by themselves.
    pub sections: Sections,
    /// Where processes crash, the next first.
    pub crashes: VecDeque<Crash>,
    /// How often states are compared and stored: after each commit of so many.
    pub every: u64,
    /// Whether the model follows.
    pub modelled: bool,
}

/// What is in flight.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) execution: u64,
    pub(super) task: Task,
    pub(super) input: Input,
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was taken.
    Applied,
    /// It was refused.
    Refused,
    /// The process crashed before anything of it was stored.
    Lost,
}

/// A tree in a world.
pub struct World<'g> {
    pub(super) grove: &'g Grove,
    pub(super) setting: Setting,
    pub(super) rng: Rng,
    now: u64,
    specs: Specs,
    /// The machine of the process that runs.
    pub machine: Machine,
    /// What the store has.
    pub stored: TreeState,
    pub(super) tasks: Vec<Pending>,
    /// Answers that nobody waits for any more.
    pub(super) late: Vec<Pending>,
    /// Whether the machine wants to go on.
    pub more: bool,
    /// Whether the machine was just loaded.
    pub recovering: bool,
    /// The onlooker.
    pub ledger: Ledger,
    /// All messages that were ever posted.
    pub(super) inbox: Vec<Posted>,
    /// What should be.
    pub model: Model<'g>,
    /// Whether the model is followed still.
    pub exact: bool,
    /// Whether what came from outside came between the commits of a longer event: its place among others may be another.
    pub(super) unordered: bool,
    /// In a depth-first tree: answers so far, and signals that came after so many of them.
    pub(super) answers: u64,
    pub(super) later: Vec<(u64, String, Vec<Name>)>,
    /// What was done.
    pub moves: Vec<String>,
    /// How many commits were stored.
    pub commits: u64,
    since_crash: u64,
    processes: u64,
    /// The events and turns that a store of its own has.
    pub(super) told_events: u64,
    pub(super) told_turns: BTreeSet<Arc<str>>,
}

impl<'g> World<'g> {
    /// Starts a tree.
    ///
    /// # Errors
    /// The machine refuses it.
    pub fn new(grove: &'g Grove, setting: Setting, pace: Option<(usize, usize)>) -> Result<Self> {
        let fields = grove.fields.iter();
        let start = Start {
            id: ExecutionId::new("x")?,
            registry: grove.registry.clone(),
            workflow: ROOT.into(),
            fields: fields
                .map(|(name, value)| (name.clone(), [value.clone()].into_iter().collect()))
                .collect(),
            definitions: Default::default(),
            schedule: setting.schedule,
            limits: Arc::new(Limits::default()),
            signals: vec!["START".into()],
            inherited: Default::default(),
        };
        let specs = Specs {
            sections: setting.sections,
            process: Some("p0".into()),
            pace: pace.map_or_else(Pace::default, |(steps, children)| Pace { steps, children }),
            ..grove.specs.clone()
        };
        let (machine, step) = Machine::start(Timestamp::from_micros(1), start, specs.clone())?;
        let commit = step.commit.as_ref().ok_or_else(|| anyhow!("nothing was created"))?;
        let stored = TreeState::create(commit)?;
        let mut world = Self {
            model: Model::new(grove, setting.schedule),
            exact: setting.modelled,
            rng: super::outcome::rng(&[setting.seed, 12]),
            grove,
            setting,
            now: 1,
            specs,
            machine,
            stored,
            tasks: Vec::new(),
            late: Vec::new(),
            more: false,
            recovering: false,
            ledger: Ledger::default(),
            inbox: Vec::new(),
            unordered: false,
            answers: 0,
            later: Vec::new(),
            moves: Vec::new(),
            commits: 1,
            since_crash: 1,
            processes: 1,
            told_events: 0,
            told_turns: BTreeSet::new(),
        };
        if world.setting.modelled && !world.depth_first() {
            world.model.signal(0, &["START".into()]);
        }
        world.seen(commit)?;
        world.ledger.was_ahead |= goes_on(&step.effects);
        world.effects(step.effects)?;
        Ok(world)
    }

    pub(super) fn depth_first(&self) -> bool {
        self.setting.schedule == Schedule::DepthFirst
    }

    /// Gives an input to the machine, stores what comes of it, and performs that.
    ///
    /// # Errors
    /// Something is not as it should be.
    pub fn input(&mut self, input: Input) -> Result<Taken> {
        if matches!(input, Input::Continue) {
            self.more = false;
        }
        self.moves.push(format!("{input:?}"));
        // The end of a fan-out comes later than it would.
        self.unordered |= !self.stored.work.spawns.is_empty() && !matches!(input, Input::Continue);
        self.now += self.rng.u64(1..5_000);
        let at = Timestamp::from_micros(self.now);
        ensure!(self.machine.can_take(&input), "it can't take {input:?}");
        let before = self.machine.state().version;
        let step = match self.machine.step(at, input.clone()) {
            Ok(step) => step,
            Err(MachineError::Broken(error)) => bail!("broken: {error}"),
            Err(refused) => {
                ensure!(
                    self.machine.state() == &self.stored,
                    "it refused, and changed: {refused}"
                );
                self.follow(&input, None, false)?;
                return Ok(Taken::Refused);
            }
        };
        let Some(commit) = &step.commit else {
            ensure!(
                self.machine.state().version == before,
                "it changed, and committed nothing"
            );
            self.follow(&input, None, true)?;
            self.effects(step.effects)?;
            return Ok(Taken::Applied);
        };
        self.since_crash += 1;
        let crash = self
            .setting
            .crashes
            .front()
            .filter(|crash| crash.commits <= self.since_crash)
            .copied();
        if crash.is_some_and(|crash| crash.stored.is_none()) {
            self.crash()?;
            return Ok(Taken::Lost);
        }
        self.store(commit)?;
        self.answered(&input, commit)?;
        self.follow(&input, Some(commit), true)?;
        self.stepped(crash, step)?;
        Ok(Taken::Applied)
    }

    fn stepped(&mut self, crash: Option<Crash>, step: Step) -> Result<()> {
        let performed = crash.and_then(|crash| crash.stored);
        let effects = step.effects.into_iter();
        match performed {
            Some(performed) => {
                self.effects(effects.take(performed).collect())?;
                self.crash()?;
            }
            None => {
                let asks = goes_on(effects.as_slice());
                self.ledger.was_ahead |= asks;
                self.effects(effects.collect())?;
                check::work_is_asked_for(self, asks)?;
            }
        }
        check::state(self)?;
        check::model(self)
    }

    /// The store takes a commit.
    fn store(&mut self, commit: &Commit) -> Result<()> {
        check_versions(std::slice::from_ref(commit), Some(version_of(&self.stored)))?;
        let first = commit.events.first();
        ensure!(
            first.is_none_or(|event| event.seq == self.stored.next_event),
            "the events of version {} have a gap",
            commit.version
        );
        let numbered = commit.events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq);
        ensure!(numbered, "the events of version {} are not in order", commit.version);
        self.stored.apply(commit)?;
        self.commits += 1;
        if self.looks() {
            ensure!(
                *self.machine.state() == self.stored,
                "it is another than its commits make it"
            );
            self.reread()?;
        }
        self.seen(commit)
    }

    fn seen(&mut self, commit: &Commit) -> Result<()> {
        if self.setting.sections.events {
            self.told_events += commit.events.len() as u64;
        }
        if self.setting.sections.turns {
            let keys = commit.turns.iter().filter_map(|turn| turn.key.clone());
            self.told_turns.extend(keys);
        }
        self.ledger.committed(commit, &self.stored)
    }

    /// Whether it is time to look at everything.
    pub(super) fn looks(&self) -> bool {
        self.commits.is_multiple_of(self.setting.every)
    }

    fn reread(&self) -> Result<TreeState> {
        let json = write_tree(&self.stored)?;
        let read = read_tree(json.as_bytes())?;
        ensure!(read == self.stored, "it is another after it was stored:\n{json}");
        Ok(read)
    }

    /// The process is lost with all that it does, and another takes the tree up.
    ///
    /// # Errors
    /// What was stored can't be loaded.
    pub fn crash(&mut self) -> Result<()> {
        self.setting.crashes.pop_front();
        self.moves.push("crash".to_owned());
        self.since_crash = 0;
        self.tasks.clear();
        self.more = false;
        self.ledger.aborted(|_| true);
        let process = format!("p{}", self.processes).into();
        self.processes += 1;
        let specs = Specs {
            process: Some(process),
            ..self.specs.clone()
        };
        self.machine = Machine::load(self.reread()?, vec![self.grove.registry.clone()], specs)?;
        self.recovering = true;
        Ok(())
    }

    fn effects(&mut self, effects: Vec<Effect>) -> Result<()> {
        effects.into_iter().try_for_each(|effect| self.perform(effect))
    }

    /// Posts a message, as any process may.
    pub fn post(&mut self, execution: u64, request: Request) {
        let seq = self.inbox.len() as u64 + 1;
        let id = self.stored.get(execution).map(|state| state.id.clone());
        let message = Message {
            id: format!("m{seq}").into(),
            at: Timestamp::from_micros(self.now),
            execution: id.unwrap_or_else(|| self.stored.root.clone()),
            request,
        };
        self.inbox.push(Posted { seq, message });
    }

    /// The oldest message that was not taken.
    pub fn next_message(&self) -> Option<&Posted> {
        self.inbox.get(self.stored.inbox as usize)
    }

    /// What of the events of a commit says that an answer was discarded.
    pub(super) fn is_discarded(commit: &Commit) -> bool {
        let discarded = |event: &soe_backends::Event| matches!(event.kind, EventKind::CompletionDiscarded { .. });
        commit.events.iter().any(discarded)
    }
}

/// Whether the machine asks for its turn.
fn goes_on(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Continue))
}
