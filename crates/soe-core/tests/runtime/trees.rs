//! What a whole tree promises: whoever else is at work on it, it is deleted, gone on with and counted as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use soe_backends::*;
use soe_core::nodes::{NodeError, NodeInput, NodeOutput};
use soe_core::runtime::{Engine, EngineErrorKind, Orchestration, Retention};
use soe_core::tools::{ToolContext, raw_tool};

use crate::common::*;

const FAN: &str = "
flow:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: worker
    child_initial_signals: [GO]
    fan_out_field: items
    child_input_field: item
    signals_to_parent: [WORKED]
    context_updates_to_parent: [result]
  Check: {node_type: check, event_triggers: [CHECK], event_emissions: [{signal_name: CHECKED}]}
worker:
  Work: {node_type: tool, event_triggers: [GO], tool_name: work, output_field: result, event_emissions: [{signal_name: WORKED}]}
";

fn fan(items: i64) -> Orchestration {
    let items = Value::list((0..items).map(Value::from));
    start(FAN).id(id("x")).field("items", items)
}

/// Nodes of type `check` fail while `fails` is set.
fn engine_on(backends: &Backends, calls: &Arc<AtomicUsize>, fails: &Arc<AtomicBool>) -> Engine {
    let (calls, fails) = (calls.clone(), fails.clone());
    let work = raw_tool("work", "", move |_: serde_json::Value, _: ToolContext| {
        calls.fetch_add(1, Ordering::SeqCst);
        async { Ok(json!(1)) }
    });
    let check = move |_: NodeInput| {
        let fails = fails.load(Ordering::SeqCst);
        async move {
            match fails {
                true => Err(NodeError::new("not yet")),
                false => Ok(NodeOutput::default()),
            }
        }
    };
    let builder = builder().backends(backends.clone()).tool(work);
    builder.node_type("check", check).build().unwrap()
}

fn engines<const N: usize>(backends: [&Backends; N]) -> [Engine; N] {
    let (calls, fails) = (Arc::default(), Arc::default());
    backends.map(|backends| engine_on(backends, &calls, &fails))
}

/// A deletion that has looked at the tree, and waits before it deletes it.
async fn deleting(
    store: &Arc<FaultyStore>,
    engine: &Engine,
) -> (Gate, tokio::task::JoinHandle<Option<EngineErrorKind>>) {
    let gate = Gate::new();
    *store.deleting.lock().unwrap() = Some(gate.clone());
    let engine = engine.clone();
    let deleting = tokio::spawn(async move { engine.delete(&id("x")).await.err().map(|error| error.kind().clone()) });
    soon(gate.called()).await;
    (gate, deleting)
}

#[tokio::test]
async fn what_another_process_signals_while_a_tree_is_deleted_keeps_it() {
    let store = FaultyStore::new();
    let other = Backends::single(store.inner.clone());
    let [one, two] = engines([&store.backends(), &other]);
    soon(one.orchestrate(fan(3))).await.unwrap();
    let (gate, deletion) = deleting(&store, &one).await;
    two.broadcast_signals(&id("x"), ["CHECK"]).await.unwrap();
    soon(two.wait(&id("x"))).await.unwrap();
    gate.open(1);
    assert_eq!(soon(deletion).await.unwrap(), Some(EngineErrorKind::Active));
    let tree = two.tree(&id("x")).await.unwrap();
    assert_eq!(
        (
            tree.executions.len(),
            count(&tree.root_state().unwrap().context, "CHECKED")
        ),
        (4, 1)
    );

    // A message that nobody has taken yet keeps it, too.
    let (gate, deletion) = deleting(&store, &one).await;
    let message = Message {
        id: "m".into(),
        at: Timestamp::from_micros(1),
        execution: id("x"),
        request: Request::Signal(["CHECK".into()].into()),
    };
    other.context().post(&id("x"), &message).await.unwrap();
    gate.open(2);
    assert_eq!(soon(deletion).await.unwrap(), Some(EngineErrorKind::Active));
    assert_eq!(two.recover().await.unwrap().taken_up, 1);
    soon(two.wait(&id("x"))).await.unwrap();
    assert_eq!(count(&two.context(&id("x")).await.unwrap(), "CHECKED"), 2);
    *store.deleting.lock().unwrap() = None;
    one.delete(&id("x")).await.unwrap();
    assert_eq!(
        *two.resume(&id("x")).await.unwrap_err().kind(),
        EngineErrorKind::NotFound
    );
}

