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
        let suspended = engine.state(&id("x.1.1")).await.unwrap().status;
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
    let version = engine.state(&id("x")).await.unwrap().version;
    engine.resume(&id("x")).await.unwrap().wait().await.unwrap();
    assert_eq!(engine.state(&id("x")).await.unwrap().version, version);
    engine.cancel(&id("x")).await.unwrap();
    let error = engine.resume(&id("x")).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Ended(Status::Cancelled));
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
    assert_eq!(engine.state(&id("x.1.2")).await.unwrap().limits.runs, 77);
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
    let error = two.resume(&id("x")).await.unwrap_err();
    let EngineErrorKind::Elsewhere { until, .. } = error.kind() else {
        panic!("{error}");
    };
    assert_eq!(*until, Timestamp::from_micros(30_000_001));
    let error = two.broadcast_signals(&id("x"), ["X"]).await.unwrap_err();
    assert!(matches!(error.kind(), EngineErrorKind::Elsewhere { .. }), "{error}");

    now.store(30_000_002, Ordering::SeqCst);
    let recovered = two.recover().await.unwrap();
    assert_eq!((recovered.taken_up, recovered.elsewhere), (1, 0), "{recovered:?}");
    gates[1].called().await;
    assert_eq!(gates[0].keys.lock().unwrap()[0], gates[1].keys.lock().unwrap()[0]);
    // The first one isn't dead after all: it has lost the execution.
    gates[0].open(1);
    let error = soon(execution.wait()).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Backend, "{error:#}");
    gates[1].open(1);
    soon(two.wait(&id("x"))).await.unwrap();
    let state = two.state(&id("x")).await.unwrap();
    assert_eq!((count(&state.context, "DONE"), state.owner.unwrap().fence), (1, 2));
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
async fn recovering_finds_whole_trees_and_what_has_not_gone_down() {
    let backends = Backends::memory();
    let (now, gate) = (Arc::new(AtomicU64::new(1)), Gate::new());
    let calls = Arc::new(AtomicUsize::new(0));
    let one = {
        let now = now.clone();
        let builder = builder().backends(backends.clone()).tool(gate.tool("work"));
        let clock = move || Timestamp::from_micros(now.load(Ordering::SeqCst));
        let check = |_: NodeInput| async { Ok(NodeOutput::default()) };
        builder.clock(clock).node_type("check", check).build().unwrap()
    };
    one.start(tree()).await.unwrap();
    for _ in 0..3 {
        gate.called().await;
    }
    gate.open(1);
    let mut events = one.events(&id("x"));
    let worked = |item: &StreamItem| format!("{item:?}").contains("WORKED");
    while !worked(&soon(events.next()).await.unwrap()) {}
    one.shutdown(Duration::ZERO).await;

    // The root has failed, and its children haven't heard of it.
    let mut root = backends.context().load(&id("x")).await.unwrap().unwrap();
    let failed = Commit {
        execution: id("x"),
        version: root.version + 1,
        at: Timestamp::from_micros(2),
        changes: vec![
            Change::Status {
                status: Status::Failed,
                at: Timestamp::from_micros(2),
                failure: None,
            },
            Change::Descending(true),
        ],
        registry: None,
        definitions: None,
        turns: None,
        events: Vec::new(),
    };
    root.apply(&failed).unwrap();
    backends.commit(vec![failed]).await.unwrap();
    let two = tree_engine(0, &calls, &backends);
    let recovered = two.recover().await.unwrap();
    assert_eq!((recovered.taken_up, recovered.refused), (3, 0), "{recovered:?}");
    let suspended = async {
        loop {
            let all = two.list(&ListQuery::default()).await.unwrap().executions;
            if all.iter().all(|each| !each.unsettled) {
                return all;
            }
            tokio::task::yield_now().await;
        }
    };
    for each in soon(suspended).await {
        let wanted = if each.id == id("x") {
            Status::Failed
        } else {
            Status::Suspended
        };
        assert_eq!(each.status, wanted, "{}", each.id);
    }
    soon(two.resume(&id("x")).await.unwrap().wait()).await.unwrap();
    let context = two.context(&id("x")).await.unwrap();
    assert_eq!((count(&context, "ALL"), count(&context, "WORKED")), (1, 3));
    assert_eq!(calls.load(Ordering::SeqCst), 2, "one was done before");
}

