//! One coordinating task per active tree: everything that happens in it passes through here, in one order.

mod store;
mod take;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use soe_backends::{ExecutionId, Owed, Status};
use tracing::Instrument;

use super::claim::Claim;
use super::perform::{Performer, panic_message};
use super::shared::{Cause, Control, Finished, Message, Order, Progress, Reply, ended};
use super::taken::Taken;
use super::{EngineError, EngineErrorKind};
use crate::machine::{Input, Machine, Step};

/// The most inputs whose commits are stored together: what has arrived while the store was busy.
const BATCH: usize = 64;

/// What a stored tree is taken up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakenUp {
    /// Its runs in flight are performed again at once.
    Recovered,
    /// There is an order in its claim that stops something in it, before the rest goes on.
    Stopped,
    /// There is an order in its claim that stops all of it.
    Ended,
}

/// Runs a tree until it has nothing more to do.
pub(super) struct Coordinator {
    claim: Claim,
    machine: Machine,
    performer: Arc<Performer>,
    /// What has arrived and is not taken: one batch, and outcomes that were known without performing anything.
    queue: VecDeque<Message>,
    /// What has arrived for an execution that is in the middle of an event: taken when that is over.
    blocked: VecDeque<Message>,
    /// The machine wants to go on after the others had their turn.
    more: bool,
    /// There may be something in the inbox.
    look: bool,
    /// The application's error that failed the root.
    cause: Option<Cause>,
    /// Those who wait until an execution is at rest.
    waiters: Vec<(u64, Reply<Finished>)>,
    /// What stores of their own didn't take yet.
    unpaid: Owed,
    /// What the tree needs and this engine doesn't have: something in it is ended here, and nothing is performed.
    missing: Option<EngineError>,
    /// Whether it has stored something.
    stored: bool,
}

impl Coordinator {
    /// Starts the coordinator of a new tree. Its first commit is stored, then `created` is answered.
    pub(super) fn spawn_new(claim: Claim, machine: Machine, step: Step, created: Reply) {
        let mut this = Self::new(claim, machine);
        let span = this.span();
        let run = async move {
            let mut taken = Taken::new(&this.claim.tree);
            taken.add(step, &mut this.more);
            taken.replies.push(created);
            let result = match contained(this.store(taken)).await {
                Ok(()) => contained(this.serve()).await,
                Err(error) if !this.stored => {
                    // Whoever has sent it something meanwhile tries again: there may be another tree of that id.
                    tracing::debug!(%error, "the tree was not created");
                    return;
                }
                Err(error) => Err(error),
            };
            this.end(result);
        };
        tokio::spawn(run.instrument(span));
    }

    /// Starts the coordinator of a stored tree.
    pub(super) fn spawn_stored(claim: Claim, taken: TakenUp) {
        tokio::spawn(async move {
            match contained(Self::load(&claim, taken)).await {
                Err(error) => {
                    let error = error.of(&claim.tree);
                    claim.refuse(VecDeque::new(), &error);
                }
                Ok((machine, missing)) => {
                    let mut this = Self::new(claim, machine);
                    this.missing = missing;
                    let span = this.span();
                    let run = async {
                        let result = contained(this.serve_stored(taken)).await;
                        this.end(result);
                    };
                    run.instrument(span).await;
                }
            }
        });
    }

    async fn load(claim: &Claim, taken: TakenUp) -> Result<(Machine, Option<EngineError>), EngineError> {
        let shared = &claim.shared;
        let tree = shared.load_tree(&claim.tree).await?;
        shared.check_owner(&tree).await?;
        let registries = shared.call(shared.registries.load(&shared.backends, &tree)).await?;
        // To end something, nothing is needed.
        let missing = match (taken, shared.check_taken_up(&tree, &registries)) {
            (TakenUp::Recovered, checked) => checked.map(|()| None)?,
            (TakenUp::Stopped, checked) => checked.err(),
            (TakenUp::Ended, _) => None,
        };
        let state = Arc::unwrap_or_clone(tree);
        Ok((Machine::load(state, registries, shared.specs.clone())?, missing))
    }

    fn new(claim: Claim, machine: Machine) -> Self {
        let performer = Arc::new(Performer::new(&claim));
        Self {
            claim,
            machine,
            performer,
            queue: VecDeque::new(),
            blocked: VecDeque::new(),
            more: false,
            look: false,
            cause: None,
            waiters: Vec::new(),
            unpaid: Owed::default(),
            missing: None,
            stored: false,
        }
    }

    fn span(&self) -> tracing::Span {
        let tree = self.machine.state();
        let workflow = tree.root_state().map(|root| root.workflow.clone()).unwrap_or_default();
        tracing::info_span!("tree", id = %tree.root, %workflow)
    }

    fn is_running(&self) -> bool {
        let root = self.machine.state().root_state();
        root.is_some_and(|root| root.status == Status::Running)
    }

    async fn serve_stored(&mut self, taken: TakenUp) -> Result<(), EngineError> {
        // An end comes before what it stops is performed again, also one that waits in the inbox.
        if taken != TakenUp::Recovered {
            while let Ok(control) = self.claim.control.try_recv() {
                self.control(*control).await?;
            }
        }
        if let Some(missing) = self.missing.take() {
            // What follows from the end is left to an engine that has what it needs.
            self.performer.abort_all();
            return match self.is_running() {
                true => Err(missing),
                false => Ok(()),
            };
        }
        let posted = self.posted().await;
        self.take_posted(Some(Input::Recover), posted).await?;
        self.serve().await
    }

