//! Taking an input, and working off what follows from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use soe_backends::{
    Accepted, ApplyError, Batch, Change, Delivery, EventKind, ExecutionChange, Frame, Posted, Request, WorkChange,
};

use super::cascade::Cursor;
use super::transaction::{Applied, Dispatched, Transaction};
use super::{Input, MAX_ACCEPTED, MachineError, check_signals};
use crate::config::NodeKind;

impl Transaction<'_> {
    /// Takes an input, and works off what follows from it.
    pub(super) fn take(&mut self, input: Input) -> Result<(), MachineError> {
        let goes_on = matches!(input, Input::Continue | Input::Recover);
        let work = &self.machine.state.work;
        let in_chain = !self.machine.stack.is_empty() || !work.deliveries.is_empty();
        if in_chain && !goes_on && !self.depth_first() {
            self.work.between = true;
            self.work.base = self.machine.stack.len();
        }
        if goes_on {
            self.work.spawns_before = 0;
        }
        match input {
            Input::Signal { execution, signals } => self.signal(execution, signals)?,
            // It was taken before: nothing follows from it.
            Input::Message(posted) if posted.seq <= self.machine.state.inbox => return Ok(()),
            Input::Message(posted) => self.message(posted)?,
            Input::Completed {
                execution,
                run,
                attempt,
                outcome,
            } => {
                self.enter_named(execution)?;
                self.complete(run, attempt, outcome)?;
            }
            Input::Due { execution, run } => {
                self.enter_named(execution)?;
                if !self.due(run)? {
                    return Ok(());
                }
            }
            Input::Asked { execution, run, call } => {
                self.enter_named(execution)?;
                return self.custom_asked(run, call);
            }
            Input::Replied {
                execution,
                run,
                call,
                usage,
            } => {
                self.enter_named(execution)?;
                self.custom_replied(run, call, usage)?;
            }
            Input::Builtin { execution, call } => {
                self.enter_named(execution)?;
                self.builtin(&call)?;
            }
            Input::Revert {
                execution,
                to,
                registry,
            } => {
                self.enter_named(execution)?;
                self.revert(to, registry)?;
            }
            Input::Define(definitions) => self.definitions = Some(definitions),
            Input::Resume { execution, limits } => self.resume(execution, limits)?,
            Input::Cancel { execution } => {
                self.enter_named(execution)?;
                self.cancel()?;
            }
            Input::LimitExceeded { limit, message } => {
                self.enter_named(0)?;
                self.fail_tree(limit, message)?;
            }
            Input::Continue => {}
            Input::Recover if self.machine.under_way => return Ok(()),
            Input::Recover => self.recover()?,
            Input::Settle => self.settles = true,
        }
        Ok(self.drain()?)
    }

    /// Signals from outside: broadcast at once, or when what goes on is over.
    fn signal(&mut self, execution: u64, signals: Vec<Arc<str>>) -> Result<(), MachineError> {
        let signals = check_signals(signals)?;
        self.enter_named(execution)?;
        if !self.status().accepts_signals() {
            return Err(MachineError::NotAccepting(self.status()));
        }
        let waiting = &self.machine.state.work.accepted;
        let is_busy = match self.depth_first() {
            true => !self.machine.stack.is_empty() || !self.machine.awaited.is_empty(),
            false => self.machine.has_part_in_chain(execution),
        };
        if !is_busy && !waiting.iter().any(|waiting| waiting.execution == execution) {
            return Ok(self.broadcast(signals)?);
        }
        if waiting.len() >= MAX_ACCEPTED {
            return Err(MachineError::TooManyAccepted);
        }
        self.wake()?;
        self.work.accepted.push(Accepted { execution, signals });
        Ok(())
    }

    /// Takes a message of the inbox. What it asks for may be refused: that is an event, and nothing else then.
    fn message(&mut self, posted: Posted) -> Result<(), MachineError> {
        let Posted { seq, message } = posted;
        let execution = self.machine.state.number_of(&message.execution);
        let taken = match (execution, message.request) {
            (None, _) => Err(MachineError::NoSuchExecution),
            (Some(execution), Request::Signal(signals)) => self.signal(execution, signals.to_vec()),
            (Some(execution), Request::Cancel) => self.enter_named(execution).and_then(|()| Ok(self.cancel()?)),
            (Some(execution), Request::Resume { limits }) => self.resume(execution, limits),
            (Some(_), Request::Define(definitions)) => {
                self.definitions = Some(definitions);
                Ok(())
            }
            (Some(_), _) => Err(MachineError::NoSuchExecution),
        };
        let refused = match taken {
            Ok(()) => None,
            Err(MachineError::Broken(error)) => return Err(error.into()),
            Err(refused) => Some(refused.to_string().into()),
        };
        self.apply(Change::Taken(seq))?;
        self.here = execution.unwrap_or(0);
        self.event(EventKind::MessageTaken {
            message: message.id,
            refused,
        });
        Ok(())
    }

    /// Works the work list off, as far as the schedule and the driver's turn allow.
    pub(super) fn drain(&mut self) -> Applied {
        loop {
            if !self.cascade()? {
                // A depth-first tree waits for what was dispatched, unless that starts children.
                if self.paused || self.dispatched.is_empty() {
                    break;
                }
                self.end_round()?;
                continue;
            }
            if let Some(delivery) = self.next_delivery() {
                self.deliver(&delivery)?;
                continue;
            }
            self.end_round()?;
            if self.machine.stack.len() > self.work.base || self.spawn_next()? {
                continue;
            }
            if self.paused || !self.take_accepted()? {
                break;
            }
        }
        self.end_round()
    }

    fn next_delivery(&mut self) -> Option<Arc<Delivery>> {
        let tree = &self.machine.state;
        if !self.work.between
            && let Some(delivery) = tree.work.deliveries.get(self.work.delivered)
        {
            self.work.delivered += 1;
            return Some(delivery.clone());
        }
        while let Some(delivery) = self.work.deliveries.pop_front() {
            let parent = tree.get(delivery.child).and_then(|child| child.parent());
            if !self.work.between || !parent.is_some_and(|parent| self.machine.has_part_in_chain(parent)) {
                return Some(delivery);
            }
            self.work.late.push(delivery);
        }
        None
    }

    /// Broadcasts the oldest batch that waits. Says whether there was one.
    fn take_accepted(&mut self) -> Result<bool, ApplyError> {
        if self.work.between || self.must_wait() {
            return Ok(false);
        }
        loop {
            let waiting = self.machine.state.work.accepted.get(self.work.taken);
            let next = match waiting {
                Some(next) => {
                    self.work.taken += 1;
                    next.clone()
                }
                None if self.work.accepted.is_empty() => return Ok(false),
                None => self.work.accepted.remove(0),
            };
            self.enter(next.execution)?;
            self.ended |= self.machine.state.ended_at(next.execution).is_some();
            if self.status().accepts_signals() {
                self.broadcast(next.signals)?;
                return Ok(true);
            }
        }
    }

    /// Gives the runs that were dispatched since the last round their inputs: the context as it is now.
    fn end_round(&mut self) -> Applied {
        let dispatched = std::mem::take(&mut self.dispatched);
        // Requests are counted first: the context that all of them read is that of the round's end.
        for Dispatched { execution, run, node } in &dispatched {
            self.enter(*execution)?;
            if self.is_running() {
                self.begin_run(*run, node)?;
            }
        }
        for (execution, run) in std::mem::take(&mut self.first) {
            self.enter(execution)?;
            self.change(ExecutionChange::Snapshot { run })?;
        }
        let mut spawning = Vec::new();
        for Dispatched { execution, run, node } in dispatched {
            self.enter(execution)?;
            let starts_children = matches!(node.kind, NodeKind::Child(_));
            if self.depth_first() && !starts_children {
                self.machine.awaited.insert((execution, run));
            }
            if !self.is_running() {
                continue;
            }
            if starts_children {
                spawning.push((execution, run));
                continue;
            }
            let context = self.state().context.clone();
            self.perform(run, 1, &node, &context)?;
        }
        for (execution, run) in spawning {
            self.enter(execution)?;
            self.spawn_later(run)?;
        }
        Ok(())
    }

    /// Puts what is left of the work list into the state, where it changed.
    pub(super) fn keep_work(&mut self) -> Applied {
        self.machine.pop_visited(0);
        let (kept, depth) = (self.machine.stack_kept, self.machine.stack.len());
        let same_stack = kept == depth && depth == self.machine.state.work.stack.len();
        let deliveries: Vec<_> = self.work.late.drain(..).chain(self.work.deliveries.drain(..)).collect();
        let accepted = std::mem::take(&mut self.work.accepted);
        let spawns = self
            .work
            .spawns_changed
            .then(|| self.work.spawns.iter().copied().collect::<Vec<_>>());
        let spawns = spawns.filter(|spawns| !self.machine.state.work.spawns.iter().eq(spawns));
        let same = same_stack && self.work.delivered == 0 && deliveries.is_empty();
        if same && spawns.is_none() && self.work.taken == 0 && accepted.is_empty() {
            return Ok(());
        }
        let frames = self.machine.stack[kept..].iter().map(Cursor::frame).collect();
        self.machine.stack_kept = depth;
        self.apply(Change::Work(Box::new(WorkChange {
            kept,
            frames,
            delivered: self.work.delivered,
            deliveries,
            spawns,
            taken: self.work.taken,
            accepted,
        })))
    }

    /// The executions that something on the work list is about.
    pub(super) fn on_work_list(&self) -> BTreeSet<u64> {
        let tree = &self.machine.state;
        let parent_of = |delivery: &Arc<Delivery>| tree.get(delivery.child).and_then(|child| child.parent());
        let stored = tree.work.deliveries.iter().skip(self.work.delivered);
        let deliveries = stored.chain(&self.work.deliveries).chain(&self.work.late);
        let mut on_list: BTreeSet<u64> = deliveries.filter_map(parent_of).collect();
        on_list.extend(self.machine.stack.iter().map(|cursor| cursor.execution));
        on_list.extend(self.work.spawns.iter().map(|spawn| spawn.execution));
        let accepted = tree.work.accepted.iter().skip(self.work.taken);
        on_list.extend(accepted.chain(&self.work.accepted).map(|accepted| accepted.execution));
        on_list
    }
}

impl Cursor {
    pub(super) fn frame(&self) -> Frame {
        Frame {
            execution: self.execution,
            signals: self.signals.clone(),
            registry: self.registry.clone(),
            next: self.next,
            then: self.then.clone(),
        }
    }
}

/// The signals of a batch that `wanted` has.
pub(super) fn among(signals: &Batch, wanted: &[Arc<str>]) -> Option<Batch> {
    let passes = |signal: &&Arc<str>| wanted.contains(signal);
    match signals.iter().filter(passes).count() {
        0 => None,
        all if all == signals.len() => Some(signals.clone()),
        _ => Some(signals.iter().filter(passes).cloned().collect()),
    }
}
