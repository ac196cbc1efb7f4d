//! The child node: starts executions of their own.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use soe_backends::{
    ApplyError, Change, ChildStatus, Context, Definitions, EventKind, ExecutionId, Failure, History, ParentInfo,
    Progress, Run, Schedule, Spawning, Started, Value,
};

use super::super::transaction::{Applied, Transaction};
use super::super::{Effect, Inherited, Spawn, Start};
use crate::config::{ChildNode, Node, NodeKind};

/// So many children are created at a time: a fan-out commits in between, and others have their turn.
const CHUNK: u64 = 64;

/// Ids of children that would be longer than this are shortened.
const MAX_ID: usize = 100;

fn child_of(node: &Node) -> Result<&ChildNode, ApplyError> {
    match &node.kind {
        NodeKind::Child(child) => Ok(child),
        _ => Err(ApplyError::Mismatch("a run starts children that is of another type")),
    }
}

impl Transaction<'_> {
    /// How a run of a child node begins: it registers its first children.
    pub(in super::super) fn begin_children(
        &mut self,
        run: u64,
        node: &Arc<Node>,
        child: &ChildNode,
        context: &Context,
    ) -> Applied {
        let total = match &child.fan_out {
            None => 1,
            Some(fan_out) => items(context, &fan_out.field).len() as u64,
        };
        let limits = self.state().limits.clone();
        let depth = self.state().depth() + 1;
        if total > 0 && depth > limits.depth {
            let message = format!(
                "node '{}' would start a child of depth {depth}, {} is allowed",
                node.name, limits.depth
            );
            return self.fail_for_limit("depth", message);
        }
        let registered = self.state().context.operational.tree.children;
        let children = registered.saturating_add(self.to_be_registered()).saturating_add(total);
        if children > limits.children {
            let allowed = limits.children;
            let message = format!(
                "with those of node '{}' there would be {children}, {allowed} are allowed",
                node.name
            );
            return self.fail_for_limit("children", message);
        }
        let spawning = Spawning {
            total,
            ..Spawning::default()
        };
        self.register(run, node, child, spawning, None)
    }

    /// The children that runs in flight have still to start.
    fn to_be_registered(&self) -> u64 {
        let left = self.state().runs.values().map(|run| match run.progress {
            Progress::Child(spawning) => spawning.total - spawning.next,
            _ => 0,
        });
        left.sum()
    }

    /// Registers the next children: before they are created, so that what they tell finds them known.
    fn register(
        &mut self,
        run: u64,
        node: &Arc<Node>,
        child: &ChildNode,
        before: Spawning,
        due: Option<soe_backends::Timestamp>,
    ) -> Applied {
        let spaced = !child.spawn_interval.is_zero() || self.state().schedule == Schedule::DepthFirst;
        let next = before.total.min(before.next + if spaced { 1 } else { CHUNK });
        let spawning = Spawning {
            from: before.next,
            next,
            total: before.total,
            due,
            created: false,
        };
        self.change(Change::Progressed {
            run,
            progress: Progress::Child(spawning),
        })?;
        let (parent, main) = (self.state().id.clone(), self.state().main_execution_id().clone());
        let children: Result<Vec<_>, _> = (spawning.from..next)
            .map(|index| child_id(&parent, &main, run, index))
            .collect();
        let children = children?;
        if children.is_empty() {
            return Ok(());
        }
        for child in &children {
            self.event(EventKind::ChildStarted {
                node_name: node.name.clone(),
                run,
                child: child.clone(),
            });
        }
        self.change(Change::Children(Box::new(Started {
            run,
            node: node.name.clone(),
            failure_signal: child.failure_signal.clone(),
            children,
        })))
    }

    /// The children that are registered and have to be created.
    pub(super) fn spawn_effect(
        &mut self,
        number: u64,
        node: &Arc<Node>,
        context: &Arc<Context>,
    ) -> Result<Effect, ApplyError> {
        let child = child_of(node)?;
        let run = self.state().runs.get(&number).cloned();
        let run = run.ok_or(ApplyError::Mismatch("a run starts children that is not in flight"))?;
        let Progress::Child(spawning) = run.progress else {
            return Err(ApplyError::Mismatch("a run starts children that is of another type"));
        };
        let registry = self.machine.registry(&run.registry).cloned();
        let registry = registry.ok_or(ApplyError::Mismatch("a run has lost its registry"))?;
        let items = match &child.fan_out {
            Some(fan_out) => items(context, &fan_out.field),
            None => Vec::new(),
        };
        let state = self.state();
        let (parent, main) = (state.id.clone(), state.main_execution_id().clone());
        let info = Arc::new(ParentInfo {
            parent_execution_id: parent.clone(),
            main_execution_id: main.clone(),
            signals_to_parent: child.signals_to_parent.clone(),
            context_updates_to_parent: child.context_updates_to_parent.clone(),
            depth: state.depth() + 1,
        });
        let given = child.input_fields.iter().filter_map(|field| {
            let value = context.value(field)?.clone();
            Some((field.clone(), History::from_iter([value])))
        });
        let given: Vec<_> = given.collect();
        let mut children = Vec::new();
        for index in spawning.from..spawning.next {
            let mut fields = given.clone();
            if let Some(fan_out) = &child.fan_out {
                let item = usize::try_from(index).ok().and_then(|index| items.get(index)).cloned();
                let own = (fan_out.child_input_field.clone(), History::from_iter(item));
                fields.retain(|(field, _)| *field != own.0);
                fields.push(own);
            }
            children.push(Start {
                id: child_id(&parent, &main, number, index)?,
                main_execution_id: Some(main.clone()),
                parent: Some(info.clone()),
                registry: registry.clone(),
                workflow: child.workflow.clone(),
                fields,
                definitions: Definitions::default(),
                schedule: state.schedule,
                limits: state.limits.clone(),
                signals: child.initial_signals.clone(),
                inherited: Inherited::default(),
            });
        }
        Ok(Effect::Spawn(Spawn {
            run: number,
            next: u32::try_from(spawning.next).unwrap_or(u32::MAX),
            node: node.name.clone(),
            due: spawning.due,
            children,
        }))
    }

    /// The registered children are created.
    pub(super) fn spawned(&mut self, run: &Run, node: &Arc<Node>, result: Result<(), Arc<str>>) -> Applied {
        if let Err(error) = result {
            self.attempt_failed(run, node, error.clone(), None)?;
            // The run stays in flight, so that resuming the execution creates what is missing.
            return self.fail(Failure {
                message: error.to_string(),
                node: Some(node.name.clone()),
                limit: None,
            });
        }
        let Progress::Child(spawning) = run.progress else {
            return Err(ApplyError::Mismatch("a run that is no child node started children"));
        };
        if self.state().schedule == Schedule::DepthFirst && spawning.total > 0 {
            self.change(Change::Progressed {
                run: run.number,
                progress: Progress::Child(Spawning {
                    created: true,
                    ..spawning
                }),
            })?;
            return self.child_is_over(run.number);
        }
        self.spawn_next(run, node, spawning)
    }

    /// Goes on to the next children; after the last, the run is over and emits.
    fn spawn_next(&mut self, run: &Run, node: &Arc<Node>, spawning: Spawning) -> Applied {
        if spawning.next < spawning.total {
            let child = child_of(node)?;
            let interval = child.spawn_interval;
            let due = (!interval.is_zero()).then(|| self.at.after(interval));
            self.register(run.number, node, child, spawning, due)?;
            let context = self.snapshot(run)?;
            let effect = self.spawn_effect(run.number, node, &context)?;
            self.effects.push(effect);
            return Ok(());
        }
        if !self.finish_with(run, node, Vec::new())? {
            return Ok(());
        }
        let signals = self.emissions(node, None);
        self.emit(signals)
    }

    /// In a depth-first execution: a run goes on when the children that it has created rest.
    pub(in super::super) fn child_is_over(&mut self, number: u64) -> Applied {
        if self.state().schedule != Schedule::DepthFirst || !self.is_running() {
            return Ok(());
        }
        let Some(run) = self.state().runs.get(&number).cloned() else {
            return Ok(());
        };
        let Progress::Child(spawning @ Spawning { created: true, .. }) = run.progress else {
            return Ok(());
        };
        let children = self.family().into_iter().flat_map(|family| family.children.values());
        let mut own = children.filter(|child| child.run == number);
        if own.any(|child| child.status == ChildStatus::Active) {
            return Ok(());
        }
        let node = self.node_of(&run)?;
        self.spawn_next(&run, &node, spawning)
    }
}

