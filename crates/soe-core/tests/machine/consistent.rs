//! What holds of every tree, whatever has happened to it.

use std::collections::BTreeSet;

use soe_backends::{ExecutionState, Status, TreeState, Value};

pub(crate) fn check(tree: &TreeState) {
    let on_list = on_work_list(tree);
    for state in tree.executions.values() {
        let id = &state.id;
        assert_eq!(tree.number_of(id), Some(state.number), "{id} isn't found by its name");
        check_runs(state);
        let children = state.children.iter().flat_map(|children| children.numbers());
        let running = |number: &u64| tree.get(*number).is_some_and(|child| child.status == Status::Running);
        let active = children.filter(running).count() as u64;
        assert_eq!(state.active_children(), active, "of {id} run so many children");
        if tree.ended_at(state.number).is_none() {
            check_alive(tree, state, on_list.contains(&state.number));
        } else {
            assert!(
                !on_list.contains(&state.number),
                "{id} has ended and is on the work list"
            );
        }
    }
    check_used(tree);
}

fn check_runs(state: &ExecutionState) {
    let id = &state.id;
    let kept: BTreeSet<u64> = state.snapshots.keys().collect();
    let needed: BTreeSet<u64> = state.runs.values().map(|run| run.snapshot).collect();
    assert_eq!(kept, needed, "snapshots of {id}");
    assert!(
        state
            .runs
            .iter()
            .all(|(number, run)| number == run.number && number < state.next_run)
    );
    let values = state.context.fields.iter().flat_map(|(_, history)| history.iter());
    assert_eq!(
        state.context_bytes,
        values.map(Value::size).sum::<u64>(),
        "size of {id}"
    );
}

/// Of an execution that has not ended, nor one above it.
fn check_alive(tree: &TreeState, state: &ExecutionState, on_list: bool) {
    let id = &state.id;
    let busy = !state.runs.is_empty() || state.active_children() > 0 || on_list;
    let runs = state.status == Status::Running;
    assert_eq!(busy, runs, "{id} is {}", state.status);
    if let Some(parent) = state.parent() {
        let above = tree.get(parent).unwrap().status;
        assert!(!runs || above == Status::Running, "{id} runs below one that is {above}");
        let told = state.unsent.is_empty() && state.sent == state.context.operational.tree;
        assert!(runs || told, "{id} rests and keeps something from its parent");
    }
    assert!(state.stopped.is_none(), "{id} goes on, and something of it was stopped");
}

fn on_work_list(tree: &TreeState) -> BTreeSet<u64> {
    let work = &tree.work;
    let parent_of = |child: u64| tree.get(child).and_then(|child| child.parent());
    let deliveries = work.deliveries.iter().filter_map(|delivery| parent_of(delivery.child));
    let others = work.stack.iter().map(|frame| frame.execution);
    let others = others.chain(work.spawns.iter().map(|spawn| spawn.execution));
    deliveries
        .chain(others)
        .chain(work.accepted.iter().map(|accepted| accepted.execution))
        .collect()
}

/// What limits count is the sum of what the executions count.
fn check_used(tree: &TreeState) {
    let used = tree.used;
    let sum = |of: fn(&ExecutionState) -> u64| tree.executions.values().map(|state| of(state)).sum::<u64>();
    let counted = [
        sum(|state| state.context.operational.nodes.iter().map(|(_, runs)| *runs).sum()),
        sum(|state| state.context.operational.llm_calls),
        sum(|state| state.context.operational.tool_calls),
        sum(|state| state.context.operational.tokens),
        tree.executions.len() as u64 - 1,
    ];
    assert_eq!(
        counted,
        [used.runs, used.llm_calls, used.tool_calls, used.tokens, used.children],
        "runs, requests, tool calls, tokens, children"
    );
    let all_rest = tree.executions.values().all(|state| state.status == Status::Rested);
    if let Some(root) = tree.root_state().filter(|_| all_rest) {
        let known = root.context.operational.tree;
        assert_eq!(
            [known.llm_calls, known.tool_calls, known.tokens, known.children],
            counted[1..],
            "what the root knows of its tree"
        );
    }
}
