//! One tree out of executions.

use std::collections::HashMap;
use std::sync::Arc;

use super::ConvertError;
use super::levels::Levels;
use super::numbering::{Numbered, Place, numbered};
use super::old::{self, State};
use super::work::{self, Pending};
use crate::{
    Children, Context, DialogueStep, ExecutionState, Failure, NumberMap, Origin, Owed, Owner, Progress, Run, Spawning,
    Status, Timestamp, TreeState, Used,
};

/// The name of the owner of a tree that was converted: nobody's, so that whoever comes next may take it.
const NOBODY: &str = "converted";

pub(super) fn convert(old: Vec<State>) -> Result<TreeState, ConvertError> {
    let tree = numbered(old)?;
    let pending = Pending::of(&tree);
    let levels = Levels::of(&tree, &pending);
    let mut state = head(&tree);
    let mut origins = HashMap::new();
    for number in 0..tree.old.len() as u64 {
        let new = execution(&tree, &levels, &pending, &mut origins, number);
        state.executions.insert(number, Arc::new(new));
    }
    number_children(&tree, &levels, &mut state);
    work::put(&tree, &levels, pending, &mut state);
    Ok(state)
}

/// What the executions share.
fn head(tree: &Numbered) -> TreeState {
    let (root, old) = (&tree.old[0], &tree.old);
    let sum = |of: fn(&State) -> u64| old.iter().map(of).fold(0, u64::saturating_add);
    let fence = old
        .iter()
        .filter_map(|state| state.owner.as_ref())
        .map(|owner| owner.fence)
        .max();
    TreeState {
        format: crate::FORMAT,
        root: root.id.clone(),
        version: root.version.saturating_add(1),
        updated_at: old.iter().map(|state| state.updated_at).max().unwrap_or_default(),
        owner: fence.map(|fence| Owner {
            process: NOBODY.into(),
            fence: fence.saturating_add(1),
        }),
        schedule: root.schedule,
        limits: root.limits.clone(),
        used: Used {
            broadcasts: sum(|state| state.broadcasts),
            runs: sum(|state| state.runs_started),
            children: old.len() as u64 - 1,
            llm_calls: sum(|state| state.context.operational.llm_calls),
            tool_calls: sum(|state| state.context.operational.tool_calls),
            tokens: sum(|state| state.context.operational.tokens),
        },
        definitions: Arc::default(),
        next_event: sum(|state| state.next_event),
        executions: NumberMap::default(),
        work: Arc::default(),
        inbox: 0,
        owed: Arc::new(Owed {
            turns: old.iter().flat_map(|state| state.turns.iter().cloned()).collect(),
            ..Owed::default()
        }),
    }
}

type Origins = HashMap<(u64, u64), Arc<Origin>>;

fn execution(
    tree: &Numbered,
    levels: &Levels,
    pending: &Pending,
    origins: &mut Origins,
    number: u64,
) -> ExecutionState {
    let old = &tree.old[number as usize];
    let status = levels.status(number);
    let place = tree.origins[number as usize];
    let context = context(tree, old, number, place);
    // Under the number of the first run that reads them.
    let first = |snapshot: u64| {
        old.runs
            .values()
            .find(|run| run.snapshot == snapshot)
            .map(|run| run.number)
    };
    let snapshots = old.snapshots.iter();
    let snapshots = snapshots.filter_map(|(commit, context)| Some((first(commit)?, context.clone())));
    let resumed = levels.was_revived(number).then_some(old.failure.as_ref()).flatten();
    let runs = old.runs.values().map(|run| {
        let snapshot = first(run.snapshot).unwrap_or(run.number);
        (run.number, Arc::new(self::run(tree, number, run, snapshot, resumed)))
    });
    let since = match status == old.status {
        true => old.status_since,
        false => old.status_since.map(|_| old.updated_at),
    };
    let failure = old.failure.clone().filter(|_| status == Status::Failed);
    ExecutionState {
        number,
        id: tree.names[number as usize].clone(),
        origin: place.and_then(|place| origin(tree, origins, old, place)),
        status,
        status_since: since,
        active_us: active_us(old, status),
        failure: failure.map(Arc::new),
        workflow: old.workflow.clone(),
        registry: old.registry.clone(),
        created_at: old.created_at,
        updated_at: old.updated_at,
        context: Arc::new(context),
        context_bytes: old.context_bytes,
        runs: runs.collect(),
        next_run: old.next_run,
        snapshots: snapshots.collect(),
        children: None,
        unsent: (0..).zip(pending.unsent(old, number)).collect(),
        sent: pending.sent(number),
        stopped: None,
        answers: old.answers.clone(),
        workflow_changes: old.workflow_changes,
        versions: old
            .versions
            .iter()
            .map(|version| (version.number, version.clone()))
            .collect(),
    }
}

