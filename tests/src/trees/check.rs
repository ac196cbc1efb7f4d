//! What holds at every moment, and at the end.

use anyhow::{Result, anyhow, ensure};
use soe_backends::{ChildStatus, ExecutionId, ExecutionState, Family, Status, TreeTotals};

use super::run::{Member, Trees};

/// When the root rests, everything does, and everything has arrived.
pub(super) fn rest(trees: &Trees<'_>) -> Result<()> {
    let root = root_of(trees).ok_or_else(|| anyhow!("there is no root"))?;
    if trees.plan.pings > 0
        || trees.plan.shape.fails
        || !trees.cancelled.is_empty()
        || root.state.status != Status::Rested
    {
        return Ok(());
    }
    for (id, member) in &trees.members {
        ensure!(
            member.state.status == Status::Rested,
            "the root rests, and {id} is {}",
            member.state.status
        );
        let Some(parent) = parent_of(trees, &member.state)? else {
            continue;
        };
        let (received, told) = (
            child_in(parent, id)?.received,
            family(&member.state).map_or(0, |f| f.told),
        );
        ensure!(
            received == told,
            "the root rests, and message {told} of {id} has not arrived"
        );
    }
    Ok(())
}

/// Whether everything must have come to its end as if nothing had happened.
fn clean(trees: &Trees<'_>) -> bool {
    let fails = trees.plan.shape.fails && (trees.plan.resumes.is_none() || trees.plan.shape.handled);
    !fails && trees.cancelled.is_empty()
}

pub(super) fn finished(trees: &Trees<'_>) -> Result<()> {
    for (id, member) in &trees.members {
        let state = &member.state;
        ensure!(state.status != Status::Running, "{id} hangs: {state:?}");
        if let Some(family) = family(state) {
            ensure!(
                family.outbox.is_empty(),
                "{id} has something to tell: {:?}",
                family.outbox
            );
        }
        totals(state)?;
        fired_once(trees, state)?;
        if let Some(parent) = parent_of(trees, state)? {
            ended_like(parent, state)?;
            if parent.status == Status::Rested {
                told(trees, parent, state)?;
            }
        }
    }
    let clean = clean(trees);
    for (id, member) in trees.members.iter().filter(|_| clean) {
        ensure!(member.state.status == Status::Rested, "{id} is {}", member.state.status);
        let below = trees.members.keys().filter(|other| is_below(other, id)).count();
        let notes = recorded(&member.state, "NOTE");
        ensure!(notes == below + 1, "{id} has {notes} notes, there are {below} below it");
        all_below(trees, id, &member.state)?;
    }
    for id in &trees.cancelled {
        let all = trees
            .members
            .iter()
            .filter(|(other, _)| *other == id || is_below(other, id));
        for (below, member) in all {
            ensure!(
                member.state.status == Status::Cancelled,
                "{id} was cancelled, and {below} is {}",
                member.state.status
            );
        }
    }
    let lasting = trees.plan.shape.fails && trees.plan.resumes.is_none();
    let unhandled = lasting && !trees.plan.shape.handled && trees.cancelled.is_empty();
    // What fails may be below a fan-out over nothing.
    let failed = trees
        .members
        .values()
        .any(|member| member.state.status == Status::Failed);
    if let Some(root) = root_of(trees).filter(|_| unhandled && failed) {
        let failure = root.state.failure.as_ref().map(ToString::to_string).unwrap_or_default();
        ensure!(
            failure.contains("child execution x.") && failure.ends_with("boom"),
            "the root's failure is '{failure}'"
        );
    }
    Ok(())
}

fn root_of<'t>(trees: &'t Trees<'_>) -> Option<&'t Member> {
    let mut members = trees.members.values();
    members.find(|member| member.state.context.parent.is_none())
}

pub(crate) fn is_below(id: &ExecutionId, above: &ExecutionId) -> bool {
    id.as_str()
        .strip_prefix(above.as_str())
        .is_some_and(|rest| rest.starts_with('.'))
}

pub(crate) fn family(state: &ExecutionState) -> Option<&Family> {
    state.family.as_deref()
}

fn recorded(state: &ExecutionState, signal: &str) -> usize {
    state
        .context
        .operational
        .signals
        .iter()
        .filter(|each| each.as_ref() == signal)
        .count()
}

fn parent_of<'t>(trees: &'t Trees<'_>, state: &ExecutionState) -> Result<Option<&'t ExecutionState>> {
    let Some(info) = &state.context.parent else {
        return Ok(None);
    };
    let parent = trees.members.get(&info.parent_execution_id);
    parent
        .map(|parent| Some(&parent.state))
        .ok_or_else(|| anyhow!("{} has no parent", state.id))
}

pub(crate) fn child_in<'s>(parent: &'s ExecutionState, id: &ExecutionId) -> Result<&'s soe_backends::Child> {
    let child = family(parent).and_then(|family| family.children.get(id));
    child.ok_or_else(|| anyhow!("{} doesn't know its child {id}", parent.id))
}

