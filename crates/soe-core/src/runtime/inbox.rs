//! Asking something of a tree: by its coordinator, if this process runs it or may; else by its inbox, which the process that
//! runs it empties.

use std::sync::Arc;
use std::time::Duration;

use soe_backends::{Batch, Definitions, EventKind, ExecutionId, Limits, Message as Letter, Post, Request};
use tokio::sync::oneshot;

use super::claim::{Claim, Claiming};
use super::coordinator::{Coordinator, TakenUp};
use super::shared::{Control, Message, Order, Shared};
use super::{EngineError, EngineErrorKind};
use crate::machine::MachineError;

/// How often a call is tried again that met a coordinator in the moment of its end, or a tree in the moment of a take-over.
pub(super) const TRIES: usize = 100;

/// How often an engine looks for messages of other processes, and the sender of one looks whether it was taken.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// How many trees with messages are looked at together.
const TREES: usize = 1_000;

/// How many events are searched at a time for what became of a message.
const PAGE: usize = 500;

impl Shared {
    /// Sends signals to an execution, whoever runs its tree.
    pub(super) async fn signal(
        self: &Arc<Self>,
        execution: &ExecutionId,
        signals: Vec<Arc<str>>,
    ) -> Result<(), EngineError> {
        self.check_open().map_err(|error| error.of(execution))?;
        let message = |reply| Message::Signal {
            execution: execution.clone(),
            signals: signals.clone(),
            reply,
        };
        match self.ask(execution, message).await {
            Err(error) if is_elsewhere(&error) => {
                let batch: Batch = signals.into();
                if batch.is_empty() || batch.iter().any(|signal| signal.is_empty()) {
                    return Err(EngineError::from(MachineError::NoSignals).of(execution));
                }
                self.post(execution, Request::Signal(batch)).await
            }
            result => result,
        }
    }

    /// Replaces what a tree shares, whoever runs it.
    pub(super) async fn define(self: &Arc<Self>, root: &ExecutionId, definitions: Definitions) -> Result<(), EngineError> {
        self.check_open().map_err(|error| error.of(root))?;
        let definitions = Arc::new(definitions);
        let message = |reply| Message::Define {
            definitions: definitions.clone(),
            reply,
        };
        match self.ask(root, message).await {
            Err(error) if is_elsewhere(&error) => self.post(root, Request::Define(definitions)).await,
            result => result,
        }
    }

    /// Cancels an execution, whoever runs its tree.
    pub(super) async fn cancel(self: &Arc<Self>, execution: &ExecutionId) -> Result<(), EngineError> {
        match self.control(execution, Order::Cancel).await {
            Err(error) if is_elsewhere(&error) => self.post(execution, Request::Cancel).await,
            result => result,
        }
    }

    /// Goes on with what has failed, whoever runs the tree.
    pub(super) async fn go_on(
        self: &Arc<Self>,
        execution: &ExecutionId,
        limits: Option<Arc<Limits>>,
    ) -> Result<(), EngineError> {
        match self.control(execution, Order::Resume(limits.clone())).await {
            Err(error) if is_elsewhere(&error) => self.post(execution, Request::Resume { limits }).await,
            result => result,
        }
    }

