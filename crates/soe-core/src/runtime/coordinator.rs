//! One coordinating task per active execution: everything that happens to it passes through here, in one order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use soe_backends::{Commit, Event, ExecutionId, Status};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::perform::Performer;
use super::shared::{Active, Cause, Control, Message, Progress, Shared, ended};
use super::signals::EngineSignals;
use super::{EngineError, EngineErrorKind};
use crate::machine::{Effect, Input, Machine, MachineError, Step};
use crate::tools::context::RunScope;

/// How many messages may wait for a coordinator. It never waits for those who send, so a full mailbox only slows them.
const MAILBOX: usize = 256;

/// How many callers may wait to interrupt a coordinator.
const CONTROL: usize = 8;

/// The most inputs whose commits are stored together: what has arrived while the store was busy.
const BATCH: usize = 64;

/// An execution claimed by this engine: nobody else in the process runs it.
pub(super) struct Claim {
    execution: ExecutionId,
    mailbox: mpsc::Receiver<Message>,
    control: mpsc::Receiver<Control>,
    progress: watch::Sender<Progress>,
    active: Active,
    shared: Arc<Shared>,
    released: bool,
}

impl Claim {
    /// Claims an execution; `Err` is how to reach the coordinator that it has already.
    pub(super) fn new(shared: &Arc<Shared>, execution: &ExecutionId) -> Result<Self, Active> {
        let mut active = shared.active();
        if let Some(existing) = active.get(execution) {
            return Err(existing.clone());
        }
        let (mailbox_sender, mailbox) = mpsc::channel(MAILBOX);
        let (control_sender, control) = mpsc::channel(CONTROL);
        let (progress, progress_receiver) = watch::channel(Progress::Running);
        let entry = Active {
            mailbox: mailbox_sender,
            control: control_sender,
            progress: progress_receiver,
        };
        active.insert(execution.clone(), entry.clone());
        shared.active_count.send_modify(|count| *count += 1);
        drop(active);
        Ok(Self {
            execution: execution.clone(),
            mailbox,
            control,
            progress,
            active: entry,
            shared: shared.clone(),
            released: false,
        })
    }

    pub(super) fn active(&self) -> &Active {
        &self.active
    }

    /// Gives the claim back, unless somebody has sent something meanwhile and `force` is not set.
    fn release(&mut self, force: bool) -> bool {
        if self.released {
            return true;
        }
        let mut active = self.shared.active();
        let waited_for = !self.mailbox.is_empty() || !self.control.is_empty();
        if waited_for && !force {
            return false;
        }
        self.released = true;
        active.remove(&self.execution);
        drop(active);
        self.mailbox.close();
        self.control.close();
        self.shared.active_count.send_modify(|count| *count -= 1);
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release(true);
    }
}

/// Runs an execution until it has nothing more to do.
pub(super) struct Coordinator {
    claim: Claim,
    machine: Machine,
    performer: Arc<Performer>,
    /// What has arrived and is not worked off.
    queue: VecDeque<Message>,
    /// The machine wants to go on after the others had their turn.
    more: bool,
    /// The application's error behind the last failed attempt.
    cause: Option<Cause>,
}

type Reply = oneshot::Sender<Result<(), EngineError>>;

/// Inputs that were taken and not stored yet.
#[derive(Default)]
struct Taken {
    commits: Vec<Commit>,
    effects: Vec<Effect>,
    replies: Vec<Reply>,
}

impl Coordinator {
    /// Starts the coordinator of an execution whose first commit is stored.
    pub(super) fn spawn(claim: Claim, machine: Machine, effects: Vec<Effect>) {
        let mut this = Self::new(claim, machine);
        let span = this.span();
        let run = async move {
            this.perform(effects);
            let result = this.serve().await;
            this.end(result);
        };
        tokio::spawn(run.instrument(span));
    }

