//! Broadcasts, and the cascade of routers that follows: depth-first, on an explicit stack.

use std::sync::Arc;

use soe_backends::{Batch, Change, EventKind, ExecutionId, Progress, RegistryId, Schedule, Spawning, Stage, Then};

use super::transaction::{Applied, Transaction};
use super::{Effect, Machine};
use crate::config::{Condition, Node, NodeKind};
use crate::template::Scope;

/// After so many routers the driver gets its turn, so that a loop without a guard can be cancelled.
const PURE_STEPS: usize = 1_000;

/// A router counts as one more step for each of these emissions.
const CONDITIONS_PER_STEP: usize = 16;

/// A batch whose listeners are being worked off.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) signals: Batch,
    pub(super) registry: RegistryId,
    pub(super) listeners: Arc<[Arc<Node>]>,
    pub(super) next: usize,
    /// What comes when it is worked off.
    pub(super) then: Option<Box<Then>>,
}

impl Machine {
    /// Takes the batches off the top of the stack that have no listener left.
    pub(super) fn pop_worked_off(&mut self) {
        let over = |top: &mut Cursor| top.next >= top.listeners.len() && top.then.is_none();
        while self.stack.pop_if(over).is_some() {}
        self.stack_kept = self.stack_kept.min(self.stack.len());
    }

    /// How many messages of children are being answered.
    fn answering(&self) -> usize {
        let answers = |cursor: &&Cursor| matches!(cursor.then.as_deref(), Some(Then::Acknowledge { .. }));
        self.stack.iter().filter(answers).count()
    }

    /// The registry that has a listener of the batch on top as it is: the current one, unless the node was changed or removed
    /// since the batch was taken up.
    pub(super) fn registry_of_listener(&self, node: &Node) -> RegistryId {
        let current = &self.state.registry;
        let Some(top) = self.stack.last().filter(|top| top.registry != *current) else {
            return current.clone();
        };
        let now = self.node(current, &self.state.workflow, &node.name);
        match now.is_some_and(|now| now.config == node.config) {
            true => current.clone(),
            false => top.registry.clone(),
        }
    }

    /// Goes on to the next listener of the batch on top.
    fn advance(&mut self) {
        if let Some(top) = self.stack.last_mut() {
            top.next += 1;
            self.stack_kept = self.stack_kept.min(self.stack.len() - 1);
        }
    }
}

