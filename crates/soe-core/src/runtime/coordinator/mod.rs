//! One coordinating task per active execution: everything that happens to it passes through here, in one order.

mod store;
mod take;

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use soe_backends::{ExecutionId, Status};
use tracing::Instrument;

use super::budget::Budget;
use super::claim::Claim;
use super::perform::{Performer, panic_message};
use super::shared::{Cause, Control, Message, Progress, Reply, ended};
use super::taken::Taken;
use super::{EngineError, EngineErrorKind};
use crate::machine::{Input, Machine, Step};

/// The most inputs whose commits are stored together: what has arrived while the store was busy.
const BATCH: usize = 64;

/// What a stored execution is taken up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakenUp {
    /// Its runs in flight are performed again at once.
    Recovered,
    /// There is an interruption in its claim that says how it goes on.
    Resumed,
    /// There is an interruption in its claim that stops it.
    Stopped,
}

/// Runs an execution until it has nothing more to do.
pub(super) struct Coordinator {
    claim: Claim,
    machine: Machine,
    performer: Arc<Performer>,
    /// What has arrived and is not worked off: one batch, and outcomes that were known without performing anything.
    queue: VecDeque<Message>,
    /// The machine wants to go on after the others had their turn.
    more: bool,
    /// What is performed now may have been performed before.
    recovering: bool,
    /// The application's error that failed the execution.
    cause: Option<Cause>,
    /// Those who wait until a child's message is dealt with, by child and number.
    answers: HashMap<(ExecutionId, u64), Reply>,
    /// So many ends, or the opposite, are on their way to the children.
    descents: usize,
    /// What went down last has not reached all children: that is left to be done by whoever takes the execution up next.
    unreached: bool,
    /// It goes on with what another coordinator has begun.
    taken_up: bool,
}

impl Coordinator {
    /// Starts the coordinator of a new execution. Its first commit is stored, then `created` is answered.
    pub(super) fn spawn_new(claim: Claim, machine: Machine, step: Step, created: Reply) {
        let mut this = Self::new(claim, machine);
        let span = this.span();
        let run = async move {
            let mut taken = Taken::new(&this.claim.execution);
            taken.add(step, &mut this.more);
            taken.replies.push(created);
            match contained(this.store(taken)).await {
                Ok(()) => {
                    let result = contained(this.serve()).await;
                    this.end(result);
                }
                // Whoever has sent it something meanwhile tries again: there may be another execution of that id.
                Err(error) => tracing::debug!(%error, "the execution was not created"),
            }
        };
        tokio::spawn(run.instrument(span));
    }

    /// Starts the coordinator of a stored execution.
    pub(super) fn spawn_stored(claim: Claim, taken: TakenUp) {
        let recover = taken == TakenUp::Recovered;
        tokio::spawn(async move {
            match contained(Self::load(&claim, taken)).await {
                Err(error) => {
                    let error = error.of(&claim.execution);
                    claim.refuse(VecDeque::new(), &error);
                }
                Ok((machine, _budget)) => {
                    let mut this = Self::new(claim, machine);
                    let span = this.span();
                    let run = async {
                        let result = contained(this.serve_stored(recover)).await;
                        this.end(result);
                    };
                    run.instrument(span).await;
                }
            }
        });
    }

    /// The machine, and what its tree has used, which must not be forgotten before the machine runs.
    async fn load(claim: &Claim, taken: TakenUp) -> Result<(Machine, Arc<Budget>), EngineError> {
        let shared = &claim.shared;
        let state = shared.load(&claim.execution).await?;
        shared.check_owner(&state).await?;
        let registries = shared.call(shared.registries.load(&shared.backends, &state)).await?;
        // One that is over, or stays stopped, only hears and tells.
        let runs = match taken {
            TakenUp::Stopped => false,
            TakenUp::Recovered => state.status.accepts_signals(),
            TakenUp::Resumed => state.status != Status::Cancelled,
        };
        if runs {
            shared.check_taken_up(&state, &registries)?;
        }
        let budget = shared.recall_budget(&state).await?;
        Ok((Machine::load(state, registries, shared.specs.clone())?, budget))
    }

    fn new(claim: Claim, machine: Machine) -> Self {
        let performer = Arc::new(Performer::new(&claim, &machine));
        Self {
            claim,
            machine,
            performer,
            queue: VecDeque::new(),
            more: false,
            recovering: false,
            cause: None,
            answers: HashMap::new(),
            descents: 0,
            unreached: false,
            taken_up: false,
        }
    }