    /// Starts the coordinator of a stored execution. With `recover`, runs in flight are performed again.
    pub(super) fn spawn_stored(claim: Claim, recover: bool) {
        tokio::spawn(async move {
            match Self::load(&claim).await {
                Err(error) => refuse(claim, &error),
                Ok(machine) => {
                    let mut this = Self::new(claim, machine);
                    let span = this.span();
                    let run = async {
                        let mut result = Ok(());
                        if recover {
                            result = this.input(Input::Recover).await;
                        }
                        if result.is_ok() {
                            result = this.serve().await;
                        }
                        this.end(result);
                    };
                    run.instrument(span).await;
                }
            }
        });
    }

    async fn load(claim: &Claim) -> Result<Machine, EngineError> {
        let shared = &claim.shared;
        let state = shared.load(&claim.execution).await?;
        let registries = shared.registries.load(&shared.backends, &state).await?;
        Ok(Machine::load(state, registries, shared.specs.clone())?)
    }

    fn new(claim: Claim, machine: Machine) -> Self {
        let main = machine.state().main_execution_id().clone();
        let performer = Performer {
            shared: claim.shared.clone(),
            execution: claim.execution.clone(),
            mailbox: claim.active.mailbox.clone(),
            run: Arc::new(RunScope {
                cancellation: CancellationToken::new(),
                signals: Arc::new(EngineSignals::new(claim.shared.clone(), main)),
            }),
        };
        Self {
            claim,
            machine,
            performer: Arc::new(performer),
            queue: VecDeque::new(),
            more: false,
            cause: None,
        }
    }

    fn span(&self) -> tracing::Span {
        let state = self.machine.state();
        tracing::info_span!("execution", id = %state.id, workflow = %state.workflow)
    }

    async fn serve(&mut self) -> Result<(), EngineError> {
        let stop = self.claim.shared.stop.clone();
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut arrived = Vec::with_capacity(BATCH);
        loop {
            while let Ok(control) = self.claim.control.try_recv() {
                self.control(control).await?;
            }
            if self.more || !self.queue.is_empty() {
                if stop.is_cancelled() {
                    return Err(EngineError::new(EngineErrorKind::ShutDown));
                }
                self.work_off().await?;
                continue;
            }
            if self.machine.state().status != Status::Running && self.claim.release(false) {
                return Ok(());
            }
            let time_left = self.active_time_left();
            tokio::select! {
                biased;
                () = &mut stopped => return Err(EngineError::new(EngineErrorKind::ShutDown)),
                Some(control) = self.claim.control.recv() => self.control(control).await?,
                () = sleep(time_left) => self.active_time_is_over().await?,
                _ = self.claim.mailbox.recv_many(&mut arrived, BATCH) => self.queue.extend(arrived.drain(..)),
            }
        }
    }

    /// Takes what has arrived, up to the machine's next pause, and stores it together.
    async fn work_off(&mut self) -> Result<(), EngineError> {
        let mut taken = Taken::default();
        if std::mem::take(&mut self.more) {
            tokio::task::yield_now().await;
            let step = self.machine.step(self.claim.shared.now(), Input::Continue)?;
            taken.add(step, &mut self.more);
        }
        while let (false, Some(message)) = (self.more, self.queue.pop_front()) {
            let now = self.claim.shared.now();
            let (input, reply) = match message {
                Message::Broadcast { signals, reply } => (Input::Broadcast(signals), Some(reply)),
                Message::Completed {
                    run,
                    attempt,
                    outcome,
                    cause,
                } => {
                    self.cause = cause.or(self.cause.take());
                    (Input::Completed { run, attempt, outcome }, None)
                }
            };
            match (self.machine.step(now, input), reply) {
                (Ok(step), reply) => {
                    taken.add(step, &mut self.more);
                    taken.replies.extend(reply);
                }
                // A caller that went away needs no answer.
                (Err(error @ (MachineError::NotAccepting(_) | MachineError::NoSignals)), Some(reply)) => {
                    let _ = reply.send(Err(EngineError::from(error).of(&self.claim.execution)));
                }
                (Err(error), _) => return Err(error.into()),
            }
        }
        self.store(taken).await
    }

    async fn input(&mut self, input: Input) -> Result<(), EngineError> {
        let mut taken = Taken::default();
        let step = self.machine.step(self.claim.shared.now(), input)?;
        taken.add(step, &mut self.more);
        self.store(taken).await
    }