impl Transaction<'_> {
    /// Whether a batch from outside can be taken up now: nothing of what came before is left to do.
    pub(super) fn can_take_up(&self) -> bool {
        self.machine.stack.is_empty() && !self.must_wait()
    }

    /// Whether the schedule wants something to be over before anything else is done: the run in flight, or what the parent
    /// makes of a message.
    pub(super) fn must_wait(&self) -> bool {
        if self.state().schedule != Schedule::DepthFirst {
            return false;
        }
        let (spawning, others) = self.kinds_in_flight();
        others > 0 || spawning > self.machine.answering() || self.waits_for_parent()
    }

    /// Whether a message of a child can be taken now.
    pub(super) fn can_take_in(&self) -> bool {
        if self.state().schedule != Schedule::DepthFirst {
            return self.machine.stack.is_empty();
        }
        let (spawning, others) = self.kinds_in_flight();
        let waits_for_it = spawning > self.machine.answering() || self.machine.stack.is_empty();
        others == 0 && waits_for_it && !self.waits_for_parent()
    }

    fn waits_for_parent(&self) -> bool {
        self.family().is_some_and(|family| !family.outbox.is_empty())
    }

    /// The runs in flight that start children, and the others.
    fn kinds_in_flight(&self) -> (usize, usize) {
        let runs = &self.state().runs;
        let starts = |run: &&Arc<soe_backends::Run>| matches!(run.progress, Progress::Child(_));
        let spawning = runs.values().filter(starts).count();
        (spawning, runs.len() - spawning)
    }

    /// Records a batch and puts its listeners on the stack.
    pub(super) fn take_up(&mut self, signals: Batch) -> Applied {
        let passed = self.passed_on(&signals);
        match passed {
            Some(passed) if self.state().schedule == Schedule::DepthFirst => {
                self.take_up_then(signals, Some(Box::new(Then::Tell(passed))))
            }
            Some(passed) => {
                self.take_up_then(signals, None)?;
                match self.is_running() {
                    true => self.tell_signals(passed),
                    false => Ok(()),
                }
            }
            None => self.take_up_then(signals, None),
        }
    }

    /// Has a message acknowledged when what comes on top of the stack now is worked off.
    pub(super) fn push_answer(&mut self, child: ExecutionId, number: u64) {
        self.machine.pop_worked_off();
        self.machine.stack.push(Cursor {
            signals: Arc::default(),
            registry: self.state().registry.clone(),
            listeners: Arc::default(),
            next: 0,
            then: Some(Box::new(Then::Acknowledge { child, number })),
        });
    }

    /// As [`Transaction::take_up`], with what comes when the batch is worked off; nothing of it is told.
    fn take_up_then(&mut self, signals: Batch, then: Option<Box<Then>>) -> Applied {
        if let Some((limit, message)) = self.broadcast_too_many(&signals) {
            self.change(Change::Accepted(signals))?;
            return self.fail_for_limit(limit, message);
        }
        self.change(Change::Broadcast(signals.clone()))?;
        self.event(EventKind::SignalsBroadcast {
            signals: signals.clone(),
        });
        // A listener's batch that was its last leaves the stack first: a loop doesn't make it grow.
        self.machine.pop_worked_off();
        let state = &self.machine.state;
        let Some(registry) = self.machine.registries.first() else {
            return Ok(());
        };
        // The workflow may have been removed.
        let workflow = registry.workflows.get(&state.workflow);
        let listeners = workflow
            .map(|workflow| workflow.listeners(&signals))
            .unwrap_or_default();
        if !listeners.is_empty() || then.is_some() {
            let registry = registry.id.clone();
            self.machine.stack.push(Cursor {
                signals,
                registry,
                listeners,
                next: 0,
                then,
            });
        }
        Ok(())
    }

    /// The limit that broadcasting `signals` too would exceed, and how.
    fn broadcast_too_many(&self, signals: &Batch) -> Option<(&'static str, String)> {
        let state = self.state();
        let limit = state.limits.broadcasts;
        if state.broadcasts >= limit {
            let message = format!("{limit} broadcasts were made, the next is of {}", named(signals));
            return Some(("broadcasts", message));
        }
        // Every signal is kept: a loop that emits thousands at a time would fill the memory within few broadcasts.
        let (count, allowed) = (state.context.operational.signals.len(), state.limits.context_bytes);
        let recorded = ((count + signals.len()) * size_of::<Arc<str>>()) as u64;
        (recorded > allowed).then(|| {
            let message = format!(
                "{count} signals are recorded, with the next their list takes {recorded} bytes, {allowed} are allowed"
            );
            ("context_bytes", message)
        })
    }

    /// Works the stack off, as far as the schedule and the driver's turn allow; then what was accepted meanwhile.
    pub(super) fn cascade(&mut self) -> Applied {
        while self.is_running() {
            if self.can_take_in() && self.take_in_kept()? {
                continue;
            }
            if self.must_wait() {
                return Ok(());
            }
            let Some(cursor) = self.machine.stack.last_mut() else {
                if self.state().pending.is_empty() {
                    return Ok(());
                }
                let signals = self.state().pending[0].clone();
                if let Some((limit, message)) = self.broadcast_too_many(&signals) {
                    // It stays where it is: the first to be taken up when the execution is resumed.
                    return self.fail_for_limit(limit, message);
                }
                self.change(Change::TakenUp)?;
                self.take_up(signals)?;
                continue;
            };
            let Some(node) = cursor.listeners.get(cursor.next).cloned() else {
                let then = cursor.then.take();
                self.machine.pop_worked_off();
                match then.map(|then| *then) {
                    None => {}
                    Some(Then::Tell(signals)) => self.tell_signals(signals)?,
                    Some(Then::Acknowledge { child, number }) => {
                        self.effects.push(Effect::Acknowledge { child, number });
                    }
                    Some(_) => {}
                }
                continue;
            };
            if self.pure_steps >= PURE_STEPS {
                self.effects.push(Effect::Continue);
                return Ok(());
            }
            if self.state().runs_started >= self.state().limits.runs {
                let message = format!(
                    "{} runs were started, the next is of node '{}'",
                    self.state().runs_started,
                    node.name
                );
                return self.fail_for_limit("runs", message);
            }
            self.machine.advance();
            // What takes the time is the conditions: a node with hundreds of them counts as several.
            self.pure_steps += 1 + node.emissions.len() / CONDITIONS_PER_STEP;
            self.visit(&node)?;
        }
        Ok(())
    }

    fn visit(&mut self, node: &Arc<Node>) -> Applied {
        match self.beginning(node) {
            None => self.route(node),
            Some(progress) => self.dispatch(node, progress),
        }
    }

    /// How far a run of a node is that begins; `None` for a router, which has no runs.
    pub(super) fn beginning(&self, node: &Node) -> Option<Progress> {
        Some(match &node.kind {
            NodeKind::Router => return None,
            NodeKind::Tool(_) => Progress::Tool { attempt: 1 },
            NodeKind::Custom(_) => Progress::Custom,
            NodeKind::Llm(llm) => Progress::Llm(Box::new(self.new_dialogue(Stage::Llm, llm))),
            NodeKind::Agent(agent) => Progress::Agent(Box::new(self.new_dialogue(self.turn_stage(agent), &agent.llm))),
            NodeKind::Child(_) => Progress::Child(Spawning::default()),
        })
    }

    fn route(&mut self, node: &Arc<Node>) -> Applied {
        self.change(Change::Routed {
            node: node.name.clone(),
        })?;
        self.event(EventKind::NodeExecution {
            node_name: node.name.clone(),
            node_type: node.type_name.clone(),
            run: None,
        });
        let signals = self.emissions(node, None);
        self.emit(signals)
    }

    /// Broadcasts what a node emits, if it emits anything. The caller goes on with the cascade.
    pub(super) fn emit(&mut self, signals: Batch) -> Applied {
        if signals.is_empty() || !self.is_running() {
            Ok(())
        } else {
            self.take_up(signals)
        }
    }

    /// The signals whose conditions pass on the live state, in order. `result` is what a tool returned.
    pub(super) fn emissions(&mut self, node: &Node, result: Option<&soe_backends::Value>) -> Batch {
        let mut scope = None;
        // Most nodes emit nothing or one signal: that needs no new batch.
        let mut only = None;
        let mut passed = Vec::new();
        for emission in &node.emissions {
            let passes = match &emission.condition {
                Condition::Always | Condition::PlainText(_) => true,
                Condition::Jinja(template) => {
                    let scope = scope.get_or_insert_with(|| {
                        let scope = Scope::shared(self.machine.state.context.clone());
                        match result {
                            Some(result) => scope.with_result(result.clone()),
                            None => scope,
                        }
                    });
                    template.passes(scope).unwrap_or_else(|error| {
                        let signal = &emission.signal;
                        self.warn(
                            &node.name,
                            format!("the condition of signal '{signal}' counts as false: {error}"),
                        );
                        false
                    })
                }
            };
            match only {
                _ if !passes => {}
                None => only = Some(&emission.batch),
                Some(first) => {
                    if passed.is_empty() {
                        passed.extend_from_slice(first);
                    }
                    passed.push(emission.signal.clone());
                }
            }
        }
        match only {
            Some(only) if passed.is_empty() => only.clone(),
            _ => passed.into(),
        }
    }
}

/// A batch, for people: however many and however long its signals are.
fn named(signals: &[Arc<str>]) -> String {
    const SIGNALS: usize = 5;
    const CHARACTERS: usize = 80;
    let mut names: Vec<String> = signals
        .iter()
        .take(SIGNALS)
        .map(|signal| match signal.char_indices().nth(CHARACTERS) {
            Some((end, _)) => format!("'{}...'", &signal[..end]),
            None => format!("'{signal}'"),
        })
        .collect();
    match signals.len().saturating_sub(SIGNALS) {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    names.join(", ")
}