    /// Sends a message to the coordinator of a tree, which is started if there is none, and waits for the answer.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        execution: &ExecutionId,
        message: impl Fn(oneshot::Sender<Result<T, EngineError>>) -> Message,
    ) -> Result<T, EngineError> {
        let root = execution.root();
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let message = Box::new(message(reply));
            match Claim::take(self, &root)? {
                Claiming::Claimed(claim) => {
                    // Into an empty channel that the claim holds open.
                    let _ = claim.active.mailbox.try_send(message);
                    Coordinator::spawn_stored(claim, TakenUp::Recovered);
                }
                Claiming::Taken(active) => {
                    if active.mailbox.send(message).await.is_err() {
                        continue;
                    }
                }
            }
            match answer.await {
                Ok(Err(error)) if *error.kind() == EngineErrorKind::LostRace => {}
                Ok(answer) => return answer,
                Err(_) => {}
            }
        }
        Err(EngineError::new(EngineErrorKind::LostRace).of(execution))
    }

    /// Gives an order to the coordinator of a tree, which is started if there is none.
    pub(super) async fn control(self: &Arc<Self>, execution: &ExecutionId, order: Order) -> Result<(), EngineError> {
        let root = execution.root();
        let taken = match order {
            Order::Cancel => TakenUp::Stopped,
            Order::Recover | Order::Resume(_) => TakenUp::Recovered,
        };
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let control = Box::new(Control {
                execution: execution.clone(),
                order: order.clone(),
                reply,
            });
            match Claim::take(self, &root)? {
                Claiming::Claimed(claim) => {
                    let _ = claim.active.control.try_send(control);
                    Coordinator::spawn_stored(claim, taken);
                }
                Claiming::Taken(active) => {
                    if active.control.send(control).await.is_err() {
                        continue;
                    }
                }
            }
            match answer.await {
                Ok(Err(error)) if *error.kind() == EngineErrorKind::LostRace => {}
                Ok(answer) => return answer,
                Err(_) => {}
            }
        }
        Err(EngineError::new(EngineErrorKind::LostRace).of(execution))
    }

    /// Puts a message into the inbox of a tree that another process runs, and waits until it is taken: by that process, or by
    /// this one if that one ends.
    async fn post(self: &Arc<Self>, execution: &ExecutionId, request: Request) -> Result<(), EngineError> {
        let root = execution.root();
        let letter = Letter {
            id: uuid::Uuid::now_v7().to_string().into(),
            at: self.now(),
            execution: execution.clone(),
            request,
        };
        let before = self.load_tree(execution).await?.next_event;
        let posted = self.call(self.backends.context().post(&root, &letter)).await;
        let seq = match posted.map_err(|error| error.of(execution))? {
            Post::Stored(seq) | Post::Duplicate(seq) => seq,
            Post::NoSuchTree => return Err(EngineError::new(EngineErrorKind::NotFound).of(execution)),
        };
        loop {
            let tree = self.load_tree(execution).await?;
            if tree.inbox >= seq {
                return self.became_of(&root, &letter.id, before).await.map_err(|error| error.of(execution));
            }
            if self.check_owner(&tree).await.is_ok()
                && let Claiming::Claimed(claim) = Claim::take(self, &root)?
            {
                // Nobody runs it any more: it is taken here.
                let taken = match &letter.request {
                    Request::Cancel => TakenUp::Stopped,
                    _ => TakenUp::Recovered,
                };
                Coordinator::spawn_stored(claim, taken);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(EngineError::new(EngineErrorKind::ShutDown).of(execution)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// What became of a message that was taken, as the event says that took it.
    async fn became_of(&self, root: &ExecutionId, id: &Arc<str>, mut from: u64) -> Result<(), EngineError> {
        let Some(telemetry) = self.backends.telemetry() else {
            return Ok(());
        };
        loop {
            let events = self.call(telemetry.events(root, from, PAGE)).await?;
            for event in &events {
                let EventKind::MessageTaken { message, refused } = &event.kind else {
                    continue;
                };
                if message == id {
                    return match refused {
                        None => Ok(()),
                        Some(why) => Err(EngineError::because(EngineErrorKind::Refused, why.to_string())),
                    };
                }
            }
            match events.last() {
                Some(last) if events.len() == PAGE => from = last.seq + 1,
                _ => return Ok(()),
            }
        }
    }

    /// Looks for messages of other processes, a few times a second, as long as the engine is there.
    pub(super) fn look_for_messages(self: &Arc<Self>) {
        let (shared, stop) = (Arc::downgrade(self), self.stop.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
                let Some(shared) = shared.upgrade() else { return };
                if *shared.active_count.borrow() == 0 {
                    continue;
                }
                match shared.backends.context().waiting(TREES).await {
                    Ok(trees) => trees.iter().for_each(|tree| shared.wake(tree)),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "messages of other processes can't be looked for");
                    }
                }
            }
        });
    }

    /// Has the coordinator of a tree look into its inbox, if this process runs it.
    fn wake(&self, tree: &ExecutionId) {
        let active = self.active().get(tree).cloned();
        if let Some(active) = active {
            // A full mailbox is being emptied: the next look is soon.
            let _ = active.mailbox.try_send(Box::new(Message::Inbox));
        }
    }
}

fn is_elsewhere(error: &EngineError) -> bool {
    matches!(error.kind(), EngineErrorKind::Elsewhere { .. })
}
