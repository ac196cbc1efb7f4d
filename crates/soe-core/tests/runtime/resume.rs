//! Going on with what has failed, and with what another process has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use soe_backends::*;
use soe_core::llm::{LlmError, llm_fn};
use soe_core::nodes::{NodeError, NodeInput, NodeOutput};
use soe_core::runtime::{Engine, EngineErrorKind, Orchestration, StreamItem};
use soe_core::tools::{ToolContext, ToolDefinition, raw_tool};

use crate::common::*;

const TREE: &str = "
flow:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: worker
    child_initial_signals: [GO]
    fan_out_field: tasks
    child_input_field: task
    signals_to_parent: [WORKED]
    context_updates_to_parent: [result]
  Join:
    node_type: router
    event_triggers: [WORKED]
    event_emissions:
      - {signal_name: ALL, condition: '{{ context.result | history | length == context.tasks | accumulated | length }}'}
worker:
  Check: {node_type: check, event_triggers: [GO], event_emissions: [{signal_name: CHECKED}]}
  Work: {node_type: tool, event_triggers: [CHECKED], tool_name: work, output_field: result, event_emissions: [{signal_name: WORKED}]}
";

fn tree() -> Orchestration {
    start(TREE)
        .id(id("x"))
        .field("tasks", soe_backends::Value::from(&json!([1, 2, 3])))
}

/// A tool that counts its calls.
fn counted(calls: &Arc<AtomicUsize>) -> ToolDefinition {
    let calls = calls.clone();
    raw_tool("work", "", move |_: Value, _: ToolContext| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move { Ok(json!(call)) }
    })
}

/// Nodes of type `check` fail as often as `failures` says.
fn tree_engine(failures: usize, calls: &Arc<AtomicUsize>, backends: &Backends) -> Engine {
    let left = Arc::new(AtomicUsize::new(failures));
    let check = move |_: NodeInput| {
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        async move {
            match fails {
                Ok(_) => Err(NodeError::new("not yet")),
                Err(_) => Ok(NodeOutput::default()),
            }
        }
    };
    let builder = builder().backends(backends.clone()).tool(counted(calls));
    builder.node_type("check", check).build().unwrap()
}

#[tokio::test]
async fn a_failed_tree_is_resumed_from_its_root() {
    let (calls, backends) = (Arc::new(AtomicUsize::new(0)), Backends::memory());
    let engine = tree_engine(2, &calls, &backends);
    let mut times = 0;
    let mut result = soon(engine.orchestrate(tree())).await;
    while let Err(error) = result {
        assert!(error.to_string().contains("not yet"), "{error}");
        times += 1;
        assert!(times <= 2, "{error}");
        let suspended = engine.status(&id("x.1.1")).await.unwrap().status;
        assert!(matches!(suspended, Status::Suspended | Status::Failed), "{suspended}");
        // What is below goes on with what is above.
        let below = engine.resume(&id("x.1.1")).await.unwrap_err();
        assert!(
            below
                .to_string()
                .contains("execution x, which is above it, is failed: resume that one"),
            "{below}"
        );
        result = soon(engine.resume(&id("x")).await.unwrap().wait()).await;
    }
    assert!(times >= 1);
    let context = engine.context(&id("x")).await.unwrap();
    assert_eq!((count(&context, "ALL"), count(&context, "WORKED")), (1, 3));
    assert_eq!(calls.load(Ordering::SeqCst), 3, "what was done isn't done again");
    // Of one that rests nothing changes.
    let version = engine.tree(&id("x")).await.unwrap().version;
    engine.resume(&id("x")).await.unwrap().wait().await.unwrap();
    assert_eq!(engine.tree(&id("x")).await.unwrap().version, version);
    engine.cancel(&id("x")).await.unwrap();
    let error = engine.resume(&id("x")).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::NotAccepting(Status::Cancelled));
    let error = engine.resume(&id("nobody")).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::NotFound);
}