/// The items that a fan-out is over: every value of the field, or those of the list that is its only value.
fn items(context: &Context, field: &str) -> Vec<Value> {
    let Some(history) = context.history(field) else {
        return Vec::new();
    };
    match (history.len(), history.last()) {
        (1, Some(Value::List(items))) => items.to_vec(),
        _ => history.iter().cloned().collect(),
    }
}

/// Whether the id of a child can be like this: two numbers, or a digest, behind what it is the child of.
#[cfg(feature = "runtime")]
pub(crate) fn could_be_a_childs(id: &ExecutionId) -> bool {
    let mut parts = id.as_str().rsplit('.');
    let (last, before) = (parts.next().unwrap_or_default(), parts.next());
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = number(last) && before.is_some_and(number) && parts.next().is_some();
    let digest = last.len() == 32 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
    numbers || digest && before.is_some()
}

/// The id of a child follows from its parent's run and its place: the same whenever it is created.
fn child_id(parent: &ExecutionId, main: &ExecutionId, run: u64, index: u64) -> Result<ExecutionId, ApplyError> {
    let plain = format!("{parent}.{run}.{index}");
    let id = if plain.len() <= MAX_ID {
        plain
    } else {
        let digest = Sha256::digest(plain.as_bytes());
        let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let root: String = main.as_str().chars().take(60).collect();
        format!("{root}.{digest}")
    };
    ExecutionId::new(id).map_err(|_| ApplyError::Mismatch("the id of a child can't be made"))
}
