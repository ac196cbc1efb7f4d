//! What becomes of effects, and what the model makes of inputs.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail, ensure};
use soe_backends::{Commit, Request};
use soe_core::machine::{Effect, Input, LlmCall, Outcome, ToolCall};

use super::flow::Kind;
use super::model::Task;
use super::outcome;
use super::world::{Pending, World};

/// What an input answers.
fn answers(input: &Input) -> Option<(u64, Task)> {
    Some(match input {
        Input::Completed {
            execution,
            run,
            attempt,
            outcome,
        } => {
            let task = match outcome {
                Outcome::Llm(_) => Task::Reply(*run, *attempt),
                Outcome::AgentTool { index, .. } => Task::Call(*run, *index, *attempt),
                _ => Task::Attempt(*run, *attempt),
            };
            (*execution, task)
        }
        Input::Due { execution, run } => (*execution, Task::Due(*run)),
        _ => return None,
    })
}

impl World<'_> {
    /// What an answer was is committed.
    pub(super) fn answered(&mut self, input: &Input, commit: &Commit) -> Result<()> {
        let Some((execution, task)) = answers(input).filter(|_| !Self::is_discarded(commit)) else {
            return Ok(());
        };
        self.answers += 1;
        let failed = match input {
            Input::Completed {
                run,
                outcome: Outcome::Node(Err(_)) | Outcome::Llm(Err(_)),
                ..
            } => Some(*run),
            _ => None,
        };
        if let Some(run) = failed {
            *self.ledger.failed.entry((execution, run)).or_default() += 1;
        }
        let state = self.stored.get(execution);
        let in_flight = |run: u64| state.is_some_and(|state| state.runs.contains(run));
        let again = matches!(task, Task::Attempt(run, _) if failed == Some(run) && in_flight(run));
        self.ledger.answered(execution, task, again)
    }

    /// The model takes an input. Without a commit it was refused, or changed nothing.
    pub(super) fn follow(&mut self, input: &Input, commit: Option<&Commit>, taken: bool) -> Result<()> {
        match input {
            Input::Signal { execution, signals } => {
                return self.follow_signals(*execution, signals, taken);
            }
            Input::Message(posted) => {
                let id = &posted.message.id;
                let refused = self.ledger.taken.get(id).copied();
                let refused = refused.ok_or_else(|| anyhow!("message {id} left no event"))?;
                ensure!(self.stored.inbox == posted.seq, "message {id} was not taken");
                let Some(execution) = self.stored.number_of(&posted.message.execution) else {
                    return Ok(());
                };
                return match &posted.message.request {
                    Request::Signal(signals) => self.follow_signals(execution, signals, !refused),
                    Request::Cancel => self.follow_cancel(execution),
                    Request::Resume { .. } => self.follow_resume(execution, !refused),
                    _ => Ok(()),
                };
            }
            Input::Cancel { execution } => return self.follow_cancel(*execution),
            Input::Resume { execution, .. } => return self.follow_resume(*execution, taken),
            Input::Recover if self.follows() => self.model.recover(),
            _ => {}
        }
        let Some((execution, task)) = answers(input).filter(|_| self.follows()) else {
            return Ok(());
        };
        let (exec, known) = (self.modelled(execution)?, format!("{task:?} of {execution}"));
        let task = task.of(|run| self.modelled_run(execution, exec, run));
        let taken = commit.is_some_and(|commit| !Self::is_discarded(commit));
        let expected = self.model.complete(exec, task);
        ensure!(
            taken == expected,
            "{known} was applied: {taken}, and should be: {expected}"
        );
        Ok(())
    }

    /// Whether the model takes each input when the machine takes it.
    pub(super) fn follows(&self) -> bool {
        self.exact && !self.depth_first()
    }

    fn modelled(&self, execution: u64) -> Result<usize> {
        let path = self.ledger.path(execution);
        let same = self.model.execs.iter().position(|exec| exec.path == path);
        same.ok_or_else(|| anyhow!("{path} should not be"))
    }

    /// The number that the model knows a run under; 0 for none.
    fn modelled_run(&self, execution: u64, exec: usize, run: u64) -> u64 {
        let Ok(name) = self.ledger.run(execution, run) else {
            return 0;
        };
        let mut runs = self.model.execs[exec].runs.iter();
        runs.find(|(_, run)| run.name == name).map_or(0, |(number, _)| *number)
    }

    fn follow_signals(&mut self, execution: u64, signals: &[super::flow::Name], taken: bool) -> Result<()> {
        if self.depth_first() && self.exact {
            let id = self
                .stored
                .get(execution)
                .map(|state| state.id.to_string())
                .unwrap_or_default();
            self.later.push((self.answers, id, signals.to_vec()));
        }
        if !self.follows() {
            return Ok(());
        }
        let exec = self.modelled(execution)?;
        let expected = self.model.signal(exec, signals);
        ensure!(
            taken == expected,
            "signals were taken: {taken}, and should be: {expected}"
        );
        Ok(())
    }

    fn follow_cancel(&mut self, execution: u64) -> Result<()> {
        if self.follows() {
            let exec = self.modelled(execution)?;
            self.model.cancel(exec);
        }
        Ok(())
    }

    fn follow_resume(&mut self, execution: u64, taken: bool) -> Result<()> {
        if self.follows() {
            let exec = self.modelled(execution)?;
            let expected = self.model.resume(exec);
            ensure!(expected || !taken, "it was resumed under what has ended");
        }
        Ok(())
    }

    pub(super) fn perform(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::CallTool(call) => self.call_tool(&call),
            Effect::RunNode(run) => {
                let (execution, number) = (run.execution.number, run.run);
                let content = format!("{} {}", run.node.name, run.context.operational.signals.len());
                self.attempt(execution, number, 1, &run.node.name, content)
            }
            Effect::CallLlm(call) => self.ask(&call),
            Effect::Wait { execution, run, .. } => {
                let input = Input::Due { execution, run };
                self.task(execution, Task::Due(run), input, String::new())
            }
            Effect::Continue => {
                self.more = true;
                Ok(())
            }
            Effect::Abort { execution } => {
                self.abort(execution);
                Ok(())
            }
            Effect::Pay(owed) => {
                for turn in &owed.turns {
                    let key = turn.key.clone().ok_or_else(|| anyhow!("{turn:?} has no key"))?;
                    self.told_turns.insert(key);
                }
                for event in &owed.events {
                    ensure!(event.seq <= self.told_events, "event {} is missed", self.told_events);
                    self.told_events = self.told_events.max(event.seq + 1);
                }
                self.machine.paid(&owed);
                Ok(())
            }
            other => bail!("unexpected: {other:?}"),
        }
    }

    fn task(&mut self, execution: u64, task: Task, input: Input, content: String) -> Result<()> {
        let state = self
            .stored
            .get(execution)
            .ok_or_else(|| anyhow!("{execution} is not stored"))?;
        let (Task::Attempt(run, _) | Task::Reply(run, _) | Task::Call(run, ..) | Task::Due(run)) = task;
        ensure!(
            state.runs.contains(run),
            "{task:?} of {execution} is performed for no run in flight"
        );
        ensure!(
            self.stored.status(execution) == Some(soe_backends::Status::Running),
            "{task:?} is performed for {execution}, which doesn't run"
        );
        self.ledger.performed(execution, task, content)?;
        self.tasks.push(Pending { execution, task, input });
        Ok(())
    }

    fn attempt(&mut self, execution: u64, run: u64, attempt: u32, node: &str, content: String) -> Result<()> {
        let (name, node) = (self.ledger.run(execution, run)?.to_owned(), self.node(execution, node)?);
        let failed = self.ledger.failed.get(&(execution, run)).copied().unwrap_or(0);
        let outcome = outcome::attempt(node, &name, attempt, failed);
        let input = Input::Completed {
            execution,
            run,
            attempt,
            outcome,
        };
        self.task(execution, Task::Attempt(run, attempt), input, content)
    }

    fn node(&self, execution: u64, node: &str) -> Result<&super::flow::Node> {
        let state = self
            .stored
            .get(execution)
            .ok_or_else(|| anyhow!("{execution} is not stored"))?;
        self.grove.node(&state.workflow, node)
    }

    fn call_tool(&mut self, call: &ToolCall) -> Result<()> {
        let (execution, run, attempt) = (call.execution.number, call.run, call.attempt);
        let content = format!("{} {}", call.tool, call.arguments);
        let Some(index) = call.index else {
            self.told(call)?;
            return self.attempt(execution, run, attempt, &call.node.name, content);
        };
        let name = self.ledger.run(execution, run)?.to_owned();
        let Kind::Llm(super::flow::Llm { agent: Some(agent), .. }) = &self.node(execution, &call.node.name)?.kind
        else {
            bail!("{name} is no agent");
        };
        let outcome = outcome::call(agent, &name, index, attempt);
        let input = Input::Completed {
            execution,
            run,
            attempt,
            outcome,
        };
        self.task(execution, Task::Call(run, index, attempt), input, content)
    }

    /// What a tool is told is the context after the whole event that triggered it.
    fn told(&self, call: &ToolCall) -> Result<()> {
        if !self.follows() || self.more || self.ledger.was_ahead || call.arguments.get("values").is_none() {
            return Ok(());
        }
        let exec = self.modelled(call.execution.number)?;
        let Some(run) = self.model.execs[exec].runs.get(&call.run) else {
            bail!("run {} of {} should not be", call.run, call.execution.id);
        };
        let (values, signals) = (&call.arguments["values"], &call.arguments["signals"]);
        ensure!(
            *values == run.reads.0 && *signals == run.reads.1,
            "run {} of {} reads {}, not {:?}",
            call.run,
            call.execution.id,
            call.arguments,
            run.reads
        );
        Ok(())
    }

    fn ask(&mut self, call: &LlmCall) -> Result<()> {
        let (execution, run) = (call.execution.number, call.run.number);
        let dialogue = call
            .run
            .progress
            .dialogue()
            .ok_or_else(|| anyhow!("{:?} has no dialogue", call.run))?;
        let name = self.ledger.run(execution, run)?.to_owned();
        let Kind::Llm(llm) = &self.node(execution, &call.node.name)?.kind else {
            bail!("{name} asks no LLM");
        };
        let failed = self.ledger.failed.get(&(execution, run)).copied().unwrap_or(0);
        let (attempt, outcome) = (dialogue.calls, outcome::answer(llm, &name, dialogue, failed));
        let (question, rejected) = (&dialogue.question, dialogue.rejected.len());
        let content = format!(
            "{} {:?} {question:?} {rejected} {}",
            call.prompt,
            call.identity,
            dialogue.entries.len()
        );
        let input = Input::Completed {
            execution,
            run,
            attempt,
            outcome,
        };
        self.task(execution, Task::Reply(run, attempt), input, content)
    }

    fn abort(&mut self, execution: u64) {
        let tree = self.machine.state().clone();
        let below = |number| tree.is_within(number, execution);
        let (aborted, others) = std::mem::take(&mut self.tasks)
            .into_iter()
            .partition(|task| below(task.execution));
        self.tasks = others;
        // An answer may be on its way already.
        let aborted: Vec<Pending> = aborted;
        let late: Vec<Pending> = aborted.into_iter().filter(|_| self.rng.u8(..4) == 0).collect();
        self.late.extend(late);
        self.ledger.aborted(below);
    }

    /// What is in flight, by names.
    pub(super) fn in_flight(&self) -> Result<BTreeSet<String>> {
        let named = |pending: &Pending| {
            let run = self.ledger.run(pending.execution, pending.task.run())?;
            Ok(format!("{run} {:?}", pending.task.of(|_| 0)))
        };
        self.tasks.iter().map(named).collect()
    }

    /// What should be in flight, by names.
    pub(super) fn expected_in_flight(&self) -> BTreeSet<String> {
        let all = self.model.execs.iter().enumerate().flat_map(|(number, exec)| {
            let tasks = self.model.tasks(number).into_iter();
            tasks.map(move |task| format!("{} {:?}", exec.runs[&task.run()].name, task.of(|_| 0)))
        });
        all.collect()
    }
}
