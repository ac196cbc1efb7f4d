//! Children and parents: what an execution tells its parent, and what comes from its children.

use std::sync::Arc;

use soe_backends::{
    ApplyError, Batch, Change, Child, ChildStatus, EventKind, ExecutionId, Failure, Family, Incoming, Received,
    Schedule, Status, Tell, Then, Told, Value,
};

use super::transaction::{Applied, Transaction};
use super::{Descend, Effect, Heard, MachineError};

impl Transaction<'_> {
    pub(super) fn family(&self) -> Option<&Family> {
        self.state().family.as_deref()
    }

    /// The signals of a batch that are passed on to the parent.
    pub(super) fn passed_on(&self, signals: &Batch) -> Option<Batch> {
        let parent = self.state().context.parent.as_ref()?;
        let passes = |signal: &&Arc<str>| parent.signals_to_parent.contains(signal);
        match signals.iter().filter(passes).count() {
            0 => None,
            all if all == signals.len() => Some(signals.clone()),
            _ => Some(signals.iter().filter(passes).cloned().collect()),
        }
    }

    /// Tells the parent signals, with the values that wait for it.
    pub(super) fn tell_signals(&mut self, signals: Batch) -> Applied {
        self.event(EventKind::SignalsToParent {
            signals: signals.clone(),
        });
        self.tell(Tell {
            signals: Some(signals),
            ..Tell::default()
        })
    }

    pub(super) fn tell(&mut self, tell: Tell) -> Applied {
        self.change(Change::Told(Box::new(tell)))
    }

    /// At the end of an event: tells the parent where the execution stands, if that is another than before.
    pub(super) fn tell_status(&mut self) -> Applied {
        if self.state().context.parent.is_none() {
            return Ok(());
        }
        let status = match (self.status_before, self.state().status) {
            (before, now) if before == now => None,
            (_, Status::Rested) => Some(ChildStatus::Rested),
            (Status::Rested | Status::Suspended | Status::Failed, Status::Running) => Some(ChildStatus::Active),
            (_, Status::Failed) => Some(ChildStatus::Failed),
            (_, Status::Cancelled) => Some(ChildStatus::Cancelled),
            _ => None,
        };
        let waits = self.family().is_some_and(|family| !family.unsent.is_empty());
        if status.is_none() && !(waits && self.state().status == Status::Rested) {
            return Ok(());
        }
        let failure = self.state().failure.as_ref();
        let error = failure
            .filter(|_| status == Some(ChildStatus::Failed))
            .map(|failure| failure.to_string().into());
        // Signals that were emitted before a failure are the parent's before it hears of that.
        let joined = error.is_none()
            && self
                .family()
                .is_some_and(|family| family.told > self.told_before && !family.outbox.is_empty());
        self.tell(Tell {
            signals: None,
            status,
            error,
            joined,
        })
    }

    /// Whether the parent knows that this execution is active. Only then it rests: what it tells last is asked for after a
    /// crash by the parent that waits for it.
    pub(super) fn parent_looks_after_it(&self) -> bool {
        let Some(family) = self.family().filter(|family| !family.outbox.is_empty()) else {
            return true;
        };
        let woken_now = self.status_before == Status::Rested && family.told > self.told_before;
        let wakes = |message: &Arc<Told>| message.status == Some(ChildStatus::Active);
        !woken_now && !family.outbox.iter().any(wakes)
    }

    /// At the end of an event: what it tells while its parent may take it for resting, nobody asks for. It has something to do
    /// until that is acknowledged, also when it doesn't run.
    pub(super) fn must_be_heard(&mut self) -> Applied {
        let Some(family) = self.family() else { return Ok(()) };
        let (tells, descending) = (family.told > self.told_before, family.descending);
        let stood = matches!(self.status_before, Status::Rested | Status::Suspended | Status::Failed);
        let unasked = stood && tells || !self.parent_looks_after_it();
        match self.is_unheard() && !descending && unasked {
            true => self.change(Change::Descending(true)),
            false => Ok(()),
        }
    }

    /// Whether it has come to an end, or to rest, and its parent may not have heard of it.
    pub(super) fn is_unheard(&self) -> bool {
        let stands = matches!(self.state().status, Status::Rested | Status::Failed | Status::Cancelled);
        stands && self.family().is_some_and(|family| !family.outbox.is_empty())
    }

    /// The messages that this event made, to be delivered.
    pub(super) fn deliver_told(&mut self) {
        let before = self.told_before;
        self.deliver(|message| message.number > before);
    }

    /// All messages that the parent hasn't acknowledged.
    pub(super) fn deliver_again(&mut self) {
        self.deliver(|_| true);
    }

    fn deliver(&mut self, wanted: impl Fn(&Told) -> bool) {
        let Some(parent) = self
            .state()
            .context
            .parent
            .as_ref()
            .map(|parent| parent.parent_execution_id.clone())
        else {
            return;
        };
        let family = self.machine.state.family.as_deref();
        let messages = family
            .into_iter()
            .flat_map(|family| &family.outbox)
            .filter(|message| wanted(message));
        let effects: Vec<Effect> = messages
            .map(|message| Effect::Tell {
                parent: parent.clone(),
                message: message.clone(),
            })
            .collect();
        self.effects.extend(effects);
    }

    /// The parent has dealt with the messages up to this number.
    pub(super) fn acknowledged(&mut self, number: u64) -> Applied {
        if !self.has_unacknowledged(number) {
            return Ok(());
        }
        self.change(Change::Acknowledged(number))?;
        self.cascade()
    }

    /// Whether messages up to this number are still in the outbox.
    pub(super) fn has_unacknowledged(&self, number: u64) -> bool {
        let first = self.family().and_then(|family| family.outbox.front());
        first.is_some_and(|first| first.number <= number)
    }

    /// A message of a child.
    pub(super) fn receive(&mut self, child: ExecutionId, message: Arc<Told>) -> Result<(), MachineError> {
        let known = self.child(&child).map_or(0, |child| child.received);
        let kept = self.family().into_iter().flat_map(|family| &family.inbox);
        let of_child = kept.filter(|kept| kept.child == child);
        let kept = of_child.map(|kept| kept.message.number).max().unwrap_or(known);
        let number = message.number;
        if number > kept + 1 && self.state().status != Status::Cancelled {
            let expected = kept + 1;
            return Err(MachineError::OutOfOrder {
                child,
                number,
                expected,
            });
        }
        let is_kept = number > known && number <= kept;
        if number <= known || is_kept {
            // A depth-first child goes on when the message is dealt with, however often it was brought.
            let pending = self.state().schedule == Schedule::DepthFirst && self.is_running();
            if !(pending && (is_kept || self.answers(&child, number))) {
                self.acknowledge(child, number);
            }
            return Ok(());
        }
        match self.state().status {
            Status::Cancelled => {
                self.event(EventKind::DeliveryDiscarded {
                    child: child.clone(),
                    number,
                });
                self.acknowledge(child, number);
                Ok(())
            }
            Status::Running | Status::Rested if self.can_take_in() => {
                if let Some((limit, text)) = self.too_much(&message.updates) {
                    // It stays, to be taken when the execution is resumed under other limits.
                    self.acknowledge(child.clone(), number);
                    self.change(Change::Kept(Arc::new(Incoming { child, message })))?;
                    return Ok(self.fail_for_limit(limit, text)?);
                }
                self.take_in(&child, &message)?;
                Ok(self.cascade()?)
            }
            status => {
                if status == Status::Rested {
                    // Depth-first, its own last message comes first. It has something to do until it has taken this one in.
                    self.wake()?;
                }
                if !self.is_running() || self.state().schedule == Schedule::Concurrent {
                    self.acknowledge(child.clone(), number);
                }
                Ok(self.change(Change::Kept(Arc::new(Incoming { child, message })))?)
            }
        }
    }

    /// Whether what this message led to is still being worked off.
    fn answers(&self, child: &ExecutionId, number: u64) -> bool {
        self.machine.stack.iter().any(|cursor| match cursor.then.as_deref() {
            Some(Then::Acknowledge { child: of, number: n }) => of == child && *n == number,
            _ => false,
        })
    }

    fn acknowledge(&mut self, child: ExecutionId, number: u64) {
        self.effects.push(Effect::Acknowledge { child, number });
    }

    pub(super) fn child(&self, id: &ExecutionId) -> Option<&Child> {
        self.family()?.children.get(id)
    }

    /// Applies the oldest message that waits; says whether there was one.
    pub(super) fn take_in_kept(&mut self) -> Result<bool, ApplyError> {
        let Some(kept) = self.family().and_then(|family| family.inbox.front()).cloned() else {
            return Ok(false);
        };
        if let Some((limit, text)) = self.too_much(&kept.message.updates) {
            // It stays where it is: the first to be taken when the execution is resumed under other limits.
            self.acknowledge(kept.child.clone(), kept.message.number);
            self.fail_for_limit(limit, text)?;
            return Ok(true);
        }
        self.change(Change::TakenIn)?;
        self.take_in(&kept.child, &kept.message)?;
        Ok(true)
    }

    /// Applies what a child told: its values, where it stands, its signals, all in this event.
    pub(super) fn take_in(&mut self, id: &ExecutionId, message: &Arc<Told>) -> Applied {
        let Some(child) = self.child(id).cloned() else {
            return Ok(());
        };
        self.change(Change::Received {
            child: id.clone(),
            message: Received {
                number: message.number,
                status: message.status,
                totals: message.totals,
            },
        })?;
        for (field, value) in &message.updates {
            let size = value.size();
            self.append(field.clone(), value.clone(), size)?;
        }
        // One that has failed can be cancelled later: that is no news.
        let over = |status| matches!(status, ChildStatus::Failed | ChildStatus::Cancelled);
        let failed = message.status.is_some_and(over) && !over(child.status);
        if message.signals.is_some() || failed || message.status == Some(ChildStatus::Active) {
            self.wake()?;
        }
        if failed {
            self.child_failed(id, &child, message)?;
        }
        let depth_first = self.state().schedule == Schedule::DepthFirst;
        match &message.signals {
            Some(signals) if self.is_running() => {
                match depth_first {
                    // Below the batch on the stack: the child goes on when its own parent and those above are done with it.
                    true => self.push_answer(id.clone(), message.number),
                    false => self.acknowledge(id.clone(), message.number),
                }
                self.take_up(signals.clone())?;
            }
            _ => self.acknowledge(id.clone(), message.number),
        }
        match message.status {
            Some(ChildStatus::Active) | None => Ok(()),
            Some(_) => self.child_is_over(child.run),
        }
    }

    fn child_failed(&mut self, id: &ExecutionId, child: &Child, message: &Told) -> Applied {
        let error: Arc<str> = match (&message.error, message.status) {
            (Some(error), _) => error.clone(),
            (None, Some(ChildStatus::Cancelled)) => "it was cancelled".into(),
            _ => "it failed".into(),
        };
        self.event(EventKind::ChildFailed {
            child: id.clone(),
            error: error.clone(),
        });
        self.change(Change::Error)?;
        match &child.failure_signal {
            Some(signal) => self.take_up([signal.clone()].into()),
            None => self.fail(Failure {
                message: format!("child execution {id}: {}", without_middle(&error)),
                node: Some(child.node.clone()),
                limit: None,
            }),
        }
    }

    /// The limit that these values would exceed, and how.
    fn too_much(&self, updates: &[(Arc<str>, Value)]) -> Option<(&'static str, String)> {
        let limits = &self.state().limits;
        let size: u64 = updates.iter().map(|(_, value)| value.size()).sum();
        let total = self.state().context_bytes.saturating_add(size);
        (total > limits.context_bytes).then(|| {
            let allowed = limits.context_bytes;
            let message = format!("with the values of a child the context has {total} bytes, {allowed} are allowed");
            ("context_bytes", message)
        })
    }

    /// Acknowledges the messages that a depth-first execution is not done with: it goes on with them when it is resumed, and
    /// nobody waits for that.
    pub(super) fn release_senders(&mut self) {
        if self.state().schedule != Schedule::DepthFirst {
            return;
        }
        let answered = self
            .machine
            .stack
            .iter()
            .filter_map(|cursor| match cursor.then.as_deref() {
                Some(Then::Acknowledge { child, number }) => Some((child.clone(), *number)),
                _ => None,
            });
        let kept = self.family().into_iter().flat_map(|family| &family.inbox);
        let kept = kept.map(|kept| (kept.child.clone(), kept.message.number));
        let all: Vec<_> = answered.chain(kept).collect();
        for (child, number) in all {
            self.acknowledge(child, number);
        }
    }

    /// Forgets the messages that a cancelled execution has kept.
    pub(super) fn discard_kept(&mut self) -> Applied {
        while let Some(kept) = self.family().and_then(|family| family.inbox.front()).cloned() {
            self.change(Change::TakenIn)?;
            self.event(EventKind::DeliveryDiscarded {
                child: kept.child.clone(),
                number: kept.message.number,
            });
        }
        Ok(())
    }

    /// Notes that what becomes of the execution has to go down to its children, if there are any.
    pub(super) fn must_descend(&mut self) -> Applied {
        match self.family() {
            Some(family) if !family.children.is_empty() && !family.descending => self.change(Change::Descending(true)),
            _ => Ok(()),
        }
    }

    /// Takes what becomes of an execution down to its children.
    pub(super) fn descend(&mut self, what: Descend) {
        let resumes = matches!(what, Descend::Resume { .. });
        let descending = self.family().is_some_and(|family| family.descending);
        let wanted = |child: &Child| match child.status {
            ChildStatus::Cancelled => false,
            // One that has failed has suspended its own children, but it and they can still be cancelled.
            ChildStatus::Failed => what == Descend::Cancel,
            // They have nothing to go on with, unless they were suspended with this execution.
            ChildStatus::Rested => descending || !resumes,
            _ => true,
        };
        let heard = |child: &Child| Heard {
            received: child.received,
            waits: child.status == ChildStatus::Active,
        };
        let children = self.family().into_iter().flat_map(|family| &family.children);
        let children = children.filter(|(_, child)| wanted(child));
        let children: Vec<_> = children.map(|(id, child)| (id.clone(), heard(child))).collect();
        // Somebody has to say that it is done, also if there is none.
        if descending || !children.is_empty() {
            self.effects.push(Effect::Descend { what, children });
        }
    }

    /// An execution above this one has failed.
    pub(super) fn suspend(&mut self) -> Applied {
        self.catch_up()?;
        if !self.state().status.accepts_signals() {
            return Ok(());
        }
        self.event(EventKind::ExecutionSuspended {});
        self.change(Change::Status {
            status: Status::Suspended,
            at: self.at,
            failure: None,
        })?;
        self.abort_all();
        self.must_descend()?;
        self.descend(Descend::Suspend);
        Ok(())
    }
}

/// The error of a child many levels below begins with the way to it, and ends with what happened.
fn without_middle(error: &str) -> String {
    const BEGINNING: usize = 300;
    const END: usize = 1_000;
    if error.len() <= BEGINNING + END {
        return error.to_owned();
    }
    let boundary = |at: usize| {
        (at..error.len())
            .find(|at| error.is_char_boundary(*at))
            .unwrap_or(error.len())
    };
    let (first, last) = (boundary(BEGINNING), boundary(error.len() - END));
    format!("{}[...]{}", &error[..first], &error[last..])
}
