//! What holds after every commit, and at the end.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, ensure};
use soe_backends::{ExecutionState, Schedule, Status, TreeState, TreeTotals, Value};

use super::flow::Grove;
use super::model::Exec;
use super::world::World;

/// The machine asks to go on if, and only if, work is left: not what a depth-first tree keeps while it waits for a run.
pub(super) fn work_is_asked_for(world: &World<'_>, asks: bool) -> Result<()> {
    let work = &world.machine.state().work;
    let waits = world.depth_first() && !world.tasks.is_empty();
    let fits = (world.more || work.is_empty() || waits) && (!asks || !work.is_empty());
    ensure!(
        fits || world.recovering,
        "it asks to go on: {asks}, and there is left: {work:?}"
    );
    Ok(())
}

/// What holds in every stored state.
pub(super) fn state(world: &World<'_>) -> Result<()> {
    if !world.looks() && !world.tasks.is_empty() {
        return Ok(());
    }
    tree(&world.stored)
}

/// What holds in every state of a tree.
///
/// # Errors
/// It doesn't.
pub fn tree(tree: &TreeState) -> Result<()> {
    let mut sum = TreeTotals::default();
    let mut runs = 0;
    for state in tree.executions.values() {
        let operational = &state.context.operational;
        sum.llm_calls += operational.llm_calls;
        sum.tool_calls += operational.tool_calls;
        sum.tokens += operational.tokens;
        runs += operational.nodes.iter().map(|(_, runs)| runs).sum::<u64>();
        rests(tree, state)?;
        totals(tree, state)?;
    }
    let used = tree.used;
    let children = tree.executions.len() as u64 - 1;
    ensure!(
        (used.llm_calls, used.tool_calls, used.tokens, used.runs, used.children)
            == (sum.llm_calls, sum.tool_calls, sum.tokens, runs, children),
        "the tree has used {used:?}, its executions {sum:?}, {runs} runs, {children} children"
    );
    Ok(())
}

/// Something rests if, and only if, nothing is in flight in it and below it.
fn rests(tree: &TreeState, state: &ExecutionState) -> Result<()> {
    let id = &state.id;
    let active: Vec<_> = children(tree, state)
        .filter(|child| child.status == Status::Running)
        .collect();
    ensure!(
        state.active_children() == active.len() as u64,
        "{id} counts {} active children",
        state.active_children()
    );
    let busy = !state.runs.is_empty() || !active.is_empty() || is_on_work_list(tree, state.number);
    match tree.status(state.number) {
        Some(Status::Running) => ensure!(busy, "{id} hangs: {state:?}"),
        Some(Status::Rested) => {
            let untold = !state.unsent.is_empty() || state.sent != state.context.operational.tree;
            ensure!(
                !busy,
                "{id} rests, and something is in flight: {state:?} {:?}",
                tree.work
            );
            ensure!(
                !untold || state.origin.is_none(),
                "{id} rests with something untold: {state:?}"
            );
        }
        Some(Status::Cancelled) if state.status == Status::Cancelled => {
            ensure!(state.runs.is_empty(), "{id} is cancelled, and has runs in flight");
        }
        _ => {}
    }
    let kept = state.stopped.is_some();
    ensure!(
        !kept || state.status == Status::Failed,
        "{id} is {}, and keeps work for later",
        state.status
    );
    Ok(())
}

fn children<'t>(tree: &'t TreeState, state: &'t ExecutionState) -> impl Iterator<Item = &'t ExecutionState> {
    let numbers = state.children.iter().flat_map(|children| children.numbers());
    numbers.filter_map(|number| tree.get(number).map(AsRef::as_ref))
}

fn is_on_work_list(tree: &TreeState, number: u64) -> bool {
    let parent = |child: u64| tree.get(child).and_then(|child| child.parent());
    let work = &tree.work;
    work.stack.iter().any(|frame| frame.execution == number)
        || work
            .deliveries
            .iter()
            .any(|delivery| parent(delivery.child) == Some(number))
        || work.spawns.iter().any(|spawn| spawn.execution == number)
        || work.accepted.iter().any(|accepted| accepted.execution == number)
}

