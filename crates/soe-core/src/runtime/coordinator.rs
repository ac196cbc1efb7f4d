//! One coordinating task per active execution: everything that happens to it passes through here, in one order.

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
use super::shared::{Answer, Cause, Control, Message, Progress, Reply, ended};
use super::store::changes_workflows;
use super::taken::{Taken, answered};
use super::{EngineError, EngineErrorKind};
use crate::machine::{BuiltinCall, BuiltinRequest, Denial, Effect, Input, Machine, MachineError, Spawn, Step};
use crate::tools::builtin::works_on_definitions;

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
    /// It was taken up because something was left to do.
    recovered: bool,
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
        if taken != TakenUp::Stopped {
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
            recovered: false,
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
                // The parent of one that was taken up to be heard answers soon.
                let family = self.machine.state().family.as_ref();
                let tells = family.is_some_and(|family| family.descending && !family.outbox.is_empty());
                let unheard = self.recovered && tells;
                if !unheard && self.claim.release_if_idle() {
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

    /// Takes what has arrived, up to the machine's next pause, and stores it together.
    async fn work_off(&mut self) -> Result<(), EngineError> {
        if !self.more
            && self.queue.front().is_some_and(is_about_definitions)
            && let Some(Message::Builtin { call, reply }) = self.queue.pop_front()
        {
            return self.define(*call, reply).await;
        }
        let mut taken = Taken::new(&self.claim.execution);
        match self.take_queued(&mut taken) {
            Ok(()) => self.store(taken).await,
            Err(error) => Err(taken.fail(EngineError::from(error).of(&self.claim.execution))),
        }
    }

    fn take_queued(&mut self, taken: &mut Taken) -> Result<(), MachineError> {
        if std::mem::take(&mut self.more) {
            self.step(Input::Continue, taken)?;
        }
        // In this order: a message that is taken from the queue must be worked off.
        while !self.more
            && !self.queue.front().is_some_and(is_about_definitions)
            && let Some(message) = self.queue.pop_front()
        {
            self.take_message(message, taken)?;
        }
        Ok(())
    }

    fn take_message(&mut self, message: Message, taken: &mut Taken) -> Result<(), MachineError> {
        match message {
            Message::Broadcast { signals, reply } => {
                let reply = self.step_for(Input::Broadcast(signals), reply, taken)?;
                taken.replies.extend(reply);
            }
            Message::FromChild { child, message, reply } => {
                let answered = (child.clone(), message.number);
                if let Some(reply) = self.step_for(Input::FromChild { child, message }, reply, taken)? {
                    self.answers.insert(answered, reply);
                }
            }
            Message::Descended { reached } => {
                self.descents -= 1;
                // What went down last is what counts.
                self.unreached = !reached;
                if self.descents == 0 && reached && self.is_descending() {
                    self.step(Input::Settled, taken)?;
                }
            }
            Message::Acknowledged { number } => {
                self.step(Input::Acknowledged { number }, taken)?;
                let over = self.machine.state().status != Status::Running;
                if self.descents == 0 && over && !self.unreached && self.is_descending() {
                    self.step(Input::Settled, taken)?;
                }
            }
            Message::Builtin { call, reply } => {
                let mut step = self.machine.step(self.claim.shared.now(), Input::Builtin(call))?;
                let result = answered(&mut step);
                taken.add(step, &mut self.more);
                taken.answers.push((reply, result));
            }
            Message::Revert { to, registry, reply } => {
                let reply = self.step_for(Input::Revert { to, registry }, reply, taken)?;
                taken.replies.extend(reply);
            }
            Message::Exceeded(Denial { limit, message }) => {
                self.step(Input::LimitExceeded { limit, message }, taken)?
            }
            Message::Granted { run, call, denied } => self.step(Input::Granted { run, call, denied }, taken)?,
            Message::Asked { run, call, reply } => match self.reserve() {
                None => {
                    self.step(Input::Asked { run, call }, taken)?;
                    taken.replies.push(reply);
                }
                Some(denial) => {
                    let error = EngineError::because(EngineErrorKind::Refused, denial.to_string());
                    taken.refused.push((reply, error.of(&self.claim.execution)));
                }
            },
            Message::Replied { run, call, usage } => self.step(Input::Replied { run, call, usage }, taken)?,
            Message::Completed {
                run,
                attempt,
                outcome,
                cause,
            } => {
                let was_running = self.machine.state().status == Status::Running;
                self.step(Input::Completed { run, attempt, outcome }, taken)?;
                if was_running && self.failed_by_a_node() {
                    self.cause = cause;
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, input: Input, taken: &mut Taken) -> Result<(), MachineError> {
        let step = self.machine.step(self.claim.shared.now(), input)?;
        taken.add(step, &mut self.more);
        Ok(())
    }

    /// Takes an input that the machine may refuse: its sender hears of that when what came before is stored. Otherwise the
    /// reply is still to be given.
    fn step_for(&mut self, input: Input, reply: Reply, taken: &mut Taken) -> Result<Option<Reply>, MachineError> {
        match self.step(input, taken) {
            Ok(()) => Ok(Some(reply)),
            Err(error @ MachineError::Broken(_)) => {
                taken.replies.push(reply);
                Err(error)
            }
            Err(refused) => {
                let error = EngineError::from(refused).of(&self.claim.execution);
                taken.refused.push((reply, error));
                Ok(None)
            }
        }
    }

    /// Reads or changes what the tree shares: on what is stored, by itself, so that no change is lost to another.
    async fn define(&mut self, mut call: BuiltinCall, reply: Answer) -> Result<(), EngineError> {
        let mut taken = Taken::new(&self.claim.execution);
        let current = match self.claim.shared.definitions(&self.claim.execution).await {
            Ok(current) => Box::new(current),
            Err(error) => {
                // An answer, and no reason for the execution to stop.
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        if let BuiltinRequest::Arguments(arguments) = call.request {
            call.request = BuiltinRequest::Define { arguments, current };
        }
        let step = self
            .machine
            .step(self.claim.shared.now(), Input::Builtin(Box::new(call)));
        match step {
            Ok(mut step) => {
                taken.answers.push((reply, answered(&mut step)));
                taken.add(step, &mut self.more);
                self.store(taken).await
            }
            Err(error) => {
                let error = EngineError::from(error).of(&self.claim.execution);
                let _ = reply.send(Err(error.clone()));
                Err(error)
            }
        }
    }

    /// Whether the execution has failed because a node has, and not because of a limit.
    fn failed_by_a_node(&self) -> bool {
        let state = self.machine.state();
        let failure = state.failure.as_ref().filter(|_| state.status == Status::Failed);
        failure.is_some_and(|failure| failure.limit.is_none() && failure.node.is_some())
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
        self.recovered |= matches!(input, Input::Recover);
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

    /// Persists, then performs.
    async fn store(&mut self, mut taken: Taken) -> Result<(), EngineError> {
        let commits = std::mem::take(&mut taken.commits);
        let other_workflows = commits.iter().any(changes_workflows);
        if let Err(error) = self.claim.shared.commit(&self.claim.execution, commits).await {
            return Err(taken.fail(error));
        }
        if other_workflows {
            self.claim.shared.show_workflows(self.machine.state()).await;
        }
        let effects = std::mem::take(&mut taken.effects);
        let turns = self.store_turns(&effects).await;
        if turns.is_ok() {
            self.perform(effects);
        }
        taken.answer();
        turns
    }

    /// Puts turns of the conversation into their store before anybody acts on what they follow.
    async fn store_turns(&mut self, effects: &[Effect]) -> Result<(), EngineError> {
        let shared = self.claim.shared.clone();
        for effect in effects {
            let (Effect::StoreTurns(turns), Some(store)) = (effect, shared.backends.conversations()) else {
                continue;
            };
            let stored = shared.call(store.append_turns(&self.performer.main, turns)).await;
            stored.map_err(|error| error.of(&self.claim.execution))?;
            self.machine.turns_stored(turns.len());
        }
        Ok(())
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        // All runs of an execution are aborted together: when it has failed or is cancelled. What was dispatched just
        // before is not begun any more.
        let aborted = effects.iter().any(|effect| matches!(effect, Effect::Abort { .. }));
        if aborted {
            self.performer.run.cancellation.cancel();
        } else if self.performer.run.cancellation.is_cancelled() && self.machine.state().status == Status::Running {
            // It was resumed.
            self.performer = Arc::new(self.performer.resumed(&self.claim, &self.machine));
            self.cause = None;
        }
        for effect in effects {
            match effect {
                Effect::Tell { parent, message } => self.performer.tell(parent, message),
                Effect::Acknowledge { child, number } => {
                    if let Some(reply) = self.answers.remove(&(child, number)) {
                        // Whoever delivered it may be gone: then it comes again.
                        let _ = reply.send(Ok(()));
                    }
                }
                Effect::Descend { what, children } => {
                    self.descents += 1;
                    self.performer.descend(what, children);
                }
                _ if aborted => {}
                Effect::Spawn(spawn) => self.spawn(spawn),
                Effect::CallTool(call) => self.performer.call_tool(call),
                Effect::RunNode(run) => self.performer.run_node(run),
                Effect::CallLlm(call) => self.performer.call_llm(call),
                Effect::Reserve { run, call } => {
                    let denied = self.reserve();
                    self.queue.push_back(Message::Granted { run, call, denied });
                }
                Effect::Complete { run, attempt, outcome } => {
                    self.queue.push_back(Message::Completed {
                        run,
                        attempt,
                        outcome,
                        cause: None,
                    });
                }
                Effect::Continue => self.more = true,
                Effect::StoreTurns(_) | Effect::Abort { .. } | Effect::Answer { .. } => {}
            }
        }
    }

    /// Creates children, if the tree may have so many more.
    fn spawn(&mut self, spawn: Spawn) {
        let allowed = self.machine.state().limits.children;
        let reserved = match self.recovering {
            // They are registered, and so known already.
            true => Ok(()),
            false => self.performer.budget.reserve_children(spawn.children.len(), allowed),
        };
        match reserved {
            Ok(()) => self.performer.spawn_children(spawn),
            Err(denial) => self.queue.push_back(Message::Exceeded(denial)),
        }
    }

    /// Reserves a request to an LLM; gives the reason if none may be made.
    fn reserve(&self) -> Option<Denial> {
        self.performer.budget.reserve(&self.machine.state().limits).err()
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

/// Whether a message reads or changes what the tree shares, which is in the store.
fn is_about_definitions(message: &Message) -> bool {
    matches!(message, Message::Builtin { call, .. } if works_on_definitions(&call.tool))
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