    fn span(&self) -> tracing::Span {
        let state = self.machine.state();
        tracing::info_span!("execution", id = %state.id, workflow = %state.workflow)
    }

    async fn serve_stored(&mut self, recover: bool) -> Result<(), EngineError> {
        self.taken_up = true;
        if recover {
            self.recovering = true;
            self.input(Input::Recover).await?;
            self.recovering = false;
        }
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
            if self.more || !self.queue.is_empty() {
                if stop.is_cancelled() {
                    return Err(EngineError::new(EngineErrorKind::ShutDown));
                }
                self.active_time_is_over().await?;
                self.work_off().await?;
                if self.more || !self.queue.is_empty() {
                    // A loop that awaits nothing would keep its thread from everybody else.
                    tokio::task::yield_now().await;
                }
                continue;
            }
            if self.machine.state().status != Status::Running && self.descents == 0 {
                self.settle().await?;
                // What its parent has to hear is answered soon.
                let family = self.machine.state().family.as_ref();
                let tells = family.is_some_and(|family| family.descending && !family.outbox.is_empty());
                if !tells && self.claim.release_if_idle() {
                    return Ok(());
                }
            }
            let time_left = self.active_time_left();
            tokio::select! {
                biased;
                () = &mut stopped => return Err(EngineError::new(EngineErrorKind::ShutDown)),
                Some(control) = self.claim.control.recv() => self.control(*control).await?,
                () = sleep(time_left) => self.active_time_is_over().await?,
                _ = self.claim.mailbox.recv_many(&mut arrived, BATCH) => self.queue.extend(arrived.drain(..).map(|message: Box<Message>| *message)),
            }
        }
    }

    /// Notes that what an execution that is over had still to do is done.
    async fn settle(&mut self) -> Result<(), EngineError> {
        if self.taken_up && !self.unreached && self.machine.state().is_unsettled() {
            self.taken_up = false;
            self.input(Input::Settled).await?;
        }
        Ok(())
    }

    /// Whether what became of it has still to go down to its children, or to be heard by its parent.
    fn is_descending(&self) -> bool {
        let family = self.machine.state().family.as_ref();
        family.is_some_and(|family| family.descending)
    }

    async fn input(&mut self, input: Input) -> Result<(), EngineError> {
        let mut taken = Taken::new(&self.claim.execution);
        let step = self.machine.step(self.claim.shared.now(), input)?;
        taken.add(step, &mut self.more);
        self.store(taken).await
    }

    async fn control(&mut self, control: Control) -> Result<(), EngineError> {
        let Control { input, reply } = control;
        let mut taken = Taken::new(&self.claim.execution);
        self.recovering = matches!(input, Input::Recover | Input::Resume { .. });
        let result = match self.step_for(input, reply, &mut taken) {
            Ok(reply) => {
                taken.replies.extend(reply);
                // What has been stopped has nothing to go on with.
                self.more &= self.machine.state().status == Status::Running;
                self.store(taken).await
            }
            Err(error) => Err(taken.fail(EngineError::from(error).of(&self.claim.execution))),
        };
        self.recovering = false;
        result
    }

    /// What is left of the time that the execution may be active; `None` without such a limit, or while it isn't.
    fn active_time_left(&self) -> Option<Duration> {
        let state = self.machine.state();
        let limit = state.limits.active_time.filter(|_| state.status == Status::Running)?;
        let stretch = state
            .status_since
            .map_or(Duration::ZERO, |since| self.claim.shared.now().since(since));
        Some(limit.saturating_sub(Duration::from_micros(state.active_us).saturating_add(stretch)))
    }

    /// Fails the execution if its active time is over.
    async fn active_time_is_over(&mut self) -> Result<(), EngineError> {
        if self.active_time_left().is_none_or(|left| !left.is_zero()) {
            return Ok(());
        }
        let limit = self.machine.state().limits.active_time.unwrap_or_default();
        let message = format!("it was active for {limit:?}");
        self.more = false;
        self.input(Input::LimitExceeded {
            limit: "active_time",
            message,
        })
        .await
    }

    fn end(mut self, result: Result<(), EngineError>) {
        self.performer.run.cancellation.cancel();
        match result {
            Ok(()) => {
                let ended = ended(self.machine.state(), self.cause.take());
                self.claim.end(Progress::Ended(ended));
            }
            Err(error) => {
                tracing::warn!(error = %format_args!("{error:#}"), "the execution's coordinator stopped");
                let error = error.of(&self.claim.execution);
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
