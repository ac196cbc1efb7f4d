//! Between the executions of a tree: children are created, messages are delivered, failures and cancellations go down.
//! A coordinator never waits for another one: tasks of their own do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use soe_backends::{ExecutionId, Told};
use tokio::sync::oneshot;
use tracing::Instrument;

use super::claim::{Claim, Claiming};
use super::coordinator::{Coordinator, TakenUp};
use super::engine::TRIES;
use super::perform::Performer;
use super::shared::{Control, Message, Shared};
use super::{EngineError, EngineErrorKind};
use crate::machine::{Descend, Heard, Input, Machine, Outcome, Spawn, Start};

/// Says when the first commit of a child is stored.
type Stored = oneshot::Receiver<Result<(), EngineError>>;

/// A child with that; `None` if it has a coordinator already.
type Begun = (Start, Option<Stored>);

/// So many children are reached at a time when something goes down.
const ABREAST: usize = 64;

/// The first and the longest time after which a message is brought again that the parent couldn't take.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Things to be done one after the other, by a task that runs as long as there are any.
pub(super) struct Queue<T>(Mutex<Waiting<T>>);

struct Waiting<T> {
    items: VecDeque<T>,
    running: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(Mutex::new(Waiting {
            items: VecDeque::new(),
            running: false,
        }))
    }
}

impl<T> Queue<T> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether a task has to be started.
    fn push(&self, item: T) -> bool {
        let mut waiting = self.waiting();
        waiting.items.push_back(item);
        !std::mem::replace(&mut waiting.running, true)
    }

    /// Without a next one, the task is over.
    fn next(&self) -> Option<T> {
        let mut waiting = self.waiting();
        let next = waiting.items.pop_front();
        waiting.running = next.is_some();
        next
    }
}

impl Performer {
    /// Delivers a message to the parent, after those before it.
    pub(super) fn tell(self: &Arc<Self>, parent: ExecutionId, message: Arc<Told>) {
        if !self.relay.push(message) {
            return;
        }
        let this = self.clone();
        self.shared.tasks.spawn(async move {
            while let Some(message) = this.relay.next() {
                let number = message.number;
                if this.deliver(&parent, message).await {
                    // A closed mailbox means that the execution rests: it finds out when it wakes.
                    drop(this.mailbox.send(Box::new(Message::Acknowledged { number })).await);
                }
            }
        });
    }

    /// Brings a message to the parent, again and again if need be: those after it can't come before it.
    async fn deliver(&self, parent: &ExecutionId, message: Arc<Told>) -> bool {
        let mut pause = PAUSES.0;
        loop {
            let Err(error) = self.shared.deliver(parent, &self.execution, message.clone()).await else {
                return true;
            };
            match error.kind() {
                EngineErrorKind::ShutDown => return false,
                // It was deleted: nobody wants the message any more, and nobody may wait for that.
                EngineErrorKind::NotFound => {
                    tracing::debug!(child = %self.execution, %parent, "a message to a deleted parent is discarded");
                    return true;
                }
                _ => {}
            }
            tracing::warn!(child = %self.execution, %parent, error = %format!("{error:#}"), "a message to the parent waits");
            tokio::select! {
                () = self.shared.stop.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
            pause = PAUSES.1.min(pause * 2);
        }
    }

    /// Creates children in a task of its own.
    pub(super) fn spawn_children(self: &Arc<Self>, spawn: Spawn) {
        let this = self.clone();
        let span = self.span(spawn.run, &spawn.node, "child");
        let task = async move {
            let (run, next) = (spawn.run, spawn.next);
            if let Some(due) = spawn.due {
                tokio::time::sleep(due.since(this.shared.now())).await;
            }
            let Some(begun) = this.begin_children(spawn.children) else {
                return;
            };
            let result = this.shared.created_all(begun).await;
            let (result, cause) = match result {
                Ok(()) => (Ok(()), None),
                Err(error) => (Err(format!("{error:#}").into()), Some(Box::new(error) as _)),
            };
            this.answer(run, next, Outcome::Spawned(result), cause).await;
        };
        self.spawn(task, span);
    }

    /// Starts the coordinators of children, unless the execution has ended meanwhile: then they would begin after the end
    /// has gone down to them, and go on for ever.
    fn begin_children(&self, children: Vec<Start>) -> Option<Result<Vec<Begun>, EngineError>> {
        let _no_end_meanwhile = self.spawning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.run.cancellation.is_cancelled() {
            return None;
        }
        let begin = |start: Start| Ok((start.clone(), self.shared.begin_child(start)?));
        Some(children.into_iter().map(begin).collect())
    }

    /// Takes what becomes of the execution down to the children, after what went down before.
    pub(super) fn descend(self: &Arc<Self>, what: Descend, children: Vec<(ExecutionId, Heard)>) {
        if !self.descents.push((what, children)) {
            return;
        }
        let this = self.clone();
        let task = async move {
            while let Some((what, children)) = this.descents.next() {
                // Children that are being started have coordinators when this is free.
                drop(this.spawning.lock());
                let reach = |(child, heard)| this.shared.reach(&what, child, heard);
                let reached = futures::stream::iter(children).map(reach).buffer_unordered(ABREAST);
                let reached = reached.fold(true, async |all, reached| all && reached).await;
                // The coordinator waits for it, unless the engine stops.
                drop(this.mailbox.send(Box::new(Message::Descended { reached })).await);
            }
        };
        self.shared.tasks.spawn(task.in_current_span());
    }
}

impl Shared {
    /// Says whether the child was reached.
    async fn reach(self: &Arc<Self>, what: &Descend, child: ExecutionId, heard: Heard) -> bool {
        let input = match what {
            Descend::Cancel => Input::Cancel,
            Descend::Suspend => Input::Suspend,
            Descend::Resume { limits } => Input::Resume {
                limits: Some(limits.clone()),
                parent: Some(heard),
            },
        };
        match self.control(&child, input).await {
            Ok(()) => true,
            // It was registered, and its parent ended before it was created.
            Err(error) if *error.kind() == EngineErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(%child, error = %format_args!("{error:#}"), "a child wasn't reached");
                false
            }
        }
    }

