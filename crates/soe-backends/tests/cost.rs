//! What a commit costs follows what it changes, not the size of the tree.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

use std::alloc::System;
use std::sync::Arc;

use futures::executor::block_on;
use soe_backends::{
    Change, Commit, ContextBackend, Event, EventKind, ExecutionChange, ExecutionId, Genesis, Limits, MemoryStore,
    Origin, ParentInfo, Progress, RegistryId, Run, Schedule, Status, Timestamp, TreeGenesis, TreeState, Value,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// So many commits are measured: more than a node has places, so that none has luck.
const MEASURED: u64 = 500;

fn root() -> ExecutionId {
    ExecutionId::new("tree").unwrap()
}

fn genesis(id: ExecutionId) -> Genesis {
    Genesis {
        id,
        origin: None,
        workflow: "flow".into(),
        registry: RegistryId::from_digest([1; 32]),
        parent: None,
        fields: Vec::new(),
        context_bytes: 0,
    }
}

fn at(execution: u64, change: ExecutionChange) -> Change {
    Change::In { execution, change }
}

fn status(execution: u64, status: Status) -> Change {
    let change = ExecutionChange::Status {
        status,
        at: Timestamp::from_micros(5),
        failure: None,
    };
    at(execution, change)
}

/// A child with a tool run in flight.
fn born(number: u64, origin: &Arc<Origin>, parent: &Arc<ParentInfo>) -> Vec<Change> {
    let run = Run {
        number: 1,
        node: "work".into(),
        workflow: "part".into(),
        registry: RegistryId::from_digest([1; 32]),
        snapshot: 1,
        started_at: Timestamp::from_micros(1),
        progress: Progress::Tool { attempt: 1 },
    };
    let started = Genesis {
        origin: Some((origin.clone(), number - 1)),
        parent: Some(parent.clone()),
        ..genesis(root().child(&root(), 1, number - 1, number))
    };
    vec![
        Change::Started(Box::new(started)),
        status(number, Status::Running),
        at(number, ExecutionChange::Broadcast([Arc::from("GO")].into())),
        at(number, ExecutionChange::Dispatched(Arc::new(run))),
        at(number, ExecutionChange::Snapshot { run: 1 }),
    ]
}

fn commit(version: u64, changes: Vec<Change>) -> Commit {
    Commit {
        tree: root(),
        version,
        fence: 0,
        at: Timestamp::from_micros(version),
        changes,
        registries: Vec::new(),
        definitions: None,
        turns: Vec::new(),
        events: Vec::new(),
    }
}

/// Stores a commit as an engine does, and gives the state after it.
fn store(store: &MemoryStore, state: &Arc<TreeState>, commit: Commit) -> Arc<TreeState> {
    let mut after = (**state).clone();
    after.apply(&commit).unwrap();
    let after = Arc::new(after);
    block_on(store.commit(vec![commit], Some(after.clone()))).unwrap();
    after
}

/// A tree whose root has so many children, each with a tool run in flight.
fn grown(memory: &MemoryStore, children: u64) -> Arc<TreeState> {
    let tree = TreeGenesis {
        schedule: Schedule::Concurrent,
        limits: Limits::default().into(),
        definitions: Arc::default(),
        root: genesis(root()),
    };
    let creation = commit(1, vec![Change::Created(Box::new(tree))]);
    let mut state = Arc::new(TreeState::create(&creation).unwrap());
    block_on(memory.commit(vec![creation], Some(state.clone()))).unwrap();
    let origin = Arc::new(Origin {
        parent: 0,
        run: 1,
        node: "fan".into(),
        failure_signal: None,
    });
    let parent = Arc::new(ParentInfo {
        parent_execution_id: root(),
        main_execution_id: root(),
        signals_to_parent: Vec::new(),
        context_updates_to_parent: vec!["result".into()],
        depth: 1,
    });
    for first in (1..=children).step_by(500) {
        let changes = (first..(first + 500).min(children + 1)).flat_map(|number| born(number, &origin, &parent));
        let next = commit(state.version + 1, changes.collect());
        state = store(memory, &state, next);
    }
    state
}

/// A tool run is over in a child, and nothing more is in flight there.
fn finished(state: &TreeState, child: u64) -> Commit {
    let value = Value::from(child);
    let appended = ExecutionChange::Appended {
        field: "result".into(),
        size: value.size(),
        value,
        delivered: false,
    };
    let name = root().child(&root(), 1, child - 1, child);
    let kinds = [
        EventKind::ContextUpdated {
            field: "result".into(),
            length: 1,
        },
        EventKind::ExecutionRested {},
    ];
    let events = (state.next_event..).zip(kinds).map(|(seq, kind)| Event {
        seq,
        time: Timestamp::from_micros(7),
        execution: name.clone(),
        kind,
    });
    let changes = vec![
        at(child, ExecutionChange::Finished { run: 1 }),
        at(child, appended),
        status(child, Status::Rested),
    ];
    Commit {
        events: events.collect(),
        ..commit(state.version + 1, changes)
    }
}

/// Allocations and bytes of a commit, the mean of many.
fn cost(children: u64) -> (f64, f64) {
    let memory = MemoryStore::new();
    let mut state = grown(&memory, children);
    let (mut allocations, mut bytes) = (0, 0);
    for n in 0..MEASURED {
        // Spread over the tree.
        let child = 1 + n * (children / MEASURED);
        let next = finished(&state, child);
        let region = Region::new(ALLOCATOR);
        state = store(&memory, &state, next);
        let used = region.change();
        allocations += used.allocations + used.reallocations;
        bytes += used.bytes_allocated;
    }
    println!(
        "{children} children: {} allocations, {} bytes",
        allocations as f64 / MEASURED as f64,
        bytes as f64 / MEASURED as f64
    );
    (allocations as f64 / MEASURED as f64, bytes as f64 / MEASURED as f64)
}

#[test]
fn a_commit_costs_the_same_in_a_large_tree() {
    let (few, many) = (cost(1_000), cost(100_000));
    let (allocations, bytes) = (many.0 / few.0, many.1 / few.1);
    println!("{allocations}, {bytes}");
    assert!(
        allocations < 1.1,
        "{few:?} allocations and bytes in a tree of 1,000, {many:?} in one of 100,000"
    );
    assert!(
        bytes < 1.1,
        "{few:?} allocations and bytes in a tree of 1,000, {many:?} in one of 100,000"
    );
}
