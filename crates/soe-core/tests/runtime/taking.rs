//! What a coordinator takes together, and in which order it acts on it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use soe_backends::*;
use soe_core::runtime::{Engine, EngineErrorKind};

use crate::common::*;

const TWO: &str = "
flow:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: worker
    child_initial_signals: [GO]
    fan_out_field: items
    child_input_field: item
    child_failure_signal: GONE
worker:
  Work: {node_type: tool, event_triggers: [GO], tool_name: work, output_field: result, event_emissions: [{signal_name: WORKED}]}
";

/// Two children of `x` whose calls are in flight.
async fn two_children(backends: &Backends, gate: &Gate) -> Engine {
    let engine = builder()
        .backends(backends.clone())
        .tool(gate.tool("work"))
        .build()
        .unwrap();
    let items = Value::list([1_i64, 2].map(Value::from));
    engine
        .start(start(TWO).id(id("x")).field("items", items))
        .await
        .unwrap();
    for _ in 0..2 {
        soon(gate.called()).await;
    }
    engine
}

#[tokio::test]
async fn who_waits_for_a_child_hears_of_its_rest_when_that_is_stored() {
    let (store, gate) = (FaultyStore::new(), Gate::new());
    let engine = two_children(&store.backends(), &gate).await;
    *store.delay.lock().unwrap() = Duration::from_millis(50);
    let commits = store.commits.load(Ordering::SeqCst);
    let signalling = tokio::spawn({
        let engine = engine.clone();
        async move { engine.broadcast_signals(&id("x"), ["X"]).await }
    });
    while store.commits.load(Ordering::SeqCst) == commits {
        tokio::task::yield_now().await;
    }
    // While that is stored, the results come, and then the question.
    gate.open(2);
    for child in ["x.1.0", "x.1.1"] {
        assert_eq!(soon(engine.wait(&id(child))).await.unwrap().status, Status::Rested);
        assert_eq!(engine.status(&id(child)).await.unwrap().status, Status::Rested);
    }
    soon(signalling).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_child_of_an_interrupted_tree_is_cancelled_without_what_the_others_need() {
    let (backends, gates) = (Backends::memory(), [Gate::new(), Gate::new()]);
    let one = two_children(&backends, &gates[0]).await;
    soon(one.shutdown(Duration::ZERO)).await;

    // To cancel a child, nothing is needed. What follows is left to an engine that has what the others need.
    let bare = builder().backends(backends.clone()).build().unwrap();
    bare.cancel(&id("x.1.0")).await.unwrap();
    let error = soon(bare.wait(&id("x"))).await.unwrap_err();
    assert!(
        matches!(error.kind(), EngineErrorKind::Refused | EngineErrorKind::NotActive),
        "the other child would fail: {error}"
    );
    assert_eq!(bare.status(&id("x.1.0")).await.unwrap().status, Status::Cancelled);
    assert_eq!(bare.status(&id("x.1.1")).await.unwrap().status, Status::Running);
    soon(bare.shutdown(Duration::ZERO)).await;

    let two = builder()
        .backends(backends)
        .tool(gates[1].tool("work"))
        .build()
        .unwrap();
    two.recover().await.unwrap();
    soon(gates[1].called()).await;
    gates[1].open(1);
    soon(two.wait(&id("x"))).await.unwrap();
    assert_eq!(*gates[1].keys.lock().unwrap(), ["x.1.1:1"]);
    assert_eq!(count(&two.context(&id("x")).await.unwrap(), "GONE"), 1);
}

fn posted(number: u64, request: Request) -> Message {
    Message {
        id: format!("m{number}").into(),
        at: Timestamp::from_micros(number),
        execution: id("x"),
        request,
    }
}

#[tokio::test]
async fn what_an_end_stops_and_a_resumption_takes_up_in_one_batch_is_performed_once() {
    let gate = Gate::new();
    let engine = engine_with(gate.tool("work"));
    let limits = |runs| Limits {
        runs,
        ..Limits::default()
    };
    engine.prepare(start(WORK).id(id("x")).limits(limits(1))).await.unwrap();
    let begin = Request::Signal(["START".into()].into());
    // The first begins a call, the second exceeds the limit, the third goes on under another.
    let resume = Request::Resume {
        limits: Some(limits(2).into()),
    };
    for (number, request) in [begin.clone(), begin, resume].into_iter().enumerate() {
        let message = posted(number as u64, request);
        engine.backends().context().post(&id("x"), &message).await.unwrap();
    }
    assert_eq!(engine.recover().await.unwrap().taken_up, 1);
    gate.open(10);
    soon(engine.wait(&id("x"))).await.unwrap();
    let mut keys = gate.keys.lock().unwrap().clone();
    keys.sort();
    assert_eq!(keys, ["x:1", "x:2"]);
    assert_eq!(count(&engine.context(&id("x")).await.unwrap(), "DONE"), 2);
}

#[tokio::test]
async fn more_messages_than_are_taken_together_are_all_taken() {
    let engine = builder().build().unwrap();
    engine.prepare(start(ROUTER).id(id("x"))).await.unwrap();
    for number in 0..1_000 {
        let request = Request::Signal([format!("S{number}").into()].into());
        engine
            .backends()
            .context()
            .post(&id("x"), &posted(number, request))
            .await
            .unwrap();
    }
    assert_eq!(engine.recover().await.unwrap().taken_up, 1);
    soon(engine.wait(&id("x"))).await.unwrap();
    let all = signals(&engine.context(&id("x")).await.unwrap());
    assert!(
        all.iter().cloned().eq((0..1_000).map(|number| format!("S{number}"))),
        "{all:?}"
    );
    assert!(engine.backends().context().waiting(1).await.unwrap().is_empty());
}