/// What a tree has used is what the execution has used by itself and what its children have told it, but for what is on its
/// way.
fn totals(tree: &TreeState, state: &ExecutionState) -> Result<()> {
    let operational = &state.context.operational;
    let mut sum = TreeTotals {
        llm_calls: operational.llm_calls,
        tool_calls: operational.tool_calls,
        tokens: operational.tokens,
        children: 0,
    };
    let all = children(tree, state).inspect(|child| {
        sum.llm_calls += child.sent.llm_calls;
        sum.tool_calls += child.sent.tool_calls;
        sum.tokens += child.sent.tokens;
        sum.children += 1 + child.sent.children;
    });
    all.for_each(drop);
    let is_for = |child: u64| tree.get(child).and_then(|child| child.parent()) == Some(state.number);
    let kept = tree.executions.values().filter_map(|other| other.stopped.as_ref());
    let waiting = kept
        .flat_map(|stopped| &stopped.deliveries)
        .chain(&tree.work.deliveries);
    for delivery in waiting.filter(|delivery| is_for(delivery.child)) {
        sum = sum.since(delivery.used);
    }
    // What was on its way to a cancelled execution, or to one below it, is dropped.
    let cancelled = tree.is_cancelled(state.number);
    let known = operational.tree;
    ensure!(
        known == sum || cancelled,
        "the totals of {} are {known:?}, not {sum:?}",
        state.id
    );
    Ok(())
}

/// The machine's state is the model's.
pub(super) fn model(world: &World<'_>) -> Result<()> {
    let idle = world.tasks.is_empty() || world.looks();
    if !world.follows() || world.more || world.recovering || !idle {
        return Ok(());
    }
    // Where events were cut, something may have been told to the level above earlier or later: at the end it is the same.
    let was_ahead = world.ledger.was_ahead;
    if !(was_ahead && world.unordered) {
        same(world, !was_ahead)?;
    }
    let (found, expected) = (world.in_flight()?, world.expected_in_flight());
    ensure!(found == expected, "in flight is {found:?}, not {expected:?}");
    Ok(())
}

/// Compares all executions with those of the model; without their order if that may differ.
pub(super) fn same(world: &World<'_>, usage: bool) -> Result<()> {
    let (tree, model) = (&world.stored, &world.model);
    ensure!(
        tree.executions.len() == model.execs.len(),
        "there are {} executions, not {}",
        tree.executions.len(),
        model.execs.len()
    );
    let ordered = !world.unordered;
    for (number, exec) in model.execs.iter().enumerate() {
        let state = tree
            .executions
            .values()
            .find(|state| world.ledger.path(state.number) == exec.path);
        let state = state.ok_or_else(|| anyhow!("{} is missing", exec.path))?;
        ensure!(
            !ordered || state.id.as_str() == exec.id,
            "{} is called {}",
            exec.path,
            state.id
        );
        ensure!(
            !ordered || world.ledger.was_ahead || state.number == number as u64,
            "{} has number {}",
            exec.id,
            state.number
        );
        let status = model.status(number);
        let found = tree.status(state.number);
        ensure!(found == Some(status), "{} is {found:?}, not {status}", exec.id);
        content(state, exec, ordered)?;
        in_flight(world, state, exec)?;
        if usage {
            self::usage(world, state, exec)?;
        }
    }
    let lost: u64 = world.ledger.lost.values().sum();
    let mut used = tree.used;
    used.llm_calls -= lost;
    ensure!(used == model.used, "the tree has used {used:?}, not {:?}", model.used);
    Ok(())
}

fn content(state: &ExecutionState, exec: &Exec<'_>, ordered: bool) -> Result<()> {
    let sorted = |mut all: Vec<String>| {
        if !ordered {
            all.sort();
        }
        all
    };
    let texts = |values: Vec<&Value>| sorted(values.into_iter().map(ToString::to_string).collect());
    let context = &state.context;
    let signals = sorted(context.operational.signals.iter().map(ToString::to_string).collect());
    let expected = sorted(exec.signals.iter().map(ToString::to_string).collect());
    ensure!(
        signals == expected,
        "{} has the signals {signals:?}, not {expected:?}",
        exec.id
    );
    ensure!(
        context.fields.len() == exec.fields.len(),
        "{} has other fields than {:?}",
        exec.id,
        exec.fields.keys()
    );
    for (field, values) in &exec.fields {
        let history = context.history(field).into_iter().flat_map(|history| history.iter());
        let (found, expected) = (texts(history.collect()), texts(values.iter().collect()));
        ensure!(found == expected, "{} has {field} {found:?}, not {expected:?}", exec.id);
    }
    let unsent = texts(state.unsent.values().map(|(_, value)| value).collect());
    let expected = texts(exec.unsent.iter().map(|(_, value)| value).collect());
    ensure!(
        unsent == expected,
        "{} has {unsent:?} for its parent, not {expected:?}",
        exec.id
    );
    let nodes: BTreeMap<&str, u64> = context
        .operational
        .nodes
        .iter()
        .map(|(node, runs)| (node.as_ref(), *runs))
        .collect();
    let expected: BTreeMap<&str, u64> = exec.nodes.iter().map(|(node, runs)| (node.as_ref(), *runs)).collect();
    ensure!(
        nodes == expected,
        "{} has the runs {nodes:?}, not {expected:?}",
        exec.id
    );
    Ok(())
}

