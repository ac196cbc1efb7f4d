//! The child node: starts executions of their own, in the same event.

use std::sync::Arc;

use soe_backends::{
    ApplyError, Change, Context, EventKind, ExecutionChange, Failure, Genesis, History, Origin, ParentInfo, Progress,
    Run, Spawn, Spawning, Status, Then, Timestamp, Value,
};

use super::super::cascade::Cursor;
use super::super::transaction::{Applied, Transaction};
use super::super::{Effect, Inherited};
use crate::config::{ChildNode, Node, NodeKind};

/// The most bytes of values that the children of a commit begin with, one more child apart.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// A run that creates children, with what these have in common.
pub(in super::super) struct Brood {
    pub(in super::super) spawn: Spawn,
    run: Arc<Run>,
    node: Arc<Node>,
    context: Arc<Context>,
    origin: Arc<Origin>,
    info: Arc<ParentInfo>,
    /// The fields that each child is given, and their size.
    given: Vec<(Arc<str>, History)>,
    given_bytes: u64,
    total: u64,
    /// Why none can be created.
    problem: Option<String>,
    /// How many children, and bytes of their fields, this commit has.
    created: usize,
    bytes: u64,
}

fn child_of(node: &Node) -> Result<&ChildNode, ApplyError> {
    match &node.kind {
        NodeKind::Child(child) => Ok(child),
        _ => Err(ApplyError::Mismatch("a run starts children that is of another type")),
    }
}

