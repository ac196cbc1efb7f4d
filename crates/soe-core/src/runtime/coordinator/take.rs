//! Taking what has arrived: messages become inputs of the machine.

use soe_backends::{ExecutionId, Status};

use super::super::EngineError;
use super::super::shared::{Answer, Message, Reply};
use super::super::taken::{Taken, answered};
use super::Coordinator;
use crate::machine::{BuiltinCall, Input, MachineError};

impl Coordinator {
    /// Takes what has arrived, up to the machine's next pause, and stores it together.
    pub(super) async fn work_off(&mut self) -> Result<(), EngineError> {
        let mut taken = Taken::new(&self.claim.tree);
        match self.take_queued(&mut taken) {
            Ok(()) => self.store(taken).await?,
            Err(error) => return Err(taken.fail(EngineError::from(error).of(&self.claim.tree))),
        }
        match std::mem::take(&mut self.look) {
            true => self.take_inbox().await,
            false => Ok(()),
        }
    }

    fn take_queued(&mut self, taken: &mut Taken) -> Result<(), MachineError> {
        if std::mem::take(&mut self.more) {
            self.step(Input::Continue, taken)?;
        }
        // What waits comes first, so that what is for one execution stays in its order.
        if !self.blocked.is_empty() {
            self.blocked.append(&mut self.queue);
            self.queue = std::mem::take(&mut self.blocked);
        }
        for _ in 0..self.queue.len() {
            match self.queue.pop_front() {
                Some(Message::Inbox) => self.look = true,
                Some(message) => self.take_message(message, taken)?,
                None => break,
            }
        }
        Ok(())
    }

    fn take_message(&mut self, message: Message, taken: &mut Taken) -> Result<(), MachineError> {
        match message {
            Message::Signal {
                execution,
                signals,
                reply,
            } => self.take_named(&execution, reply, taken, |execution| Input::Signal {
                execution,
                signals,
            }),
            Message::Define { definitions, reply } => {
                let reply = self.step_for(Input::Define(definitions), &self.claim.tree.clone(), reply, taken)?;
                taken.replies.extend(reply);
                Ok(())
            }
            Message::Wait { execution, reply } => {
                // Answered when what came before is stored.
                match self.number(&execution) {
                    Err(error) => drop(reply.send(Err(error))),
                    Ok(number) => self.waiters.push((number, reply)),
                }
                Ok(())
            }
            other => self.take_result(other, taken),
        }
    }

    /// Takes what may have to wait until an event is over.
    fn take_result(&mut self, message: Message, taken: &mut Taken) -> Result<(), MachineError> {
        if self.more && !self.can_take(&message) {
            self.blocked.push_back(message);
            return Ok(());
        }
        match message {
            Message::Completed {
                execution,
                run,
                attempt,
                outcome,
                cause,
            } => {
                let input = Input::Completed {
                    execution,
                    run,
                    attempt,
                    outcome,
                };
                let was_running = self.is_running();
                self.step(input, taken)?;
                if was_running && self.failed_by_a_node() {
                    self.cause = cause;
                }
                Ok(())
            }
            Message::Due { execution, run } => self.step(Input::Due { execution, run }, taken),
            Message::Replied {
                execution,
                run,
                call,
                usage,
            } => {
                let input = Input::Replied {
                    execution,
                    run,
                    call,
                    usage,
                };
                self.step(input, taken)
            }
            other => self.take_asked(other, taken),
        }
    }

    /// Takes what is answered, and may have to wait.
    fn take_asked(&mut self, message: Message, taken: &mut Taken) -> Result<(), MachineError> {
        match message {
            Message::Asked {
                execution,
                run,
                call,
                reply,
            } => {
                let input = Input::Asked { execution, run, call };
                let reply = self.step_for(input, &self.claim.tree.clone(), reply, taken)?;
                taken.replies.extend(reply);
                Ok(())
            }
            Message::Revert {
                execution,
                to,
                registry,
                reply,
            } => self.take_named(&execution, reply, taken, |execution| Input::Revert {
                execution,
                to,
                registry,
            }),
            Message::Builtin { execution, call, reply } => self.take_builtin(&execution, call, reply, taken),
            // Taken before, or not to be answered.
            _ => Ok(()),
        }
    }

    fn take_builtin(
        &mut self,
        execution: &ExecutionId,
        call: Box<BuiltinCall>,
        reply: Answer,
        taken: &mut Taken,
    ) -> Result<(), MachineError> {
        let execution = match self.number(execution) {
            Ok(execution) => execution,
            Err(error) => {
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        let mut step = self
            .machine
            .step(self.claim.shared.now(), Input::Builtin { execution, call })?;
        let result = answered(&mut step);
        taken.add(step, &mut self.more);
        taken.answers.push((reply, result));
        Ok(())
    }

    fn can_take(&self, message: &Message) -> bool {
        let execution = match message {
            Message::Completed { execution, .. }
            | Message::Due { execution, .. }
            | Message::Asked { execution, .. }
            | Message::Replied { execution, .. } => Some(*execution),
            Message::Builtin { execution, .. } | Message::Revert { execution, .. } => {
                self.machine.state().number_of(execution)
            }
            _ => None,
        };
        execution.is_none_or(|execution| self.machine.can_take(&Input::Due { execution, run: 0 }))
    }

    fn take_named(
        &mut self,
        execution: &ExecutionId,
        reply: Reply,
        taken: &mut Taken,
        input: impl FnOnce(u64) -> Input,
    ) -> Result<(), MachineError> {
        match self.number(execution) {
            Ok(number) => {
                let reply = self.step_for(input(number), execution, reply, taken)?;
                taken.replies.extend(reply);
            }
            Err(error) => taken.refused.push((reply, error)),
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
        execution: &ExecutionId,
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
                let error = EngineError::from(refused).of(execution);
                taken.refused.push((reply, error));
                Ok(None)
            }
        }
    }

    /// Whether the root has failed because a node has, and not because of a limit.
    fn failed_by_a_node(&self) -> bool {
        let root = self
            .machine
            .state()
            .root_state()
            .filter(|root| root.status == Status::Failed);
        let failure = root.and_then(|root| root.failure.as_ref());
        failure.is_some_and(|failure| failure.limit.is_none() && failure.node.is_some())
    }
}