#[tokio::test]
async fn what_another_process_resumes_while_trees_are_collected_stays() {
    let store = FaultyStore::new();
    let (calls, fails) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let one = engine_on(&store.backends(), &calls, &fails);
    let two = engine_on(&Backends::single(store.inner.clone()), &calls, &fails);
    soon(one.orchestrate(fan(3))).await.unwrap();
    one.broadcast_signals(&id("x"), ["CHECK"]).await.unwrap();
    soon(one.wait(&id("x"))).await.unwrap_err();
    fails.store(false, Ordering::SeqCst);
    let gate = Gate::new();
    *store.deleting.lock().unwrap() = Some(gate.clone());
    let collecting = tokio::spawn(async move { one.collect(&Retention::older_than(Duration::ZERO)).await });
    soon(gate.called()).await;
    soon(two.resume(&id("x")).await.unwrap().wait()).await.unwrap();
    gate.open(1);
    let collected = soon(collecting).await.unwrap().unwrap();
    assert_eq!((collected.trees, collected.refused), (0, 0), "{collected:?}");
    assert_eq!(count(&two.context(&id("x")).await.unwrap(), "CHECKED"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_that_collect_at_once_delete_each_tree_once() {
    let backends = Backends::memory();
    let [one, two] = engines([&backends, &backends]);
    for number in 0..60 {
        soon(one.orchestrate(fan(2).id(id(&format!("t{number}")))))
            .await
            .unwrap();
    }
    let retention = Retention::older_than(Duration::ZERO).rested();
    let (a, b) = tokio::join!(one.collect(&retention), two.collect(&retention));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.trees + b.trees, a.executions + b.executions), (60, 180));
    assert_eq!((a.refused, b.refused), (0, 0), "{a:?} {b:?}");
    assert!(one.list(&ListQuery::default()).await.unwrap().executions.is_empty());
}

/// Telemetry that can't be deleted the first time.
struct Sticky(Arc<MemoryStore>, AtomicBool);

#[async_trait]
impl TelemetryBackend for Sticky {
    async fn append_events(&self, tree: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
        self.0.append_events(tree, events).await
    }

    async fn events(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
        self.0.events(tree, from, limit).await
    }

    async fn delete_events(&self, tree: &ExecutionId) -> Result<(), BackendError> {
        match self.1.swap(true, Ordering::SeqCst) {
            false => Err(BackendError::new(BackendErrorKind::Unavailable, "not now")),
            true => self.0.delete_events(tree).await,
        }
    }
}

#[tokio::test]
async fn a_deletion_that_ended_in_the_middle_leaves_no_tree_and_is_finished_by_repeating_it() {
    let store = FaultyStore::new();
    let telemetry = Sticky(Arc::new(MemoryStore::new()), AtomicBool::new(false));
    let backends = Backends::builder(store.clone(), store.inner.clone())
        .telemetry(Arc::new(telemetry))
        .build();
    let [engine] = engines([&backends]);
    soon(engine.orchestrate(fan(2))).await.unwrap();
    assert_eq!(
        *engine.delete(&id("x")).await.unwrap_err().kind(),
        EngineErrorKind::Backend
    );
    // Nobody can go on with half of it.
    for error in [
        engine.resume(&id("x")).await.map(drop).unwrap_err(),
        engine.broadcast_signals(&id("x"), ["CHECK"]).await.unwrap_err(),
        engine.wait(&id("x")).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(*error.kind(), EngineErrorKind::NotFound);
    }
    assert!(!engine.telemetry(&id("x"), 0, 10).await.unwrap().is_empty());
    assert_eq!(
        *engine.delete(&id("x")).await.unwrap_err().kind(),
        EngineErrorKind::NotFound
    );
    assert!(engine.telemetry(&id("x"), 0, 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_that_recover_one_tree_one_runs_it_and_nobody_hangs() {
    for _ in 0..40 {
        let backends = Backends::memory();
        let gate = Gate::new();
        let check = |_: NodeInput| async { Ok(NodeOutput::default()) };
        let first = builder()
            .backends(backends.clone())
            .tool(gate.tool("work"))
            .node_type("check", check);
        let first = first.build().unwrap();
        first.start(fan(3)).await.unwrap();
        for _ in 0..3 {
            soon(gate.called()).await;
        }
        soon(first.shutdown(Duration::ZERO)).await;
        let (calls, fails) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let [one, two] = [(); 2].map(|()| engine_on(&backends, &calls, &fails));
        let recovering = async { tokio::join!(one.recover(), two.recover()) };
        let (a, b) = soon(recovering).await;
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!(
            a.taken_up + b.taken_up >= 1 && a.refused + b.refused == 0,
            "{a:?} {b:?}"
        );
        let x = id("x");
        let waiting = async { tokio::join!(one.wait(&x), two.wait(&x)) };
        let (a, b) = soon(waiting).await;
        assert_eq!((a.unwrap().status, b.unwrap().status), (Status::Rested, Status::Rested));
        assert_eq!(calls.load(Ordering::SeqCst), 3, "each run once");
        let context = one.context(&id("x")).await.unwrap();
        assert_eq!(
            (count(&context, "WORKED"), context.history("result").unwrap().len()),
            (3, 3)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_no_failure_of_the_store_or_of_a_node() {
    let mut lost = 0;
    for commit in 0..6 {
        let store = FaultyStore::new();
        let [engine] = engines([&store.backends()]);
        let execution = engine.prepare(fan(300)).await.unwrap();
        store.fail_after(commit, Fault::Conflict);
        // Asked again by itself.
        execution.signal(["START"]).await.unwrap();
        let mut waited = soon(execution.wait()).await;
        while let Err(error) = waited {
            lost += 1;
            // Nobody else has it, in truth.
            assert_eq!(*error.kind(), EngineErrorKind::NotActive, "{error:#}");
            assert!(!format!("{error:#}").contains("the store failed"));
            engine.resume(&id("x")).await.unwrap();
            waited = soon(execution.wait()).await;
        }
        let tree = engine.tree(&id("x")).await.unwrap();
        assert!(
            tree.executions
                .values()
                .all(|state| state.failure.is_none() && state.status == Status::Rested)
        );
        assert_eq!(
            (
                tree.used.children,
                tree.root_state().unwrap().context.operational.errors
            ),
            (300, 0)
        );
    }
    assert!(lost > 1, "{lost}");
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_that_cannot_be_stored_says_so_at_once() {
    let store = FaultyStore::new();
    let gate = Gate::new();
    let engine = builder()
        .backends(store.backends())
        .tool(gate.tool("work"))
        .build()
        .unwrap();
    let execution = engine.start(start(WORK)).await.unwrap();
    gate.called().await;
    store.fail_after(0, Fault::Before);
    let error = soon(execution.cancel()).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Backend);
    *store.load_fails.lock().unwrap() = true;
    let error = soon(execution.cancel()).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Backend);
    *store.load_fails.lock().unwrap() = false;
    soon(execution.cancel()).await.unwrap();
    assert_eq!(execution.status().await.unwrap().status, Status::Cancelled);
    assert_eq!(gate.keys.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_limit_of_children_is_exact() {
    for (items, allowed) in [(10, 10), (11, 10), (700, 700), (701, 700)] {
        let [engine] = engines([&Backends::memory()]);
        let limits = Limits {
            children: allowed,
            ..Limits::default()
        };
        let ended = soon(engine.orchestrate(fan(items).limits(limits))).await;
        let tree = engine.tree(&id("x")).await.unwrap();
        match items as u64 <= allowed {
            true => assert_eq!((ended.unwrap().status, tree.used.children), (Status::Rested, allowed)),
            false => {
                let error = ended.unwrap_err();
                assert!(error.to_string().contains("limit children exceeded"), "{error}");
                assert_eq!(tree.used.children, 0);
            }
        }
    }
}

const APPROVAL: &str = "
flow:
  Ask:
    node_type: child
    event_triggers: [START]
    child_workflow_name: approval
    child_initial_signals: [GO]
    signals_to_parent: [APPROVED]
  Do: {node_type: tool, event_triggers: [APPROVED], tool_name: work, output_field: done}
approval:
  Wait: {node_type: router, event_triggers: [GO], event_emissions: [{signal_name: WAITING}]}
  Yes: {node_type: router, event_triggers: [YES], event_emissions: [{signal_name: APPROVED}]}
";

#[tokio::test]
async fn who_waits_for_the_tree_after_an_approval_in_a_child_waits_for_what_it_wakes() {
    let gate = Gate::new();
    let engine = builder().tool(gate.tool("work")).build().unwrap();
    soon(engine.orchestrate(start(APPROVAL).id(id("x")))).await.unwrap();
    let child = engine.tree(&id("x")).await.unwrap().get(1).unwrap().id.clone();
    engine.broadcast_signals(&child, ["YES"]).await.unwrap();
    // It is one commit: nobody sees the child done and the parent asleep.
    assert_eq!(engine.status(&id("x")).await.unwrap().status, Status::Running);
    soon(gate.called()).await;
    assert_eq!(soon(engine.wait(&child)).await.unwrap().status, Status::Rested);
    let mut waiting = Box::pin(engine.wait_tree(&child));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    gate.open(1);
    assert_eq!(soon(waiting).await.unwrap().status, Status::Rested);
    assert_eq!(engine.history(&id("x"), "done").await.unwrap().len(), 1);
}

const LEVELS: &str = "
flow:
  Work: {node_type: tool, event_triggers: [START], tool_name: work}
  Down: {node_type: child, event_triggers: [START], child_workflow_name: middle, child_initial_signals: [GO]}
middle:
  Work: {node_type: tool, event_triggers: [GO], tool_name: work}
  Down: {node_type: child, event_triggers: [GO], child_workflow_name: leaf, child_initial_signals: [GO]}
leaf:
  Work: {node_type: tool, event_triggers: [GO], tool_name: work}
  Wait: {node_type: tool, event_triggers: [GO], tool_name: wait}
";

#[tokio::test]
async fn what_is_used_is_seen_at_every_level_and_at_once_in_the_tree() {
    let gate = Gate::new();
    let work = raw_tool("work", "", |_: serde_json::Value, _: ToolContext| async {
        Ok(json!(1))
    });
    let engine = builder().tool(work).tool(gate.tool("wait")).build().unwrap();
    let execution = engine.start(start(LEVELS).id(id("x"))).await.unwrap();
    soon(gate.called()).await;
    let tree = engine.tree(&id("x")).await.unwrap();
    assert_eq!((tree.used.tool_calls, tree.used.children), (4, 2), "while it runs");
    gate.open(1);
    soon(execution.wait()).await.unwrap();
    let tree = engine.tree(&id("x")).await.unwrap();
    let used: Vec<_> = tree
        .executions
        .values()
        .map(|state| state.context.operational.tree.tool_calls)
        .collect();
    assert_eq!(used, [4, 3, 2]);
    let own: Vec<_> = tree
        .executions
        .values()
        .map(|state| state.context.operational.tool_calls)
        .collect();
    assert_eq!(own, [1, 1, 2]);
}
