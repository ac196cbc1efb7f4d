//! Between the executions of a tree: children are created, messages are delivered, failures and cancellations go down.
//! A coordinator never waits for another one: tasks of their own do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use soe_backends::{ExecutionId, Told};
use tokio::sync::oneshot;
use tracing::Instrument;

use super::claim::{Claim, Claiming};
use super::coordinator::Coordinator;
use super::engine::TRIES;
use super::perform::Performer;
use super::shared::{Control, Message, Shared};
use super::{EngineError, EngineErrorKind};
use crate::machine::{Descend, Machine, Outcome, Spawn, Start};

/// Messages of one execution to its parent on their way: one after the other, in their order.
#[derive(Default)]
pub(super) struct Relay(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    messages: VecDeque<Arc<Told>>,
    running: bool,
}

impl Relay {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message; says whether somebody has to be found who sends.
    fn push(&self, message: Arc<Told>) -> bool {
        let mut queue = self.queue();
        queue.messages.push_back(message);
        !std::mem::replace(&mut queue.running, true)
    }

    fn next(&self) -> Option<Arc<Told>> {
        let mut queue = self.queue();
        let next = queue.messages.pop_front();
        queue.running = next.is_some();
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
                match this.shared.deliver(&parent, &this.execution, message).await {
                    // A closed mailbox means that the execution rests: it finds out when it wakes.
                    Ok(()) => drop(this.mailbox.send(Message::Acknowledged { number }).await),
                    Err(error) => {
                        let (child, error) = (&this.execution, format_args!("{error:#}"));
                        tracing::warn!(%child, %parent, %error, "a message to the parent waits until the child is taken up again");
                    }
                }
            }
        });
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
            let result = this.shared.create_all(spawn.children).await;
            let (result, cause) = match result {
                Ok(()) => (Ok(()), None),
                Err(error) => (Err(format!("{error:#}").into()), Some(Box::new(error) as _)),
            };
            this.answer(run, next, Outcome::Spawned(result), cause).await;
        };
        self.spawn(task, span);
    }

    /// Takes a failure or a cancellation down to the children.
    pub(super) fn descend(self: &Arc<Self>, what: Descend, children: Vec<ExecutionId>) {
        let shared = self.shared.clone();
        let task = async move {
            for child in children {
                let result = match what {
                    Descend::Cancel => shared.control(&child, |reply| Control::Cancel { reply }).await,
                    Descend::Suspend => shared.control(&child, |reply| Control::Suspend { reply }).await,
                };
                match result {
                    Ok(()) => {}
                    // It was registered, and its parent ended before it was created.
                    Err(error) if *error.kind() == EngineErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(%child, error = %format_args!("{error:#}"), "a child wasn't reached"),
                }
            }
        };
        self.shared.tasks.spawn(task.in_current_span());
    }
}

impl Shared {
    async fn create_all(self: &Arc<Self>, children: Vec<Start>) -> Result<(), EngineError> {
        let mut begun = Vec::with_capacity(children.len());
        for start in children {
            let id = start.id.clone();
            begun.push((id, self.begin_child(start)?));
        }
        for (id, stored) in begun {
            let Some(stored) = stored else { continue };
            match stored.await {
                Ok(Err(error)) if error.is_conflict() => self.take_up(&id)?,
                Ok(result) => result?,
                Err(_) => return Err(EngineError::new(EngineErrorKind::ShutDown).of(&id)),
            }
        }
        Ok(())
    }

    /// Starts the coordinator of a child; `None` if it has one.
    #[allow(clippy::type_complexity, reason = "it is what a oneshot channel is")]
    fn begin_child(
        self: &Arc<Self>,
        start: Start,
    ) -> Result<Option<oneshot::Receiver<Result<(), EngineError>>>, EngineError> {
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
            Coordinator::spawn_stored(claim, true);
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
    pub(super) async fn control(
        self: &Arc<Self>,
        execution: &ExecutionId,
        control: impl Fn(super::shared::Reply) -> Control,
    ) -> Result<(), EngineError> {
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let control = control(reply);
            match Claim::take(self, execution)? {
                Claiming::Claimed(claim) => {
                    // Into an empty channel that the claim holds open.
                    let _ = claim.active.control.try_send(control);
                    Coordinator::spawn_stored(claim, false);
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