#[tokio::test]
async fn a_limit_is_raised_when_an_execution_is_resumed() {
    let (calls, backends) = (Arc::new(AtomicUsize::new(0)), Backends::memory());
    let engine = tree_engine(0, &calls, &backends);
    let limits = Limits {
        children: 2,
        ..Limits::default()
    };
    let error = soon(engine.orchestrate(tree().limits(limits))).await.unwrap_err();
    assert!(error.to_string().contains("children"), "{error}");
    let again = engine.resume(&id("x")).await.unwrap();
    let error = soon(again.wait()).await.unwrap_err();
    assert!(error.to_string().contains("children"), "{error}");
    let limits = Limits {
        children: 3,
        runs: 77,
        ..Limits::default()
    };
    let raised = engine.resume_with(&id("x"), limits).await.unwrap();
    soon(raised.wait()).await.unwrap();
    assert_eq!(count(&raised.context().await.unwrap(), "ALL"), 1);
    assert_eq!(engine.tree(&id("x.1.2")).await.unwrap().limits.runs, 77);
}

#[tokio::test]
async fn an_llm_node_that_gave_up_asks_again_when_it_is_resumed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let replies = asked.clone();
    let llm = llm_fn(move |_, _| {
        let number = replies.fetch_add(1, Ordering::SeqCst);
        async move {
            match number {
                0 => Err(LlmError::new("no line")),
                1 | 2 => Ok("no JSON".to_owned()),
                _ => Ok(r#"{"text": 7}"#.to_owned()),
            }
        }
    });
    let engine = builder().llm(llm).build().unwrap();
    let flow = "
flow:
  Ask: {node_type: llm, event_triggers: [START], prompt: Say it, output_field: text, retries: 1, event_emissions: [{signal_name: SAID}]}
";
    let error = soon(engine.orchestrate(start(flow).id(id("x")))).await.unwrap_err();
    assert!(error.to_string().contains("Ask"), "{error}");
    let error = soon(engine.resume(&id("x")).await.unwrap().wait()).await.unwrap_err();
    assert!(error.to_string().contains("no valid reply in 2 attempts"), "{error}");
    soon(engine.resume(&id("x")).await.unwrap().wait()).await.unwrap();
    let context = engine.context(&id("x")).await.unwrap();
    assert_eq!((count(&context, "SAID"), context.operational.llm_calls), (1, 4));
    assert_eq!(context.operational.nodes.get("Ask"), Some(&1), "it is the same run");
}

/// An engine whose process has ended without a word, as far as the store knows: its clock says when.
fn engine_at(now: &Arc<AtomicU64>, gate: &Gate, backends: &Backends) -> Engine {
    let now = now.clone();
    let clock = move || Timestamp::from_micros(now.load(Ordering::SeqCst));
    let builder = builder()
        .backends(backends.clone())
        .clock(clock)
        .tool(gate.tool("work"));
    builder.lease(Duration::from_secs(30)).build().unwrap()
}

#[tokio::test]
async fn what_another_process_runs_is_taken_over_when_its_lease_has_ended() {
    let backends = Backends::memory();
    let (now, gates) = (Arc::new(AtomicU64::new(1)), [Gate::new(), Gate::new()]);
    let [one, two] = [0, 1].map(|i| engine_at(&now, &gates[i], &backends));
    let execution = one.start(start(WORK).id(id("x"))).await.unwrap();
    gates[0].called().await;

    let recovered = two.recover().await.unwrap();
    assert_eq!((recovered.taken_up, recovered.elsewhere, recovered.refused), (0, 1, 0));
    let error = two.check_free(&id("x")).await.unwrap_err();
    let EngineErrorKind::Elsewhere { until, .. } = error.kind() else {
        panic!("{error}");
    };
    assert_eq!(*until, Timestamp::from_micros(30_000_001));

    now.store(30_000_002, Ordering::SeqCst);
    let recovered = two.recover().await.unwrap();
    assert_eq!((recovered.taken_up, recovered.elsewhere), (1, 0), "{recovered:?}");
    gates[1].called().await;
    assert_eq!(gates[0].keys.lock().unwrap()[0], gates[1].keys.lock().unwrap()[0]);
    // The first one isn't dead after all: it has lost the execution.
    gates[0].open(1);
    let waiting = tokio::spawn(async move { execution.wait().await });
    gates[1].open(1);
    soon(two.wait(&id("x"))).await.unwrap();
    assert_eq!(soon(waiting).await.unwrap().unwrap().status, Status::Rested);
    let tree = two.tree(&id("x")).await.unwrap();
    assert_eq!(count(&tree.root_state().unwrap().context, "DONE"), 1);
    assert_eq!(tree.fence(), 2);
}

