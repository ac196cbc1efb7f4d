//! A tree in progress: which machine is given what next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};
use fastrand::Rng;
use soe_backends::{Change, Commit, ExecutionId, ExecutionState, Status, Timestamp, Told};
use soe_core::machine::{Descend, Heard, Input, Machine, MachineError, Outcome, Spawn, Specs, Start, Step};
use soe_core::tools::ToolSpec;

use super::generate::{Forest, ROOT};
use super::{Plan, check};
use crate::sim::outcome::rng;

/// So many moves bring every tree to an end.
const MOVES: usize = 30_000;

/// A tree of machines, and what is under way between them.
pub struct Trees<'f> {
    pub(super) forest: &'f Forest,
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) members: BTreeMap<ExecutionId, Member>,
    pub(super) tasks: Vec<Task>,
    specs: Specs,
    now: u64,
    pings: u32,
    /// So often nodes still fail.
    pub(super) failures: u32,
    /// The executions that somebody has cancelled.
    pub(super) cancelled: Vec<ExecutionId>,
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
    /// Its machine is lost.
    Crash(ExecutionId),
}

/// An execution.
pub(super) struct Member {
    /// `None` while nobody runs it.
    machine: Option<Machine>,
    /// Its state, made of the commits alone.
    pub(super) state: ExecutionState,
    /// What it has told its parent, in order, as long as it isn't acknowledged.
    pub(super) relay: VecDeque<Arc<Told>>,
    /// The number of the message that was brought last.
    brought: u64,
    /// What has to go down to its children.
    pub(super) descents: VecDeque<(Descend, Vec<(ExecutionId, Heard)>)>,
}

/// Something to be done for an execution, which is forgotten when the execution's machine is lost.
pub(super) struct Task {
    pub(super) of: ExecutionId,
    pub(super) what: What,
}

pub(super) enum What {
    Complete { run: u64, attempt: u32, outcome: Outcome },
    Spawn(Spawn),
    Continue,
    Acknowledge { child: ExecutionId, number: u64 },
    Descend,
}

impl<'f> Trees<'f> {
    /// Nothing is started yet.
    pub fn new(forest: &'f Forest, plan: Plan) -> Self {
        let tools = ToolSpec::new("t", "", serde_json::json!({})).into_iter();
        Self {
            forest,
            plan,
            rng: rng(&[plan.seed, 12]),
            members: BTreeMap::new(),
            tasks: Vec::new(),
            specs: Specs::from(tools.collect::<soe_core::tools::ToolSpecs>()),
            now: 0,
            pings: plan.pings,
            failures: plan.resumes.unwrap_or(u32::MAX),
            cancelled: Vec::new(),
            moves: Vec::new(),
        }
    }

