//! Performing effects: later, in any order, or never.

use anyhow::{Result, bail};
use soe_backends::{ExecutionId, Value};
use soe_core::machine::{Descend, Effect, Input, Outcome};

use super::run::{Task, Trees, What};

impl Trees<'_> {
    pub(super) fn perform(&mut self, id: &ExecutionId, effects: Vec<Effect>) -> Result<()> {
        for effect in effects {
            let what = match effect {
                Effect::CallTool(call) => What::Complete {
                    run: call.run,
                    attempt: call.attempt,
                    outcome: Outcome::Tool(Ok(Value::from(format!("{id} {}", call.run)))),
                },
                Effect::RunNode(run) => What::Complete {
                    run: run.run,
                    attempt: 1,
                    outcome: Outcome::Node(Err("boom".into())),
                },
                Effect::Complete { run, attempt, outcome } => What::Complete { run, attempt, outcome },
                Effect::Spawn(spawn) => What::Spawn(spawn),
                Effect::Continue => What::Continue,
                Effect::Acknowledge { child, number } => What::Acknowledge { child, number },
                Effect::Descend { what, children } => {
                    let tasks = children.into_iter().map(|child| Task {
                        of: id.clone(),
                        what: What::Descend(what, child),
                    });
                    self.tasks.extend(tasks);
                    continue;
                }
                Effect::Tell { message, .. } => {
                    if let Some(member) = self.members.get_mut(id) {
                        member.relay.push_back(message);
                    }
                    continue;
                }
                Effect::Abort { run } => {
                    self.tasks.retain(|task| task.of != *id || !task.what.is_of(run));
                    continue;
                }
                other => bail!("unexpected: {other:?}"),
            };
            self.tasks.push(Task { of: id.clone(), what });
        }
        Ok(())
    }

    pub(super) fn performed(&mut self, task: Task) -> Result<()> {
        let of = task.of;
        match task.what {
            What::Complete { run, attempt, outcome } => self.input(&of, Input::Completed { run, attempt, outcome }),
            What::Continue => self.input(&of, Input::Continue),
            What::Spawn(mut spawn) => match spawn.children.pop() {
                Some(start) => {
                    let what = What::Spawn(spawn);
                    self.tasks.push(Task { of, what });
                    self.revive(&start.id)?;
                    self.start(start)
                }
                None => {
                    let outcome = Outcome::Spawned(Ok(()));
                    let (run, attempt) = (spawn.run, spawn.next);
                    self.input(&of, Input::Completed { run, attempt, outcome })
                }
            },
            What::Acknowledge { child, number } => self.acknowledge(&child, number),
            // It was registered, and its parent ended before it was created.
            What::Descend(_, child) if !self.members.contains_key(&child) => Ok(()),
            What::Descend(what, child) => {
                self.revive(&child)?;
                self.input(
                    &child,
                    match what {
                        Descend::Cancel => Input::Cancel,
                        _ => Input::Suspend,
                    },
                )
            }
        }
    }

    fn acknowledge(&mut self, child: &ExecutionId, number: u64) -> Result<()> {
        let lost = self.plan.unreliable && self.rng.u8(..4) == 0;
        let Some(member) = self.members.get_mut(child).filter(|member| member.runs() && !lost) else {
            return Ok(());
        };
        if member.relay.front().is_none_or(|first| first.number != number) {
            return Ok(());
        }
        member.relay.pop_front();
        self.input(child, Input::Acknowledged { number })
    }
}

impl What {
    fn is_of(&self, aborted: u64) -> bool {
        match self {
            What::Complete { run, .. } => *run == aborted,
            What::Spawn(spawn) => spawn.run == aborted,
            _ => false,
        }
    }
}