    async fn control(&mut self, control: Control) -> Result<(), EngineError> {
        let Control::Cancel { reply } = control;
        let mut taken = Taken {
            replies: vec![reply],
            ..Taken::default()
        };
        let step = self.machine.step(self.claim.shared.now(), Input::Cancel)?;
        self.more = false;
        taken.add(step, &mut self.more);
        self.store(taken).await
    }

    /// Persists, then performs.
    async fn store(&mut self, taken: Taken) -> Result<(), EngineError> {
        let shared = &self.claim.shared;
        let events = published(shared, &taken.commits);
        if !taken.commits.is_empty()
            && let Err(error) = shared.backends.commit(taken.commits).await
        {
            let error = EngineError::from(error).of(&self.claim.execution);
            for reply in taken.replies {
                let _ = reply.send(Err(error.clone()));
            }
            return Err(error);
        }
        if !events.is_empty() {
            shared.subscribers.publish(&self.claim.execution, events);
        }
        self.perform(taken.effects);
        for reply in taken.replies {
            let _ = reply.send(Ok(()));
        }
        Ok(())
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::CallTool(call) => self.performer.call_tool(call),
                Effect::RunNode(run) => self.performer.run_node(run),
                Effect::Complete { run, attempt, outcome } => {
                    self.queue.push_back(Message::Completed {
                        run,
                        attempt,
                        outcome,
                        cause: None,
                    });
                }
                Effect::Continue => self.more = true,
                // All runs of an execution are aborted together: when it has failed or is cancelled.
                Effect::Abort { .. } => self.performer.run.cancellation.cancel(),
            }
        }
    }

    /// What is left of the time that the execution may be active; `None` without such a limit, or while it isn't.
    fn active_time_left(&self) -> Option<Duration> {
        let state = self.machine.state();
        let limit = state.limits.active_time.filter(|_| state.status == Status::Running)?;
        let stretch = state
            .status_since
            .map_or(Duration::ZERO, |since| self.claim.shared.now().since(since));
        Some(limit.saturating_sub(Duration::from_micros(state.active_us) + stretch))
    }

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
        self.performer.run.cancellation.cancel();
        if let Err(error) = result {
            tracing::warn!(%error, "the execution's coordinator stopped");
            return refuse_rest(self.claim, self.queue, &error.of(&self.machine.state().id));
        }
        let ended = ended(self.machine.state(), self.cause.take());
        self.claim.release(true);
        // Nobody waiting is no error.
        let _ = self.claim.progress.send(Progress::Ended(ended));
    }
}

impl Taken {
    fn add(&mut self, step: Step, more: &mut bool) {
        self.commits.extend(step.commit);
        *more |= step.effects.iter().any(|effect| matches!(effect, Effect::Continue));
        self.effects.extend(step.effects);
    }
}

/// The events of commits, if anybody wants them.
pub(super) fn published(shared: &Shared, commits: &[Commit]) -> Vec<Event> {
    for event in commits.iter().flat_map(|commit| &commit.events) {
        tracing::debug!(event = event.kind.name(), data = ?event.kind);
    }
    match shared.subscribers.any() {
        true => commits.iter().flat_map(|commit| &commit.events).cloned().collect(),
        false => Vec::new(),
    }
}

/// Without a limit, never.
async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Ends a claim whose execution can't be run: everybody who waits gets the error.
fn refuse(claim: Claim, error: &EngineError) {
    refuse_rest(claim, VecDeque::new(), error);
}

fn refuse_rest(mut claim: Claim, queue: VecDeque<Message>, error: &EngineError) {
    claim.release(true);
    let mut rest = queue;
    while let Ok(message) = claim.mailbox.try_recv() {
        rest.push_back(message);
    }
    for message in rest {
        if let Message::Broadcast { reply, .. } = message {
            let _ = reply.send(Err(error.clone()));
        }
    }
    while let Ok(Control::Cancel { reply }) = claim.control.try_recv() {
        let _ = reply.send(Err(error.clone()));
    }
    let _ = claim.progress.send(Progress::Ended(Err(error.clone())));
}