impl Transaction<'_> {
    /// How a run of a child node begins: it is known how many children there will be.
    pub(in super::super) fn begin_children(&mut self, run: u64, node: &Arc<Node>, context: &Context) -> Applied {
        let child = child_of(node)?;
        let total = match &child.fan_out {
            None => 1,
            Some(fan_out) => items(context, &fan_out.field) as u64,
        };
        let (limits, depth) = (self.limits().clone(), self.state().depth() + 1);
        if total > 0 && depth > limits.depth {
            let message = format!(
                "node '{}' would start a child of depth {depth}, {} is allowed",
                node.name, limits.depth
            );
            return self.fail_tree("depth", message);
        }
        let to_come = self.work.spawns.iter().map(|spawn| self.left_to_create(*spawn));
        let known = self.machine.state.used.children.saturating_add(to_come.sum());
        let children = known.saturating_add(total);
        if children > limits.children {
            let allowed = limits.children;
            let message = format!(
                "with those of node '{}' there would be {children}, {allowed} are allowed",
                node.name
            );
            return self.fail_tree("children", message);
        }
        let spawning = Spawning {
            total: Some(total),
            due: None,
        };
        self.change(ExecutionChange::Progressed {
            run,
            progress: Progress::Child(spawning),
        })
    }

    fn left_to_create(&self, spawn: Spawn) -> u64 {
        let state = self.machine.state.get(spawn.execution);
        let total = state.and_then(|state| match state.runs.get(spawn.run)?.progress {
            Progress::Child(spawning) => spawning.total,
            _ => None,
        });
        let created = state
            .and_then(|state| state.children.as_ref())
            .map_or(0, |children| children.count(spawn.run));
        total.unwrap_or(0).saturating_sub(created)
    }

    /// Puts a run on the work list whose children are to be created.
    pub(in super::super) fn spawn_later(&mut self, run: u64) -> Applied {
        let execution = self.here;
        if !self.depth_first() {
            self.work.spawns.push_back(Spawn { execution, run });
            self.work.spawns_changed = true;
            return Ok(());
        }
        self.push(Cursor {
            execution,
            signals: Arc::default(),
            registry: self.state().registry.clone(),
            listeners: Arc::default(),
            next: 0,
            then: Some(Box::new(Then::Spawn { run })),
        });
        Ok(())
    }

    /// In a depth-first tree: the child before, if there is one, is over. Creates the next one, or ends the run.
    pub(in super::super) fn spawn_depth_first(&mut self, run: u64) -> Applied {
        let spawn = Spawn {
            execution: self.here,
            run,
        };
        // What the child before leaves to its parent comes before the next one.
        self.rest()?;
        self.enter(spawn.execution)?;
        let Some(mut brood) = self.brood(spawn)? else {
            return Ok(());
        };
        if self.count_created(&brood) >= brood.total {
            return self.spawned(&brood);
        }
        if self.is_spaced(&brood)? {
            return Ok(());
        }
        self.spawn_later(run)?;
        self.create_child(&mut brood)
    }

    /// Creates the next child of the oldest run that has some to create. Says whether there was something to do.
    pub(in super::super) fn spawn_next(&mut self) -> Result<bool, ApplyError> {
        if self.depth_first() || self.work.spawns_before > 0 || self.paused {
            return Ok(false);
        }
        let Some(spawn) = self.work.spawns.front().copied() else {
            return Ok(false);
        };
        self.enter(spawn.execution)?;
        let mut brood = match self.brood.take().filter(|brood| brood.spawn == spawn) {
            Some(brood) => brood,
            None => match self.brood(spawn)? {
                Some(brood) => brood,
                None => {
                    self.spawn_over();
                    return Ok(true);
                }
            },
        };
        if self.count_created(&brood) >= brood.total {
            self.spawn_over();
            self.spawned(&brood)?;
            return Ok(true);
        }
        let pace = self.machine.specs.pace;
        if brood.created >= pace.children || brood.bytes >= CHUNK_BYTES || self.pure_steps >= pace.steps {
            self.paused = true;
            return Ok(false);
        }
        if self.is_spaced(&brood)? {
            self.spawn_over();
            return Ok(true);
        }
        self.create_child(&mut brood)?;
        if self.work.spawns.front() == Some(&spawn) {
            self.brood = Some(brood);
        }
        Ok(true)
    }

    fn spawn_over(&mut self) {
        self.work.spawns.pop_front();
        self.work.spawns_changed = true;
    }

    /// The next child of a run is due. False if none is.
    pub(in super::super) fn due(&mut self, run: u64) -> Result<bool, ApplyError> {
        let in_flight = self.state().runs.get(run).filter(|_| self.is_running());
        let Some(Progress::Child(Spawning { total, due: Some(_) })) = in_flight.map(|run| run.progress.clone()) else {
            return Ok(false);
        };
        self.machine.awaited.remove(&(self.here, run));
        self.change(ExecutionChange::Progressed {
            run,
            progress: Progress::Child(Spawning { total, due: None }),
        })?;
        let Some(mut brood) = self.brood(Spawn {
            execution: self.here,
            run,
        })?
        else {
            return Ok(true);
        };
        self.spawn_later(run)?;
        self.create_child(&mut brood)?;
        Ok(true)
    }

    /// Whether the next child comes only after a time. The first comes at once.
    fn is_spaced(&mut self, brood: &Brood) -> Result<bool, ApplyError> {
        let interval = child_of(&brood.node)?.spawn_interval;
        if interval.is_zero() || self.count_created(brood) == 0 {
            return Ok(false);
        }
        let (run, due) = (brood.spawn.run, self.at.after(interval));
        self.wait_until(run, brood.total, due)?;
        Ok(true)
    }

    fn wait_until(&mut self, run: u64, total: u64, due: Timestamp) -> Applied {
        let spawning = Spawning {
            total: Some(total),
            due: Some(due),
        };
        self.change(ExecutionChange::Progressed {
            run,
            progress: Progress::Child(spawning),
        })?;
        self.wait(run, due);
        Ok(())
    }

    /// A depth-first tree does nothing else in the meantime.
    fn wait(&mut self, run: u64, due: Timestamp) {
        let execution = self.here;
        if self.depth_first() {
            self.machine.awaited.insert((execution, run));
        }
        self.effects.push(Effect::Wait { execution, run, due });
    }

    fn count_created(&self, brood: &Brood) -> u64 {
        let state = self.machine.state.get(brood.spawn.execution);
        let children = state.and_then(|state| state.children.as_ref());
        children.map_or(0, |children| children.count(brood.spawn.run))
    }

    /// What the children of a run have in common; `None` if the run is over.
    fn brood(&mut self, spawn: Spawn) -> Result<Option<Brood>, ApplyError> {
        let Some(run) = self.state().runs.get(spawn.run).cloned().filter(|_| self.is_running()) else {
            return Ok(None);
        };
        let Progress::Child(Spawning { total: Some(total), .. }) = run.progress else {
            return Err(ApplyError::Mismatch("a run starts children that has not begun"));
        };
        let (node, context) = (self.node_of(&run)?, self.snapshot(&run)?);
        let child = child_of(&node)?;
        let registry = self.machine.registry(&run.registry);
        let registry = registry.ok_or(ApplyError::Mismatch("a run has lost its registry"))?;
        let problem = self.machine.specs.missing_for(registry, &child.workflow);
        let state = self.state();
        let given = child.input_fields.iter().filter_map(|field| {
            let value = context.value(field)?.clone();
            Some((field.clone(), History::from_iter([value])))
        });
        let own = child.fan_out.as_ref().map(|fan_out| &fan_out.child_input_field);
        let given: Vec<_> = given.filter(|(field, _)| Some(field) != own).collect();
        let sizes = given.iter().flat_map(|(_, history)| history.iter()).map(Value::size);
        Ok(Some(Brood {
            spawn,
            total,
            problem,
            origin: Arc::new(Origin {
                parent: spawn.execution,
                run: spawn.run,
                node: node.name.clone(),
                failure_signal: child.failure_signal.clone(),
            }),
            info: Arc::new(ParentInfo {
                parent_execution_id: state.id.clone(),
                main_execution_id: self.machine.state.root.clone(),
                signals_to_parent: child.signals_to_parent.clone(),
                context_updates_to_parent: child.context_updates_to_parent.clone(),
                depth: state.depth() + 1,
            }),
            given_bytes: sizes.sum(),
            given,
            run,
            node,
            context,
            created: 0,
            bytes: 0,
        }))
    }

    /// Creates the next child, and broadcasts its first signals.
    fn create_child(&mut self, brood: &mut Brood) -> Applied {
        let (place, number) = (self.count_created(brood), self.machine.state.executions.len() as u64);
        let node = brood.node.clone();
        let child = child_of(&node)?;
        if let Some(problem) = brood.problem.clone() {
            return self.not_created(brood, problem);
        }
        let (mut fields, mut bytes) = (brood.given.clone(), brood.given_bytes);
        if let Some(fan_out) = &child.fan_out {
            let item = item(&brood.context, &fan_out.field, place);
            bytes += item.as_ref().map_or(0, Value::size);
            fields.push((fan_out.child_input_field.clone(), History::from_iter(item)));
        }
        let allowed = self.limits().context_bytes;
        if bytes > allowed {
            let problem = format!("a child would begin with {bytes} bytes of values, {allowed} are allowed");
            return self.not_created(brood, problem);
        }
        let id = self
            .state()
            .id
            .child(&self.machine.state.root, brood.spawn.run, place, number);
        self.event(EventKind::ChildStarted {
            node_name: node.name.clone(),
            run: brood.spawn.run,
            child: id.clone(),
        });
        self.apply(Change::Started(Box::new(Genesis {
            id,
            origin: Some((brood.origin.clone(), place)),
            workflow: child.workflow.clone(),
            registry: brood.run.registry.clone(),
            parent: Some(brood.info.clone()),
            fields,
            context_bytes: bytes,
        })))?;
        brood.created += 1;
        brood.bytes += bytes;
        self.pure_steps += 1;
        self.enter(number)?;
        self.begin_events(child.workflow.clone(), Inherited::default());
        self.change(ExecutionChange::Status {
            status: Status::Running,
            at: self.at,
            failure: None,
        })?;
        match child.initial_signals.is_empty() {
            true => Ok(()),
            false => self.take_up(child.initial_signals.clone().into()),
        }
    }

    /// A child can't be created. The run stays in flight, so that resuming the execution creates what is missing.
    fn not_created(&mut self, brood: &Brood, problem: String) -> Applied {
        self.attempt_failed(&brood.run, &brood.node, problem.as_str().into(), None)?;
        self.fail(Failure {
            message: problem,
            node: Some(brood.node.name.clone()),
            limit: None,
        })
    }

    /// All children of a run are created: it is over, and emits.
    fn spawned(&mut self, brood: &Brood) -> Applied {
        let (run, node) = (brood.run.clone(), brood.node.clone());
        if !self.finish_with(&run, &node, Vec::new())? {
            return Ok(());
        }
        let signals = self.emissions(&node, None);
        self.emit(signals)
    }

    /// A run whose execution goes on creates its other children.
    pub(in super::super) fn spawn_again(&mut self, run: u64) -> Applied {
        let Some(Progress::Child(spawning)) = self.state().runs.get(run).map(|run| run.progress.clone()) else {
            return Ok(());
        };
        match spawning.due {
            Some(due) => {
                self.wait(run, due);
                Ok(())
            }
            None if self.has_spawn(run) => Ok(()),
            None => self.spawn_later(run),
        }
    }

    /// Whether the work list has it that a run creates children.
    fn has_spawn(&self, run: u64) -> bool {
        let here = self.here;
        let spawns = |cursor: &Cursor| {
            let then = cursor.then.as_deref();
            cursor.execution == here && matches!(then, Some(Then::Spawn { run: other }) if *other == run)
        };
        let spawn = Spawn { execution: here, run };
        self.machine.stack.iter().any(spawns) || self.work.spawns.contains(&spawn)
    }
}

/// How many items a fan-out is over: every value of the field, or those of the list that is its only value.
fn items(context: &Context, field: &str) -> usize {
    let Some(history) = context.history(field) else {
        return 0;
    };
    match (history.len(), history.last()) {
        (1, Some(Value::List(items))) => items.len(),
        (length, _) => length,
    }
}

fn item(context: &Context, field: &str, place: u64) -> Option<Value> {
    let (history, place) = (context.history(field)?, usize::try_from(place).ok()?);
    match (history.len(), history.last()) {
        (1, Some(Value::List(items))) => items.get(place).cloned(),
        _ => history.get(place).cloned(),
    }
}
