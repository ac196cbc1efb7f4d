//! Broadcasts, and the cascade of routers that follows: depth-first, on an explicit stack.

use std::sync::Arc;

use soe_backends::{
    Accepted, ApplyError, Batch, EventKind, ExecutionChange, Progress, RegistryId, Spawning, Stage, Then,
};

use super::Machine;
use super::transaction::{Applied, Transaction};
use crate::config::{Condition, Node, NodeKind};
use crate::template::Scope;

/// A router counts as one more step for this many emissions.
const CONDITIONS_PER_STEP: usize = 16;

/// A batch whose listeners are being visited.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) execution: u64,
    pub(super) signals: Batch,
    pub(super) registry: RegistryId,
    pub(super) listeners: Arc<[Arc<Node>]>,
    pub(super) next: usize,
    /// What comes when it is worked off.
    pub(super) then: Option<Box<Then>>,
}

impl Machine {
    /// Takes the batches off the top of the stack that have no listener left, down to `base`.
    pub(super) fn pop_visited(&mut self, base: usize) {
        let over = |top: &Cursor| top.next >= top.listeners.len() && top.then.is_none();
        while self.stack.len() > base && self.stack.last().is_some_and(over) {
            self.stack.pop();
        }
        self.stack_kept = self.stack_kept.min(self.stack.len());
    }

    /// The registry that has a listener of the batch on top as it is: the current one, unless the node was changed or removed
    /// since the batch was taken up.
    pub(super) fn registry_of_listener(&self, execution: u64, node: &Node) -> RegistryId {
        let top = self.stack.last().filter(|top| top.execution == execution);
        let state = self.state.get(execution);
        let state = state.expect("an execution that was entered exists, and none is ever removed");
        let current = &state.registry;
        let Some(top) = top.filter(|top| top.registry != *current) else {
            return current.clone();
        };
        let now = self.node(current, &state.workflow, &node.name);
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
    /// Whether the schedule wants a run in flight to be over before anything else is done.
    pub(super) fn must_wait(&self) -> bool {
        self.depth_first() && (!self.machine.awaited.is_empty() || !self.dispatched.is_empty())
    }

    /// Wakes the execution and takes a batch up. The caller drains the work list.
    pub(super) fn broadcast(&mut self, signals: Batch) -> Applied {
        self.wake()?;
        self.take_up(signals)
    }

    /// Records a batch and puts its listeners on the stack; what passes on to the parent is sent.
    pub(super) fn take_up(&mut self, signals: Batch) -> Applied {
        match self.passed_on(&signals) {
            Some(passed) if self.depth_first() => self.take_up_then(signals, Some(Box::new(Then::Deliver(passed)))),
            Some(passed) => {
                self.take_up_then(signals, None)?;
                match self.is_running() {
                    true => self.send(passed),
                    false => Ok(()),
                }
            }
            None => self.take_up_then(signals, None),
        }
    }

    fn take_up_then(&mut self, signals: Batch, then: Option<Box<Then>>) -> Applied {
        if let Some((limit, message)) = self.broadcast_too_many(&signals) {
            let execution = self.here;
            self.work.held_back = Some(Accepted { execution, signals });
            return match limit {
                "broadcasts" => self.fail_tree(limit, message),
                _ => self.fail_for_limit(limit, message),
            };
        }
        self.change(ExecutionChange::Broadcast(signals.clone()))?;
        self.event(EventKind::SignalsBroadcast {
            signals: signals.clone(),
        });
        // A listener's batch that was its last leaves the stack first: a loop doesn't make it grow.
        self.machine.pop_visited(self.work.base);
        let state = self.state();
        let registry = self.machine.registry(&state.registry);
        let registry = registry.ok_or(ApplyError::Mismatch("an execution has lost its registry"))?;
        // The workflow may have been removed.
        let workflow = registry.workflows.get(&state.workflow);
        let listeners = workflow
            .map(|workflow| workflow.listeners(&signals))
            .unwrap_or_default();
        if !listeners.is_empty() || then.is_some() {
            let registry = registry.id.clone();
            self.push(Cursor {
                execution: self.here,
                signals,
                registry,
                listeners,
                next: 0,
                then,
            });
        }
        Ok(())
    }

    pub(super) fn push(&mut self, cursor: Cursor) {
        self.machine.stack.push(cursor);
    }

    /// The limit that broadcasting `signals` too would exceed, and how.
    fn broadcast_too_many(&self, signals: &Batch) -> Option<(&'static str, String)> {
        let state = self.state();
        let limit = self.limits().broadcasts;
        if self.machine.state.used.broadcasts >= limit {
            let message = format!("{limit} broadcasts were made, the next is of {}", named(signals));
            return Some(("broadcasts", message));
        }
        // Every signal is kept: a loop that emits thousands at a time would fill the memory within few broadcasts.
        let (count, allowed) = (state.context.operational.signals.len(), self.limits().context_bytes);
        let recorded = ((count + signals.len()) * size_of::<Arc<str>>()) as u64;
        (recorded > allowed).then(|| {
            let message = format!(
                "{count} signals are recorded, with the next their list takes {recorded} bytes, {allowed} are allowed"
            );
            ("context_bytes", message)
        })
    }

    /// Visits the listeners on the stack. Says whether all are visited: not if the schedule wants a run to be over first, if the
    /// driver gets its turn, or if something that was on the stack before has the next one.
    pub(super) fn cascade(&mut self) -> Result<bool, ApplyError> {
        loop {
            // In a depth-first tree the parent reacts before anything else.
            if self.depth_first()
                && let Some(delivery) = self.work.deliveries.pop_front()
            {
                self.deliver(&delivery)?;
                continue;
            }
            self.machine.pop_visited(self.work.base);
            if self.machine.stack.len() <= self.work.base {
                return Ok(true);
            }
            if self.must_wait() {
                return Ok(false);
            }
            let Some(cursor) = self.machine.stack.last_mut() else {
                return Ok(true);
            };
            let (execution, next) = (cursor.execution, cursor.listeners.get(cursor.next).cloned());
            let Some(node) = next else {
                let then = cursor.then.take();
                self.machine.pop_visited(self.work.base);
                self.enter(execution)?;
                self.visited(then)?;
                continue;
            };
            if self.pure_steps >= self.machine.specs.pace.steps {
                self.paused = true;
                return Ok(false);
            }
            self.enter(execution)?;
            if self.machine.state.used.runs >= self.limits().runs {
                let message = format!(
                    "{} runs were started, the next is of node '{}'",
                    self.machine.state.used.runs, node.name
                );
                self.fail_tree("runs", message)?;
                continue;
            }
            self.machine.advance();
            // What takes the time is the conditions: a node with hundreds of them counts as several.
            self.pure_steps += 1 + node.emissions.len() / CONDITIONS_PER_STEP;
            self.visit(&node)?;
        }
    }

    /// What comes when a batch is worked off, in a depth-first tree.
    fn visited(&mut self, then: Option<Box<Then>>) -> Applied {
        match then.map(|then| *then) {
            Some(Then::Deliver(signals)) => self.send(signals),
            Some(Then::Spawn { run }) => self.spawn_depth_first(run),
            _ => Ok(()),
        }
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
        self.change(ExecutionChange::Routed {
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
                        let scope = Scope::shared(self.state().context.clone());
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