    /// Starts the root, and makes random moves until everything has come to rest.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn run(&mut self) -> Result<()> {
        let list = |length| soe_backends::Value::list((0..length).map(|item| soe_backends::Value::from(item as u64)));
        let fields = self.forest.fields.iter();
        let start = Start {
            id: ExecutionId::new("x")?,
            main_execution_id: None,
            parent: None,
            registry: self.forest.registry.clone(),
            workflow: ROOT.into(),
            fields: fields
                .map(|(name, length)| ((*name).into(), [list(*length)].into_iter().collect()))
                .collect(),
            definitions: Default::default(),
            schedule: self.plan.schedule,
            limits: Arc::default(),
            signals: vec!["START".into()],
            inherited: Default::default(),
        };
        self.start(start)?;
        let mut cancels = [self.plan.cancel_root, self.plan.cancel_child];
        for _ in 0..MOVES {
            if !self.next_move(&mut cancels)? {
                return check::finished(self);
            }
        }
        bail!("it doesn't come to an end")
    }

    /// Creates an execution, unless it exists.
    pub(super) fn start(&mut self, start: Start) -> Result<()> {
        let id = start.id.clone();
        if self.members.contains_key(&id) {
            return Ok(());
        }
        let (machine, step) = Machine::start(self.at(), start, self.specs.clone())?;
        let commit = step.commit.as_ref().ok_or_else(|| anyhow!("{id} was not created"))?;
        let member = Member {
            state: ExecutionState::create(commit)?,
            machine: Some(machine),
            relay: VecDeque::new(),
            brought: 0,
            descents: VecDeque::new(),
        };
        self.moves.push(Move::Created(id.clone()));
        self.members.insert(id.clone(), member);
        self.same(&id)?;
        self.perform(&id, step.effects)
    }

    fn next_move(&mut self, cancels: &mut [bool; 2]) -> Result<bool> {
        let down: Vec<ExecutionId> = self
            .members
            .iter()
            .filter(|(_, m)| m.machine.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        let fresh = self.messages(|member| member.relay.front().is_some_and(|first| first.number > member.brought));
        let again = self.messages(|member| !member.relay.is_empty());
        let unreliable = self.plan.unreliable || self.plan.crashes > 0;
        let idle = self.tasks.is_empty() && down.is_empty() && again.is_empty() && self.pings == 0;
        if self.plan.crashes > 0 && !idle && self.rng.u8(..self.plan.crashes) == 0 {
            self.crash();
        } else if self.pings > 0 && (self.tasks.is_empty() || self.rng.u8(..12) == 0) {
            self.pings -= 1;
            let to = self.any();
            self.outside(&to, Input::Broadcast(vec!["PING".into()]))?;
        } else if cancels[0] && self.rng.u8(..25) == 0 {
            cancels[0] = false;
            self.cancel(ExecutionId::new("x")?)?;
        } else if cancels[1] && self.members.len() > 1 && self.rng.u8(..15) == 0 {
            cancels[1] = false;
            let any = self.any();
            if any.as_str() != "x" {
                self.cancel(any)?;
            }
        } else if !down.is_empty() && (self.tasks.is_empty() || self.rng.u8(..6) == 0) {
            let id = down[self.rng.usize(..down.len())].clone();
            self.recover(&id)?;
        } else if !fresh.is_empty() && (self.tasks.is_empty() || self.rng.bool()) {
            let child = fresh[self.rng.usize(..fresh.len())].clone();
            self.bring(&child)?;
        } else if unreliable && !again.is_empty() && (self.tasks.is_empty() || self.rng.u8(..8) == 0) {
            let child = again[self.rng.usize(..again.len())].clone();
            self.bring(&child)?;
        } else if !self.tasks.is_empty() {
            let task = self.tasks.swap_remove(self.rng.usize(..self.tasks.len()));
            self.performed(task)?;
        } else if !again.is_empty() {
            bail!("nobody acknowledges the messages of {again:?}");
        } else {
            return self.resume();
        }
        Ok(true)
    }

    /// Has the root go on, or what has failed below it.
    fn resume(&mut self) -> Result<bool> {
        let failed = |member: &Member| member.state.status == Status::Failed;
        let root = ExecutionId::new("x")?;
        let wanted = match self.members.get(&root) {
            Some(member) if failed(member) => Some(root),
            _ => {
                // The highest: those below one that has failed go on with that.
                let all = self.members.iter().filter(|(_, member)| failed(member));
                all.map(|(id, _)| id).min_by_key(|id| id.as_str().len()).cloned()
            }
        };
        let Some(id) = wanted.filter(|_| self.plan.resumes.is_some()) else {
            return Ok(false);
        };
        self.load(&id)?;
        let (limits, parent) = (None, None);
        self.input(&id, Input::Resume { limits, parent })?;
        Ok(true)
    }

    fn messages(&self, wanted: impl Fn(&Member) -> bool) -> Vec<ExecutionId> {
        let runs = |id: &ExecutionId| self.members.get(id).is_some_and(|parent| parent.machine.is_some());
        let parent = |member: &Member| {
            member
                .state
                .context
                .parent
                .as_ref()
                .map(|info| info.parent_execution_id.clone())
        };
        let members = self.members.iter().filter(|(_, member)| wanted(member));
        members
            .filter(|(_, member)| parent(member).is_some_and(|parent| runs(&parent)))
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn any(&mut self) -> ExecutionId {
        let chosen = self.rng.usize(..self.members.len());
        self.members
            .keys()
            .nth(chosen)
            .cloned()
            .unwrap_or_else(|| unreachable!())
    }

    fn cancel(&mut self, id: ExecutionId) -> Result<()> {
        self.cancelled.push(id.clone());
        self.revive(&id)?;
        self.input(&id, Input::Cancel)
    }

    fn outside(&mut self, id: &ExecutionId, input: Input) -> Result<()> {
        self.revive(id)?;
        match self.input(id, input) {
            Err(error) if matches!(error.downcast_ref(), Some(MachineError::NotAccepting(_))) => Ok(()),
            result => result,
        }
    }

    /// Takes the oldest message of a child to its parent.
    fn bring(&mut self, child: &ExecutionId) -> Result<()> {
        let Some(member) = self.members.get_mut(child) else {
            bail!("{child} is unknown")
        };
        let Some(message) = member.relay.front().cloned() else {
            bail!("{child} tells nothing")
        };
        let parent = member
            .state
            .context
            .parent
            .as_ref()
            .map(|info| info.parent_execution_id.clone());
        let parent = parent.ok_or_else(|| anyhow!("{child} tells nobody"))?;
        member.brought = message.number;
        let input = Input::FromChild {
            child: child.clone(),
            message,
        };
        self.input(&parent, input)
    }

    fn crash(&mut self) {
        let id = self.any();
        self.moves.push(Move::Crash(id.clone()));
        self.tasks.retain(|task| task.of != id);
        if let Some(member) = self.members.get_mut(&id) {
            member.machine = None;
            member.relay.clear();
            member.descents.clear();
            member.brought = 0;
        }
    }

    /// Somebody runs an execution again.
    pub(super) fn revive(&mut self, id: &ExecutionId) -> Result<()> {
        match self.members.get(id) {
            Some(member) if member.machine.is_none() => self.recover(id),
            _ => Ok(()),
        }
    }

    fn recover(&mut self, id: &ExecutionId) -> Result<()> {
        self.load(id)?;
        self.input(id, Input::Recover)
    }

    /// Loads what nobody runs.
    pub(super) fn load(&mut self, id: &ExecutionId) -> Result<()> {
        let Some(member) = self.members.get_mut(id) else {
            bail!("{id} is unknown")
        };
        if member.machine.is_some() {
            return Ok(());
        }
        let stored = serde_json::to_string(&member.state)?;
        let read: ExecutionState = serde_json::from_str(&stored)?;
        ensure!(read == member.state, "{id} is another after it was stored:\n{stored}");
        member.machine = Some(Machine::load(
            read,
            vec![self.forest.registry.clone()],
            self.specs.clone(),
        )?);
        Ok(())
    }

    fn at(&mut self) -> Timestamp {
        self.now += self.rng.u64(1..5_000);
        Timestamp::from_micros(self.now)
    }

    pub(super) fn input(&mut self, id: &ExecutionId, input: Input) -> Result<()> {
        self.moves.push(Move::Input(id.clone(), input.clone()));
        let at = self.at();
        let member = self.members.get_mut(id).ok_or_else(|| anyhow!("{id} is unknown"))?;
        let machine = member.machine.as_mut().ok_or_else(|| anyhow!("{id} is down"))?;
        let message = match &input {
            Input::FromChild { child, message } => Some((child.clone(), message.clone())),
            _ => None,
        };
        let Step { commit, effects } = machine.step(at, input)?;
        if let Some(commit) = commit {
            member.state.fits(std::slice::from_ref(&commit))?;
            member.state.apply(&commit)?;
            if let Some((child, message)) = message {
                together(&commit, &child, &message)?;
            }
        }
        self.same(id)?;
        self.perform(id, effects)?;
        check::rest(self)
    }

    fn same(&self, id: &ExecutionId) -> Result<()> {
        let member = self.members.get(id).ok_or_else(|| anyhow!("{id} is unknown"))?;
        let compare = self.moves.len().is_multiple_of(8) || member.state.status != Status::Running;
        let same = !compare
            || member
                .machine
                .as_ref()
                .is_none_or(|machine| *machine.state() == member.state);
        ensure!(same, "{id} is another than its commits make it");
        let idle = matches!(member.state.status, Status::Rested | Status::Cancelled);
        let family = member.state.family.as_ref();
        let waits = family.is_some_and(|family| !family.inbox.is_empty());
        let left = !member.state.runs.is_empty() || !member.state.stack.is_empty() || !member.state.pending.is_empty();
        ensure!(
            !idle || !waits && !left,
            "{id} is {} with something left",
            member.state.status
        );
        Ok(())
    }
}

impl Member {
    pub(super) fn runs(&self) -> bool {
        self.machine.is_some()
    }
}

/// If a message was applied, then its values and its signals together, and in this order.
pub(crate) fn together(commit: &Commit, of: &ExecutionId, message: &Told) -> Result<()> {
    let applied = |change: &Change| matches!(change, Change::Received { child, message: received } if child == of && received.number == message.number);
    let Some(position) = commit.changes.iter().position(applied) else {
        return Ok(());
    };
    let mut changes = commit.changes[position + 1..].iter();
    for (field, value) in &message.updates {
        let appended =
            matches!(changes.next(), Some(Change::Appended { field: f, value: v, .. }) if f == field && v == value);
        ensure!(
            appended,
            "{field} of message {} of {of} was not appended with it",
            message.number
        );
    }
    if let Some(signals) = &message.signals {
        let mut rest = changes.skip_while(|change| matches!(change, Change::Status { .. }));
        let broadcast = matches!(rest.next(), Some(Change::Broadcast(batch)) if batch == signals);
        ensure!(
            broadcast,
            "{signals:?} of message {} of {of} was not broadcast with it",
            message.number
        );
    }
    Ok(())
}