#[tokio::test]
async fn what_a_tree_has_used_is_known_again_after_a_restart() {
    const TALKERS: &str = "
flow:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: talker
    child_initial_signals: [GO]
    fan_out_field: tasks
    child_input_field: task
talker:
  Say: {node_type: llm, event_triggers: [GO], prompt: Say it, output_field: said, event_emissions: [{signal_name: SAID}]}
  Work: {node_type: tool, event_triggers: [SAID], tool_name: work, output_field: result, event_emissions: [{signal_name: MORE}]}
  More: {node_type: llm, event_triggers: [MORE], prompt: Say more, output_field: said}
";
    let backends = Backends::memory();
    let (now, gates) = (Arc::new(AtomicU64::new(1)), [Gate::new(), Gate::new()]);
    let asked = Arc::new(AtomicUsize::new(0));
    let engines = [0, 1].map(|i| {
        let (now, asked) = (now.clone(), asked.clone());
        let clock = move || Timestamp::from_micros(now.load(Ordering::SeqCst));
        let llm = llm_fn(move |_, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            async { Ok(r#"{"said": "it"}"#.to_owned()) }
        });
        let builder = builder().backends(backends.clone()).clock(clock).llm(llm);
        builder.tool(gates[i].tool("work")).build().unwrap()
    });
    let limits = Limits {
        llm_calls: Some(4),
        ..Limits::default()
    };
    let flow = start(TALKERS)
        .id(id("x"))
        .field("tasks", soe_backends::Value::from(&json!([1, 2, 3])));
    engines[0].start(flow.limits(limits)).await.unwrap();
    for _ in 0..3 {
        gates[0].called().await;
    }
    engines[0].shutdown(Duration::ZERO).await;
    let told = backends.context().load(&id("x")).await.unwrap().unwrap();
    assert_eq!(told.context.operational.tree.llm_calls, 0, "nothing of it was told");

    assert_eq!(engines[1].recover().await.unwrap().taken_up, 4);
    gates[1].open(3);
    let error = soon(engines[1].wait(&id("x"))).await.unwrap_err();
    assert!(error.to_string().contains("llm_calls"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 4, "three before, one after");
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

const ASKING: &str = "
flow:
  Ask: {node_type: llm, event_triggers: [START], prompt: Say it, output_field: text, event_emissions: [{signal_name: SAID}]}
  Fan: {node_type: child, event_triggers: [SAID], child_workflow_name: worker, child_initial_signals: [GO]}
worker:
  Gate: {node_type: tool, event_triggers: [GO], tool_name: work, event_emissions: [{signal_name: ON}]}
  Ask: {node_type: llm, event_triggers: [ON], prompt: Say it, output_field: text}
";

#[tokio::test]
async fn what_a_tree_has_used_is_known_to_those_who_are_taken_up_before_its_root() {
    let backends = Backends::memory();
    let (asked, gates) = (Arc::new(AtomicUsize::new(0)), [Gate::new(), Gate::new()]);
    let [one, two] = [0, 1].map(|i| {
        let asked = asked.clone();
        let llm = llm_fn(move |_, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            async { Ok(r#"{"text": 7}"#.to_owned()) }
        });
        let builder = builder().backends(backends.clone()).llm(llm);
        builder.tool(gates[i].tool("work")).build().unwrap()
    });
    let limits = Limits {
        llm_calls: Some(1),
        ..Limits::default()
    };
    one.start(start(ASKING).id(id("x")).limits(limits)).await.unwrap();
    soon(gates[0].called()).await;
    one.shutdown(Duration::ZERO).await;
    // The newest first: the child, which has asked nothing yet.
    assert_eq!(two.recover().await.unwrap().taken_up, 2);
    gates[1].open(1);
    let error = soon(two.wait(&id("x"))).await.unwrap_err();
    assert!(error.to_string().contains("llm_calls"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
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
        let raised = engine.resume_with(&id("x"), limits(2)).await.unwrap();
        soon(raised.wait()).await.unwrap();
    }
}

const LATE: &str = "
flow:
  Fan: {node_type: child, event_triggers: [START], child_workflow_name: worker, child_initial_signals: [GO]}
  Late: {node_type: late, event_triggers: [START]}
worker:
  Rest: {node_type: router, event_triggers: [GO], event_emissions: [{signal_name: DONE}]}
";

#[tokio::test]
async fn what_does_not_reach_a_child_while_the_engine_stops_is_left_to_the_next() {
    let backends = Backends::memory();
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    let [one, two] = [0, 1].map(|_| {
        let open = open.clone();
        let late = move |_: NodeInput| {
            let open = open.clone();
            async move {
                open.acquire().await.map_err(NodeError::new)?.forget();
                Err::<NodeOutput, _>(NodeError::new("too late"))
            }
        };
        let builder = builder().backends(backends.clone());
        builder.node_type("late", late).build().unwrap()
    });
    let execution = one.start(start(LATE).id(id("x"))).await.unwrap();
    let settled = async {
        while one.state(&id("x")).await.unwrap().active_children() > 0 {
            tokio::task::yield_now().await;
        }
        one.wait(&id("x.1.0")).await.unwrap();
    };
    soon(settled).await;
    // The child has no coordinator, and gets none any more.
    let stopping = tokio::spawn({
        let one = one.clone();
        async move { one.shutdown(Duration::from_secs(30)).await }
    });
    while one.broadcast_signals(&id("x"), ["X"]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    open.add_permits(1);
    soon(execution.wait()).await.unwrap_err();
    soon(stopping).await.unwrap();
    assert!(one.state(&id("x")).await.unwrap().is_unsettled());

    assert_eq!(two.recover().await.unwrap().taken_up, 1);
    let suspended = async {
        while two.state(&id("x")).await.unwrap().is_unsettled() {
            tokio::task::yield_now().await;
        }
        two.state(&id("x.1.0")).await.unwrap().status
    };
    assert_eq!(soon(suspended).await, Status::Suspended);
}

#[tokio::test]
async fn a_resting_tree_is_cancelled_and_deleted_without_its_tools() {
    let (calls, backends) = (Arc::new(AtomicUsize::new(0)), Backends::memory());
    let engine = tree_engine(0, &calls, &backends);
    soon(engine.orchestrate(tree())).await.unwrap();
    engine.shutdown(Duration::from_secs(5)).await;
    let bare = builder().backends(backends.clone()).build().unwrap();
    bare.cancel(&id("x")).await.unwrap();
    let settled = async {
        loop {
            let all = bare.list(&ListQuery::default()).await.unwrap().executions;
            if all
                .iter()
                .all(|each| !each.unsettled && each.status == Status::Cancelled)
            {
                return all.len();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert_eq!(soon(settled).await, 4);
    soon(bare.delete(&id("x"))).await.unwrap();
    assert_eq!(bare.list(&ListQuery::default()).await.unwrap().executions, []);
}
