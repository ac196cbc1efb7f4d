//! Deleting whole trees, and collecting those that have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use soe_backends::*;
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineErrorKind, Orchestration, Retention};

use crate::common::*;

/// A root with three children that have a child each, which run `work` or emit at once.
const TREE: &str = "
flow:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: middle
    child_initial_signals: [GO]
    fan_out_field: items
    child_input_field: item
middle:
  Below: {node_type: child, event_triggers: [GO], child_workflow_name: leaf, child_initial_signals: [GO]}
leaf:
  End: {node_type: KIND, event_triggers: [GO]MORE}
";

fn tree(kind: &str, more: &str) -> Orchestration {
    let yaml = TREE.replace("KIND", kind).replace("MORE", more);
    let config = Config::from_yaml(&yaml).unwrap_or_else(|error| panic!("{error}"));
    let items = Value::list([1_i64, 2, 3].map(Value::from));
    Orchestration::new(config, "flow").signal("START").field("items", items)
}

fn resting() -> Orchestration {
    tree("router", ", event_emissions: [{signal_name: DONE}]")
}

fn busy() -> Orchestration {
    tree("tool", ", tool_name: work")
}

async fn all(engine: &Engine) -> Vec<ExecutionSummary> {
    let query = ListQuery {
        limit: 1_000,
        ..ListQuery::default()
    };
    engine.list(&query).await.unwrap().executions
}

#[tokio::test]
async fn a_tree_is_deleted_as_a_whole_and_by_its_root() {
    let engine = builder().build().unwrap();
    let root = soon(engine.orchestrate(resting().id(id("a")))).await.unwrap().execution;
    let other = soon(engine.orchestrate(resting())).await.unwrap().execution;
    assert_eq!(all(&engine).await.len(), 2);
    let tree = executions_of(&engine, &root).await;
    assert_eq!(tree.len(), 7);
    for below in &tree[1..] {
        let error = engine.delete(&below.id).await.unwrap_err();
        assert_eq!(*error.kind(), EngineErrorKind::NotRoot { root: root.clone() });
        assert!(error.to_string().contains("belongs to the tree of a"), "{error}");
    }
    assert_eq!(executions_of(&engine, &root).await.len(), 7);
    engine.delete(&root).await.unwrap();
    let left = all(&engine).await;
    assert_eq!((left.len(), &left[0].id, left[0].children), (1, &other, 6));
    for deleted in &tree {
        assert!(engine.telemetry(&deleted.id, 0, 10).await.unwrap().is_empty());
        assert_eq!(
            *engine.state(&deleted.id).await.unwrap_err().kind(),
            EngineErrorKind::NotFound
        );
    }
    assert_eq!(
        *engine.delete(&root).await.unwrap_err().kind(),
        EngineErrorKind::NotFound
    );
}

#[tokio::test]
async fn nothing_is_deleted_of_a_tree_in_which_something_runs() {
    let gate = Gate::new();
    let engine = engine_with(gate.tool("work"));
    let execution = engine.start(busy()).await.unwrap();
    for _ in 0..3 {
        soon(gate.called()).await;
    }
    let error = engine.delete(execution.id()).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Active);
    let retention = Retention::older_than(Duration::ZERO).rested();
    assert_eq!(engine.collect(&retention).await.unwrap().trees, 0);
    assert_eq!(executions_of(&engine, execution.id()).await.len(), 7);
    gate.open(3);
    soon(execution.wait()).await.unwrap();
    engine.delete(execution.id()).await.unwrap();
    assert!(all(&engine).await.is_empty());
}

#[tokio::test]
async fn a_deletion_that_fails_deletes_nothing_and_can_be_repeated() {
    let store = FaultyStore::new();
    let engine = builder().backends(store.backends()).build().unwrap();
    let root = soon(engine.orchestrate(resting())).await.unwrap().execution;
    *store.deletes.lock().unwrap() = 0;
    assert_eq!(
        *engine.delete(&root).await.unwrap_err().kind(),
        EngineErrorKind::Backend
    );
    assert_eq!(executions_of(&engine, &root).await.len(), 7);
    *store.deletes.lock().unwrap() = usize::MAX;
    engine.delete(&root).await.unwrap();
    assert!(all(&engine).await.is_empty());
}

#[tokio::test]
async fn only_what_has_ended_long_ago_is_collected() {
    let now = Arc::new(AtomicU64::new(1_000_000_000));
    let clock = now.clone();
    let gate = Gate::new();
    let engine = builder()
        .tool(gate.tool("work"))
        .clock(move || Timestamp::from_micros(clock.load(Ordering::SeqCst)))
        .build()
        .unwrap();
    let rested = soon(engine.orchestrate(resting())).await.unwrap().execution;
    let cancelled = engine.start(busy()).await.unwrap();
    let running = engine.start(busy()).await.unwrap();
    let failed = engine
        .start(resting().limits(Limits {
            children: 2,
            ..Limits::default()
        }))
        .await
        .unwrap();
    soon(failed.wait()).await.unwrap_err();
    let prepared = engine.prepare(resting()).await.unwrap();
    for _ in 0..6 {
        soon(gate.called()).await;
    }
    cancelled.cancel().await.unwrap();
    let hour = Retention::older_than(Duration::from_secs(3_600));
    assert!(engine.collectable(&hour).await.unwrap().is_empty());
    now.fetch_add(3_600_000_000, Ordering::SeqCst);
    let mut found = engine.collectable(&hour).await.unwrap();
    found.sort_by_key(|tree| tree.executions);
    let found: Vec<_> = found.iter().map(|tree| (&tree.root.id, tree.executions)).collect();
    assert_eq!(found, [(failed.id(), 1), (cancelled.id(), 7)]);
    let collected = engine.collect(&hour).await.unwrap();
    assert_eq!(
        (collected.trees, collected.executions, collected.refused),
        (2, 8, 0),
        "{collected:?}"
    );

    let collected = engine.collect(&hour.rested()).await.unwrap();
    assert_eq!((collected.trees, collected.executions), (1, 7), "{collected:?}");
    assert!(engine.status(&rested).await.is_err());
    for kept in [running.id(), prepared.id()] {
        engine.status(kept).await.unwrap();
    }
}