    async fn created_all(self: &Arc<Self>, begun: Result<Vec<Begun>, EngineError>) -> Result<(), EngineError> {
        let begun = begun?;
        for (start, stored) in begun {
            match stored {
                None => self.create_or_take_up(start).await?,
                Some(stored) => self.created(&start.id, stored).await?,
            }
        }
        Ok(())
    }

    /// For a child that has a coordinator: it exists, unless that is about to find out that it doesn't.
    async fn create_or_take_up(self: &Arc<Self>, start: Start) -> Result<(), EngineError> {
        for _ in 0..TRIES {
            match self.control(&start.id, Input::Recover).await {
                Err(error) if *error.kind() == EngineErrorKind::NotFound => {}
                result => return result,
            }
            if let Some(stored) = self.begin_child(start.clone())? {
                return self.created(&start.id, stored).await;
            }
        }
        Err(EngineError::new(EngineErrorKind::Internal).of(&start.id))
    }

    async fn created(self: &Arc<Self>, id: &ExecutionId, stored: Stored) -> Result<(), EngineError> {
        match stored.await {
            Ok(Err(error)) if error.is_conflict() => self.take_up(id),
            Ok(result) => result,
            Err(_) => Err(EngineError::new(EngineErrorKind::ShutDown).of(id)),
        }
    }

    /// Starts the coordinator of a child; `None` if it has one.
    fn begin_child(self: &Arc<Self>, start: Start) -> Result<Option<Stored>, EngineError> {
        self.check_runnable(&start.registry, &start.workflow)?;
        let Claiming::Claimed(claim) = Claim::take(self, &start.id)? else {
            return Ok(None);
        };
        let id = start.id.clone();
        let (machine, step) =
            Machine::start(self.now(), start, self.specs.clone()).map_err(|error| EngineError::from(error).of(&id))?;
        let (reply, stored) = oneshot::channel();
        Coordinator::spawn_new(claim, machine, step, reply);
        Ok(Some(stored))
    }

    /// Goes on with an execution that is stored, unless somebody does.
    fn take_up(self: &Arc<Self>, id: &ExecutionId) -> Result<(), EngineError> {
        if let Claiming::Claimed(claim) = Claim::take(self, id)? {
            Coordinator::spawn_stored(claim, TakenUp::Recovered);
        }
        Ok(())
    }

    /// Brings a message to the parent, and waits until it is dealt with.
    async fn deliver(
        self: &Arc<Self>,
        parent: &ExecutionId,
        child: &ExecutionId,
        message: Arc<Told>,
    ) -> Result<(), EngineError> {
        self.ask(parent, |reply| Message::FromChild {
            child: child.clone(),
            message: message.clone(),
            reply,
        })
        .await
    }

    /// Interrupts an execution, in this process or in the store.
    pub(super) async fn control(self: &Arc<Self>, execution: &ExecutionId, input: Input) -> Result<(), EngineError> {
        let taken = match input {
            Input::Cancel | Input::Suspend => TakenUp::Stopped,
            _ => TakenUp::Resumed,
        };
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let control = Box::new(Control {
                input: input.clone(),
                reply,
            });
            match Claim::take(self, execution)? {
                Claiming::Claimed(claim) => {
                    // Into an empty channel that the claim holds open.
                    let _ = claim.active.control.try_send(control);
                    Coordinator::spawn_stored(claim, taken);
                }
                Claiming::Taken(active) => {
                    if active.control.send(control).await.is_err() {
                        continue;
                    }
                }
            }
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
        Err(EngineError::new(EngineErrorKind::Internal).of(execution))
    }
}