    async fn serve(&mut self) -> Result<(), EngineError> {
        let stop = self.claim.shared.stop.clone();
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut arrived = Vec::with_capacity(BATCH);
        loop {
            while let Ok(control) = self.claim.control.try_recv() {
                self.control(*control).await?;
            }
            if self.has_work() {
                if stop.is_cancelled() {
                    return Err(EngineError::new(EngineErrorKind::ShutDown));
                }
                self.active_time_is_over().await?;
                self.take_arrived();
                self.work_off().await?;
                if self.has_work() {
                    // A loop that awaits nothing would keep its thread from everybody else.
                    tokio::task::yield_now().await;
                }
                continue;
            }
            if !self.is_running() && self.come_to_rest().await? {
                return Ok(());
            }
            let time_left = self.active_time_left();
            tokio::select! {
                biased;
                () = &mut stopped => return Err(EngineError::new(EngineErrorKind::ShutDown)),
                Some(control) = self.claim.control.recv() => self.control(*control).await?,
                () = sleep(time_left) => self.active_time_is_over().await?,
                _ = self.claim.mailbox.recv_many(&mut arrived, BATCH) => {
                    self.queue.extend(arrived.drain(..).map(|message: Box<Message>| *message));
                }
            }
        }
    }

    fn has_work(&self) -> bool {
        self.more || self.look || !self.queue.is_empty()
    }

    /// In the middle of a long event, what has arrived is taken between its commits.
    fn take_arrived(&mut self) {
        while self.queue.len() < BATCH
            && let Ok(message) = self.claim.mailbox.try_recv()
        {
            self.queue.push_back(*message);
        }
    }

    /// Ends the claim of a tree in which nothing runs, unless something has arrived meanwhile.
    async fn come_to_rest(&mut self) -> Result<bool, EngineError> {
        self.pay_debts().await;
        if !self.machine.state().owed.is_empty() && self.unpaid.is_empty() {
            // Nobody waits for this: what is not forgotten is given once more when the tree is taken up. The machine is ahead
            // of the store then, so another coordinator takes what has arrived.
            if let Err(error) = contained(self.input(Input::Settle)).await {
                tracing::warn!(error = %format_args!("{error:#}"), "what stores of its own were given is not forgotten yet");
                return Ok(true);
            }
        }
        self.take_inbox().await?;
        if self.is_running() || self.has_work() {
            return Ok(false);
        }
        Ok(self.claim.release_if_idle())
    }

    async fn input(&mut self, input: Input) -> Result<(), EngineError> {
        let mut taken = Taken::new(&self.claim.tree);
        let step = self.machine.step(self.claim.shared.now(), input)?;
        taken.add(step, &mut self.more);
        self.store(taken).await
    }

    async fn control(&mut self, control: Control) -> Result<(), EngineError> {
        let Control {
            execution,
            order,
            reply,
        } = control;
        let mut taken = Taken::new(&self.claim.tree);
        let input = self.number(&execution).map(|execution| match order {
            Order::Recover => Input::Recover,
            Order::Cancel => Input::Cancel { execution },
            Order::Resume(limits) => Input::Resume { execution, limits },
        });
        let result = match input {
            Ok(input) => self.step_for(input, &execution, reply, &mut taken),
            Err(error) => {
                taken.refused.push((reply, error));
                Ok(None)
            }
        };
        match result {
            Ok(reply) => {
                taken.replies.extend(reply);
                self.store(taken).await
            }
            Err(error) => Err(taken.fail(EngineError::from(error).of(&self.claim.tree))),
        }
    }

    fn number(&self, execution: &ExecutionId) -> Result<u64, EngineError> {
        let number = self.machine.state().number_of(execution);
        number.ok_or_else(|| EngineError::new(EngineErrorKind::NotFound).of(execution))
    }

    /// What is left of the time that the tree may be active; `None` without such a limit, or while it isn't.
    fn active_time_left(&self) -> Option<Duration> {
        let limit = self.machine.state().limits.active_time.filter(|_| self.is_running())?;
        let root = self.machine.state().root_state()?;
        let active = Duration::from_micros(root.active_us_until(self.claim.shared.now()));
        Some(limit.saturating_sub(active))
    }

    /// Fails the tree if its active time is over.
    async fn active_time_is_over(&mut self) -> Result<(), EngineError> {
        if self.active_time_left().is_none_or(|left| !left.is_zero()) {
            return Ok(());
        }
        let limit = self.machine.state().limits.active_time.unwrap_or_default();
        let message = format!("it was active for {limit:?}");
        self.input(Input::LimitExceeded {
            limit: "active_time",
            message,
        })
        .await
    }

    fn end(mut self, result: Result<(), EngineError>) {
        self.performer.abort_all();
        match result {
            Ok(()) => {
                let ended = ended(self.machine.state(), 0, self.cause.take());
                self.claim.end(Progress::Ended(ended));
            }
            Err(error) => {
                tracing::warn!(error = %format_args!("{error:#}"), "the tree's coordinator stopped");
                let error = error.of(&self.claim.tree);
                for (_, reply) in self.waiters.drain(..) {
                    let _ = reply.send(Err(error.clone()));
                }
                self.queue.append(&mut self.blocked);
                self.claim.refuse(self.queue, &error);
            }
        }
    }
}

/// Runs a part of a coordinator. A panic in it (of a store, a template, a clock) is its error.
async fn contained<T>(part: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    match AssertUnwindSafe(part).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            let message = format!("a panic: {}", panic_message(&*panic));
            Err(EngineError::because(EngineErrorKind::Internal, message))
        }
    }
}

/// Without a limit, never.
async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