#[tokio::test]
async fn an_engine_that_was_shut_down_leaves_what_it_ran_to_others() {
    let backends = Backends::memory();
    let (now, gates) = (Arc::new(AtomicU64::new(1)), [Gate::new(), Gate::new()]);
    let [one, two] = [0, 1].map(|i| engine_at(&now, &gates[i], &backends));
    one.start(start(WORK).id(id("x"))).await.unwrap();
    gates[0].called().await;
    assert_eq!(one.shutdown(Duration::ZERO).await.stopped, [id("x")]);
    assert_eq!(two.recover().await.unwrap().taken_up, 1);
    assert_eq!(two.recover().await.unwrap().taken_up, 0, "it is run here already");
    gates[1].called().await;
    gates[1].open(1);
    soon(two.wait(&id("x"))).await.unwrap();
    assert_eq!(two.recover().await.unwrap().taken_up, 0);
}

#[tokio::test]
async fn a_tree_that_failed_before_a_restart_stays_so_until_it_is_resumed() {
    let backends = Backends::memory();
    let (now, gate) = (Arc::new(AtomicU64::new(1)), Gate::new());
    let calls = Arc::new(AtomicUsize::new(0));
    let one = {
        let now = now.clone();
        let builder = builder().backends(backends.clone()).tool(gate.tool("work"));
        let clock = move || Timestamp::from_micros(now.load(Ordering::SeqCst));
        let check = |_: NodeInput| async { Ok(NodeOutput::default()) };
        let boom = |_: NodeInput| async { Err::<NodeOutput, _>(NodeError::new("enough")) };
        let builder = builder.clock(clock).node_type("check", check);
        builder.node_type("boom", boom).build().unwrap()
    };
    let flow = TREE.replace("  Join:", "  Boom: {node_type: boom, event_triggers: [BOOM]}\n  Join:");
    let tasks = soe_backends::Value::from(&json!([1, 2, 3]));
    one.start(start(&flow).id(id("x")).field("tasks", tasks)).await.unwrap();
    for _ in 0..3 {
        gate.called().await;
    }
    gate.open(1);
    let mut events = one.events(&id("x"));
    let worked = |item: &StreamItem| format!("{item:?}").contains("WORKED");
    while !worked(&soon(events.next()).await.unwrap()) {}
    one.broadcast_signals(&id("x"), ["BOOM"]).await.unwrap();
    soon(one.wait(&id("x"))).await.unwrap_err();
    one.shutdown(Duration::ZERO).await;

    let again = Arc::new(AtomicUsize::new(0));
    let boom = again.clone();
    let boom = move |_: NodeInput| {
        boom.fetch_add(1, Ordering::SeqCst);
        async { Ok(NodeOutput::default()) }
    };
    let check = |_: NodeInput| async { Ok(NodeOutput::default()) };
    let builder = builder().backends(backends.clone()).tool(counted(&calls));
    let two = builder
        .node_type("check", check)
        .node_type("boom", boom)
        .build()
        .unwrap();
    let recovered = two.recover().await.unwrap();
    assert_eq!((recovered.taken_up, recovered.refused), (0, 0), "{recovered:?}");
    let statuses: Vec<Status> = executions_of(&two, &id("x"))
        .await
        .iter()
        .map(|one| one.status)
        .collect();
    // The one that has worked rests in itself; it is suspended with the others.
    assert_eq!(
        statuses,
        [Status::Failed, Status::Suspended, Status::Suspended, Status::Suspended]
    );
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    soon(two.resume(&id("x")).await.unwrap().wait()).await.unwrap();
    let context = two.context(&id("x")).await.unwrap();
    assert_eq!((count(&context, "ALL"), count(&context, "WORKED")), (1, 3));
    assert_eq!(calls.load(Ordering::SeqCst), 2, "one was done before");
    assert_eq!(again.load(Ordering::SeqCst), 1, "what has failed is tried again");
}