fn in_flight(world: &World<'_>, state: &ExecutionState, exec: &Exec<'_>) -> Result<()> {
    let runs = state.runs.keys().map(|run| world.ledger.run(state.number, run));
    let runs: BTreeSet<&str> = runs.collect::<Result<_>>()?;
    let expected: BTreeSet<&str> = exec.runs.values().map(|run| run.name.as_str()).collect();
    ensure!(runs == expected, "{} has {runs:?} in flight, not {expected:?}", exec.id);
    Ok(())
}

fn usage(world: &World<'_>, state: &ExecutionState, exec: &Exec<'_>) -> Result<()> {
    let operational = &state.context.operational;
    let lost = world.ledger.lost.get(&state.number).copied().unwrap_or(0);
    let own = TreeTotals {
        llm_calls: operational.llm_calls - lost,
        tool_calls: operational.tool_calls,
        tokens: operational.tokens,
        children: 0,
    };
    let found = (own, operational.errors);
    ensure!(
        found == exec.own_use,
        "{} has used {found:?}, not {:?}",
        exec.id,
        exec.own_use
    );
    let mut totals = operational.tree;
    if !world.ledger.lost.is_empty() {
        // The levels above hear of them later.
        totals.llm_calls = exec.totals.llm_calls;
    }
    ensure!(
        totals == exec.totals,
        "{} and those below have used {totals:?}, not {:?}",
        exec.id,
        exec.totals
    );
    Ok(())
}

/// What holds when nothing is left to do.
pub(super) fn finished(world: &mut World<'_>, clean: bool) -> Result<()> {
    tree(&world.stored)?;
    ensure!(
        *world.machine.state() == world.stored,
        "it is another than its commits make it"
    );
    ensure!(
        world.stored.work.is_empty(),
        "there is something left: {:?}",
        world.stored.work
    );
    ensure!(world.ledger.open() == 0, "something is in flight");
    for state in world.stored.executions.values() {
        let status = world.stored.status(state.number);
        ensure!(status != Some(Status::Running), "{} hangs", state.id);
        delivered_once(&world.stored, state)?;
        joined_once(world.grove, state, clean)?;
        if clean {
            ensure!(status == Some(Status::Rested), "{} is {status:?}", state.id);
            let below = world.stored.subtree(state.number).count();
            let notes = state
                .context
                .operational
                .signals
                .iter()
                .filter(|signal| signal.as_ref() == "NOTE");
            let notes = notes.count();
            ensure!(notes == below, "{} has {notes} notes, they are {below}", state.id);
        }
    }
    let taken = world.ledger.taken.len();
    ensure!(
        taken == world.inbox.len(),
        "{taken} of {} messages were taken",
        world.inbox.len()
    );
    ensure!(world.told_events == world.stored.next_event, "events were not told");
    let told = world.ledger.turns.iter().all(|key| world.told_turns.contains(key));
    ensure!(
        told && world.ledger.turns.len() == world.told_turns.len(),
        "turns were not told"
    );
    if world.exact && world.setting.schedule == Schedule::DepthFirst {
        let later = std::mem::take(&mut world.later);
        world.model.run_through(&["START".into()], later, true);
    }
    match world.exact {
        true => same(world, true),
        false => Ok(()),
    }
}

/// What a child has for its parent is there once, and in the child's order.
fn delivered_once(tree: &TreeState, state: &ExecutionState) -> Result<()> {
    let Some((info, parent)) = state
        .context
        .parent
        .as_ref()
        .zip(state.parent().and_then(|parent| tree.get(parent)))
    else {
        return Ok(());
    };
    for field in &info.context_updates_to_parent {
        let own: Vec<&Value> = state
            .context
            .history(field)
            .into_iter()
            .flat_map(|history| history.iter())
            .collect();
        let there = parent
            .context
            .history(field)
            .into_iter()
            .flat_map(|history| history.iter());
        let arrived: Vec<&Value> = there.filter(|value| own.contains(value)).collect();
        let all = tree.status(state.number) == Some(Status::Rested) && arrived.len() == own.len();
        let ended = tree.status(state.number) != Some(Status::Rested);
        ensure!(
            (all || ended) && own.starts_with(&arrived),
            "{} has {field} {own:?}, its parent got {arrived:?}",
            state.id
        );
    }
    Ok(())
}

/// No join fires twice; where nothing ended early, each has fired.
fn joined_once(grove: &Grove, state: &ExecutionState, clean: bool) -> Result<()> {
    let flow = grove
        .flows
        .get(&state.workflow)
        .ok_or_else(|| anyhow!("what workflow is {}?", state.workflow))?;
    for signal in &flow.once {
        let recorded = state
            .context
            .operational
            .signals
            .iter()
            .filter(|each| *each == signal)
            .count();
        ensure!(
            recorded == 1 || recorded == 0 && !clean,
            "{} recorded {signal} {recorded} times",
            state.id
        );
    }
    Ok(())
}
