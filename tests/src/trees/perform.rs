//! Performing effects: later, in any order, or never.

use anyhow::{Result, bail};
use soe_backends::{ExecutionId, Value};
use soe_core::machine::{Descend, Effect, Heard, Input, Outcome};
use soe_core::nodes::NodeOutput;

use super::run::{Member, Task, Trees, What};

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
                    outcome: Outcome::Node(match self.failures.checked_sub(1) {
                        Some(left) => {
                            self.failures = left;
                            Err("boom".into())
                        }
                        None => Ok(NodeOutput::default()),
                    }),
                },
                Effect::Complete { run, attempt, outcome } => What::Complete { run, attempt, outcome },
                Effect::Spawn(spawn) => What::Spawn(spawn),
                Effect::Continue => What::Continue,
                Effect::Acknowledge { child, number } => What::Acknowledge { child, number },
                Effect::Descend { what, children } => {
                    self.descend(id, what, children);
                    continue;
                }
                Effect::Tell { message, .. } => {
                    let known = |member: &&mut Member| member.relay.iter().any(|other| other.number == message.number);
                    if let Some(member) = self.members.get_mut(id).filter(|member| !known(member)) {
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
            What::Descend => self.go_down(&of),
        }
    }

    /// What goes down goes down in order, and to one child after the other in any.
    fn descend(&mut self, id: &ExecutionId, what: Descend, mut children: Vec<(ExecutionId, Heard)>) {
        self.rng.shuffle(&mut children);
        let Some(member) = self.members.get_mut(id) else { return };
        let idle = member.descents.is_empty();
        member.descents.push_back((what, children));
        if idle {
            self.tasks.push(Task {
                of: id.clone(),
                what: What::Descend,
            });
        }
    }

    fn go_down(&mut self, of: &ExecutionId) -> Result<()> {
        let Some(member) = self.members.get_mut(of) else {
            return Ok(());
        };
        let Some((what, children)) = member.descents.front_mut() else {
            bail!("nothing goes down from {of}")
        };
        let Some((child, heard)) = children.pop() else {
            member.descents.pop_front();
            if !member.descents.is_empty() {
                self.tasks.push(Task {
                    of: of.clone(),
                    what: What::Descend,
                });
                return Ok(());
            }
            let descending = member.state.family.as_ref().is_some_and(|family| family.descending);
            return match descending {
                true => self.input(of, Input::Settled),
                false => Ok(()),
            };
        };
        let input = match what {
            Descend::Cancel => Input::Cancel,
            Descend::Resume { limits } => Input::Resume {
                limits: Some(limits.clone()),
                parent: Some(heard),
            },
            _ => Input::Suspend,
        };
        self.tasks.push(Task {
            of: of.clone(),
            what: What::Descend,
        });
        // It was registered, and its parent ended before it was created.
        if !self.members.contains_key(&child) {
            return Ok(());
        }
        self.load(&child)?;
        self.input(&child, input)
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