/// The totals of a tree are those of the execution and those that its children have told.
pub(crate) fn totals(state: &ExecutionState) -> Result<()> {
    let mut sum = TreeTotals {
        tool_calls: state.context.operational.tool_calls,
        llm_calls: state.context.operational.llm_calls,
        tokens: state.context.operational.tokens,
        ..TreeTotals::default()
    };
    for child in family(state).into_iter().flat_map(|family| family.children.values()) {
        sum.tool_calls += child.totals.tool_calls;
        sum.llm_calls += child.totals.llm_calls;
        sum.tokens += child.totals.tokens;
        sum.children += 1 + child.totals.children;
    }
    let tree = state.context.operational.tree;
    ensure!(tree == sum, "the totals of {} are {tree:?}, not {sum:?}", state.id);
    let active = family(state).map_or(0, |family| {
        family
            .children
            .values()
            .filter(|child| child.status == ChildStatus::Active)
            .count() as u64
    });
    ensure!(
        state.active_children() == active,
        "{} has {active} active children",
        state.id
    );
    Ok(())
}

/// No join fires twice; in an execution that rests and had no failures each has fired.
fn fired_once(trees: &Trees<'_>, state: &ExecutionState) -> Result<()> {
    let clean = clean(trees);
    let signals = trees
        .forest
        .once
        .iter()
        .filter(|(workflow, _)| *workflow == *state.workflow);
    for (_, signal) in signals {
        let count = recorded(state, signal);
        ensure!(
            count <= 1 && (count == 1 || !clean),
            "{} recorded {signal} {count} times",
            state.id
        );
    }
    Ok(())
}

/// Failures go up unless they are handled, and down; cancellations go down.
pub(crate) fn ended_like(parent: &ExecutionState, state: &ExecutionState) -> Result<()> {
    use Status::{Cancelled, Failed, Rested, Suspended};
    let handled = child_in(parent, &state.id)?.failure_signal.is_some();
    let fits = match (parent.status, state.status) {
        (Cancelled, child) => child == Cancelled,
        (Failed | Suspended, child) => matches!(child, Failed | Suspended | Cancelled),
        (Rested, Failed | Cancelled) => handled,
        (Rested, child) => child == Rested,
        _ => false,
    };
    ensure!(
        fits,
        "{} is {}, and its child {} is {}",
        parent.id,
        parent.status,
        state.id,
        state.status
    );
    Ok(())
}

/// A parent that rests knows where its children stand.
pub(crate) fn heard(parent: &ExecutionState, state: &ExecutionState) -> Result<()> {
    let (id, known) = (&state.id, child_in(parent, &state.id)?);
    let status = match state.status {
        Status::Rested => ChildStatus::Rested,
        Status::Failed => ChildStatus::Failed,
        _ => ChildStatus::Cancelled,
    };
    ensure!(
        known.status == status,
        "{id} is {status:?}, told was {:?}",
        known.status
    );
    ensure!(
        known.totals == state.context.operational.tree,
        "{id} has told {:?}",
        known.totals
    );
    ensure!(
        family(state).is_none_or(|family| family.unsent.is_empty()),
        "{id} hasn't told all values"
    );
    Ok(())
}

/// A parent that rests has got everything of its children.
fn told(trees: &Trees<'_>, parent: &ExecutionState, state: &ExecutionState) -> Result<()> {
    heard(parent, state)?;
    let (id, known) = (&state.id, child_in(parent, &state.id)?);
    let fields = state
        .context
        .parent
        .iter()
        .flat_map(|info| &info.context_updates_to_parent);
    for field in fields {
        let own: Vec<_> = state
            .context
            .history(field)
            .into_iter()
            .flat_map(|h| h.iter())
            .collect();
        let there = parent.context.history(field).into_iter().flat_map(|h| h.iter());
        let arrived: Vec<_> = there.filter(|value| own.contains(value)).collect();
        ensure!(own == arrived, "{id} has {field} {own:?}, its parent got {arrived:?}");
    }
    if let Some(signal) = known.failure_signal.as_ref().filter(|_| trees.plan.resumes.is_none()) {
        let ended = |child: &&soe_backends::Child| {
            child.failure_signal.as_ref() == Some(signal)
                && matches!(child.status, ChildStatus::Failed | ChildStatus::Cancelled)
        };
        let children = family(parent).into_iter().flat_map(|family| family.children.values());
        let (signals, ended) = (recorded(parent, signal), children.filter(ended).count());
        ensure!(
            signals == ended,
            "{ended} children have ended, {signal} was recorded {signals} times"
        );
    }
    Ok(())
}

/// The totals of a tree in which nothing failed are those of all executions together.
fn all_below(trees: &Trees<'_>, id: &ExecutionId, state: &ExecutionState) -> Result<()> {
    let all = trees
        .members
        .iter()
        .filter(|(other, _)| *other == id || is_below(other, id));
    let calls: u64 = all
        .clone()
        .map(|(_, member)| member.state.context.operational.tool_calls)
        .sum();
    let (tree, children) = (state.context.operational.tree, all.count() as u64 - 1);
    ensure!(
        (tree.tool_calls, tree.children) == (calls, children),
        "{id} has the totals {tree:?}, not {calls}, {children}"
    );
    Ok(())
}