/// What ran, and runs no more, ran until its last change.
fn active_us(old: &State, now: Status) -> u64 {
    let since = old
        .status_since
        .filter(|_| old.status == Status::Running && now != Status::Running);
    let ran = |since: Timestamp| u64::try_from(old.updated_at.since(since).as_micros()).unwrap_or(u64::MAX);
    old.active_us.saturating_add(since.map_or(0, ran))
}

fn context(tree: &Numbered, old: &State, number: u64, place: Option<Place>) -> Context {
    let mut context = old.context.as_ref().clone();
    context.operational.main_execution_id = Some(tree.names[0].clone());
    // Children were counted before they were created.
    let promised = old.family.as_ref().map_or(0, |family| family.children.len() as u64);
    let made = tree.children(number).len() as u64;
    let totals = &mut context.operational.tree;
    totals.children = totals.children.saturating_sub(promised.saturating_sub(made));
    if let (Some(parent), Some(place)) = (&mut context.parent, place) {
        let name = &tree.names[place.parent as usize];
        if parent.parent_execution_id != *name {
            Arc::make_mut(parent).parent_execution_id = name.clone();
        }
    }
    context
}

fn origin(tree: &Numbered, origins: &mut Origins, old: &State, place: Place) -> Option<Arc<Origin>> {
    let child = tree.old.get(place.parent as usize)?.child(&old.id)?;
    let shared = origins.entry((place.parent, place.run)).or_insert_with(|| {
        Arc::new(Origin {
            parent: place.parent,
            run: place.run,
            node: child.node.clone(),
            failure_signal: child.failure_signal.clone(),
        })
    });
    Some(shared.clone())
}

fn run(tree: &Numbered, execution: u64, old: &old::Run, snapshot: u64, resumed: Option<&Failure>) -> Run {
    let mut progress = match &old.progress {
        old::Progress::Tool { attempt } => Progress::Tool { attempt: *attempt },
        old::Progress::Custom => Progress::Custom,
        old::Progress::Llm(dialogue) => Progress::Llm(dialogue.clone()),
        old::Progress::Agent(dialogue) => Progress::Agent(dialogue.clone()),
        old::Progress::Child(spawning) => {
            Progress::Child(Spawning {
                // A limit may have come before its beginning.
                total: Some(spawning.total).filter(|total| *total > 0),
                due: tree.due(execution, old.number, spawning),
            })
        }
    };
    if resumed.is_some_and(|failure| failure.node.as_ref() == Some(&old.node))
        && let Some(dialogue) = progress.dialogue_mut()
    {
        dialogue.change(&DialogueStep::Resumed);
    }
    Run {
        number: old.number,
        node: old.node.clone(),
        workflow: old.workflow.clone(),
        registry: old.registry.clone(),
        snapshot,
        started_at: old.started_at,
        progress,
    }
}

fn number_children(tree: &Numbered, levels: &Levels, state: &mut TreeState) {
    for (origin, number) in tree.origins.iter().zip(0..) {
        let Some(Place { parent, run, place }) = *origin else {
            continue;
        };
        let Some(above) = state.executions.get_mut(parent).map(Arc::make_mut) else {
            continue;
        };
        let children = Arc::make_mut(above.children.get_or_insert_with(|| Arc::new(Children::default())));
        if !children.by_run.contains(run) {
            children.by_run.insert(run, NumberMap::default());
        }
        children.by_run.get_mut(run).map(|of_run| of_run.insert(place, number));
        children.active += u64::from(levels.status(number) == Status::Running);
    }
}
