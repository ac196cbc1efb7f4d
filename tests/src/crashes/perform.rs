//! What becomes of effects.

use std::collections::VecDeque;

use anyhow::{Result, anyhow, bail, ensure};
use soe_backends::ExecutionId;
use soe_core::machine::{Effect, LlmCall};

use super::ledger::Key;
use super::process::{Relay, Task, What};
use super::run::Sim;

impl Sim<'_> {
    /// The onlooker sees what has to be performed.
    pub(super) fn note(&mut self, id: &ExecutionId, effects: &[Effect]) -> Result<()> {
        for effect in effects {
            let (key, content) = match effect {
                Effect::CallTool(call) => {
                    let content = format!("{} {}", call.tool, call.arguments);
                    match call.index {
                        Some(index) => (Key::Call(call.run, index, call.attempt), content),
                        None => (Key::Attempt(call.run, call.attempt), content),
                    }
                }
                Effect::RunNode(run) => {
                    let signals = run.context.operational.signals.len();
                    (Key::Attempt(run.run, 1), format!("{} {signals}", run.node.name))
                }
                Effect::Complete { run, attempt, outcome } => (Key::Attempt(*run, *attempt), format!("{outcome:?}")),
                Effect::CallLlm(call) => request(call)?,
                // What waits for a resumed run's children to rest may find out, in the same event, that they do.
                Effect::Spawn(spawn) if !self.store.state(id)?.runs.contains_key(&spawn.run) => continue,
                Effect::Spawn(spawn) => {
                    let child = |start: &soe_core::machine::Start| (start.id.clone(), start.fields.clone());
                    let children: Vec<_> = spawn.children.iter().map(child).collect();
                    (Key::Children(spawn.run, spawn.next), format!("{children:?}"))
                }
                Effect::Abort { run } => {
                    self.ledger.aborted(id, *run);
                    continue;
                }
                Effect::Tell { message, .. } => {
                    self.ledger.tells(id, message)?;
                    continue;
                }
                _ => continue,
            };
            self.ledger.emitted(id, key, content)?;
        }
        Ok(())
    }

    pub(super) fn perform(&mut self, id: &ExecutionId, effect: Effect, aborted: bool) -> Result<()> {
        if let Effect::StoreTurns(turns) = &effect {
            self.store.append(turns)?;
            let live = self
                .process
                .live
                .get_mut(id)
                .ok_or_else(|| anyhow!("nobody runs {id}"))?;
            live.machine.turns_stored(turns.len());
            return Ok(());
        }
        let unsaid = self
            .store
            .state(id)?
            .turns
            .iter()
            .find(|turn| !self.store.has_turn(turn));
        ensure!(unsaid.is_none(), "{id} performs {effect:?} before {unsaid:?} is stored");
        let live = self
            .process
            .live
            .get_mut(id)
            .ok_or_else(|| anyhow!("nobody runs {id}"))?;
        let by = live.number;
        match effect {
            Effect::Tell { parent, message } => {
                let relay = self.process.relays.entry(by).or_insert_with(|| Relay {
                    child: id.clone(),
                    parent,
                    queue: VecDeque::new(),
                    waits: false,
                });
                relay.queue.push_back(message);
            }
            Effect::Acknowledge { child, number } => {
                if let Some(relay) = live.answers.remove(&(child, number)) {
                    self.dealt_with(relay);
                }
            }
            Effect::Descend { what, mut children } => {
                self.rng.shuffle(&mut children);
                live.descents.push_back((what, children));
            }
            Effect::Continue => live.more |= !aborted,
            Effect::Abort { run } => {
                // An answer may be on its way already.
                let rng = &mut self.rng;
                let dropped = |task: &Task| task.of == *id && task.what.is_of(run);
                let arrived = |task: &Task| matches!(task.what, What::Answer { .. });
                let mut late = |task: &Task| arrived(task) && rng.u8(..4) == 0;
                self.process.tasks.retain(|task| !dropped(task) || late(task));
            }
            _ if aborted => {}
            Effect::Spawn(spawn) => self.task(id, by, What::Spawn(spawn)),
            other => {
                let Some((run, input)) = self.answer(id, other)? else {
                    bail!("what has {id} to do here?");
                };
                self.task(id, by, What::Answer { run, input });
            }
        }
        Ok(())
    }

    pub(super) fn task(&mut self, of: &ExecutionId, by: u64, what: What) {
        let of = of.clone();
        self.process.tasks.push(Task { of, by, what });
    }

    /// The parent has acknowledged the first message of a relay.
    fn dealt_with(&mut self, number: u64) {
        let Some(relay) = self.process.relays.get_mut(&number) else {
            return;
        };
        relay.waits = false;
        if let Some(message) = relay.queue.pop_front() {
            let child = relay.child.clone();
            self.task(&child, number, What::Acknowledged(message.number));
        }
    }
}

/// A request, and all that is asked.
fn request(call: &LlmCall) -> Result<(Key, String)> {
    let dialogue = call.run.progress.dialogue();
    let dialogue = dialogue.ok_or_else(|| anyhow!("{:?} has no dialogue", call.run))?;
    let (question, rejected) = (&dialogue.question, dialogue.rejected.len());
    let content = format!(
        "{} {:?} {question:?} {rejected} {}",
        call.prompt,
        call.identity,
        dialogue.entries.len()
    );
    Ok((Key::Request(call.run.number, dialogue.calls), content))
}
