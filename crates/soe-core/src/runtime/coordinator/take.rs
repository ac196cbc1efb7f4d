//! Taking what has arrived: messages become inputs of the machine.

use soe_backends::Status;

use super::super::shared::{Answer, Message, Reply};
use super::super::taken::{Taken, answered};
use super::super::{EngineError, EngineErrorKind};
use super::Coordinator;
use crate::machine::{BuiltinCall, BuiltinRequest, Denial, Input, MachineError};
use crate::tools::builtin::works_on_definitions;

impl Coordinator {
    /// Takes what has arrived, up to the machine's next pause, and stores it together.
    pub(super) async fn work_off(&mut self) -> Result<(), EngineError> {
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
    pub(super) fn step_for(
        &mut self,
        input: Input,
        reply: Reply,
        taken: &mut Taken,
    ) -> Result<Option<Reply>, MachineError> {
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
}

/// Whether a message reads or changes what the tree shares, which is in the store.
fn is_about_definitions(message: &Message) -> bool {
    matches!(message, Message::Builtin { call, .. } if works_on_definitions(&call.tool))
}