#[tokio::test]
async fn an_engine_that_lacks_a_tool_leaves_the_execution_as_it_is() {
    let backends = Backends::memory();
    let (now, gate) = (Arc::new(AtomicU64::new(1)), Gate::new());
    let one = engine_at(&now, &gate, &backends);
    one.start(start(WORK).id(id("x"))).await.unwrap();
    gate.called().await;
    one.shutdown(Duration::ZERO).await;
    let before = backends.context().load(&id("x")).await.unwrap().unwrap();

    let bare = builder().backends(backends.clone()).build().unwrap();
    let recovered = bare.recover().await.unwrap();
    assert_eq!((recovered.taken_up, recovered.refused), (0, 1), "{recovered:?}");
    let text = recovered.errors[0].to_string();
    assert!(
        text.contains("execution x: refused") && text.contains("uses tool 'work', which is not registered"),
        "{text}"
    );
    let resumed = bare.resume(&id("x")).await.unwrap_err();
    let signalled = bare.broadcast_signals(&id("x"), ["X"]).await.unwrap_err();
    assert_eq!([resumed.kind(), signalled.kind()], [&EngineErrorKind::Refused; 2]);
    assert_eq!(backends.context().load(&id("x")).await.unwrap().unwrap(), before);
    // To stop it nothing is needed.
    bare.cancel(&id("x")).await.unwrap();
    assert_eq!(bare.status(&id("x")).await.unwrap().status, Status::Cancelled);
}

const TWO_STEPS: &str = "
flow:
  Fan: {node_type: child, event_triggers: [START], child_workflow_name: worker, child_initial_signals: [GO]}
worker:
  One: {node_type: check, event_triggers: [GO], event_emissions: [{signal_name: ON}]}
  Two: {node_type: check, event_triggers: [ON]}
";

#[tokio::test]
async fn a_child_that_fails_again_in_the_moment_it_is_resumed_says_so() {
    for schedule in [Schedule::Concurrent, Schedule::DepthFirst] {
        let check = |_: NodeInput| async { Ok(NodeOutput::default()) };
        let engine = builder().node_type("check", check).build().unwrap();
        let limits = |runs| Limits {
            runs,
            ..Limits::default()
        };
        let tree = start(TWO_STEPS).id(id("x")).schedule(schedule);
        let mut result = soon(engine.orchestrate(tree.limits(limits(1)))).await;
        for _ in 0..3 {
            let error = result.unwrap_err();
            assert!(error.to_string().contains("limit runs exceeded"), "{error}");
            result = soon(engine.resume(&id("x")).await.unwrap().wait()).await;
        }
        result.unwrap_err();
        // Those of the whole tree count: one of the root, two of the child.
        let raised = engine.resume_with(&id("x"), limits(3)).await.unwrap();
        soon(raised.wait()).await.unwrap();
    }
}

#[tokio::test]
async fn a_resting_tree_is_cancelled_and_deleted_without_its_tools() {
    let (calls, backends) = (Arc::new(AtomicUsize::new(0)), Backends::memory());
    let engine = tree_engine(0, &calls, &backends);
    soon(engine.orchestrate(tree())).await.unwrap();
    engine.shutdown(Duration::from_secs(5)).await;
    let bare = builder().backends(backends.clone()).build().unwrap();
    bare.cancel(&id("x")).await.unwrap();
    let all = executions_of(&bare, &id("x")).await;
    assert!(
        all.len() == 4 && all.iter().all(|each| each.status == Status::Cancelled),
        "{all:?}"
    );
    soon(bare.delete(&id("x"))).await.unwrap();
    assert_eq!(bare.list(&ListQuery::default()).await.unwrap().executions, []);
}
