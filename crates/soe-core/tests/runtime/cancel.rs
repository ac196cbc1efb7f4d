//! Cancelling: while a tool hangs, in a loop, from anywhere, at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use soe_backends::{EventKind, ListQuery, Status};
use soe_core::runtime::{EngineErrorKind, Orchestration};
use soe_core::tools::{ToolContext, raw_tool};

use crate::common::*;

/// Two routers that call each other for ever.
const LOOP: &str = "
flow:
  A: {node_type: router, event_triggers: [START, PONG], event_emissions: [{signal_name: PING}]}
  B: {node_type: router, event_triggers: [PING], event_emissions: [{signal_name: PONG}]}
";

#[tokio::test]
async fn a_tool_that_hangs_is_dropped() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = dropped.clone();
    let (seen, mut contexts) = tokio::sync::mpsc::channel(1);
    let tool = raw_tool("work", "", move |_: Value, context: ToolContext| {
        let (guard, seen) = (Dropped(guard.clone()), seen.clone());
        async move {
            let _guard = guard;
            seen.send(context).await?;
            std::future::pending::<Result<Value, _>>().await
        }
    });
    let engine = engine_with(tool);
    let execution = engine.start(start(WORK)).await.unwrap();
    let context = contexts.recv().await.unwrap();
    let waiting = tokio::spawn({
        let execution = execution.clone();
        async move { execution.wait().await }
    });
    tokio::task::yield_now().await;
    execution.cancel().await.unwrap();
    execution.cancel().await.unwrap();
    let error = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!(kind(&error), &EngineErrorKind::Ended(Status::Cancelled));
    soon(context.cancellation().cancelled()).await;
    engine.shutdown(Duration::from_secs(1)).await;
    assert!(dropped.load(Ordering::SeqCst));
    assert!(execution.history("result").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_loop_without_guard_can_be_cancelled_on_one_thread() {
    let engine = builder().build().unwrap();
    let execution = engine.start(start(LOOP)).await.unwrap();
    soon(execution.cancel()).await.unwrap();
    let tree = engine.tree(execution.id()).await.unwrap();
    assert_eq!(tree.status(0), Some(Status::Cancelled));
    assert!(tree.used.broadcasts < tree.limits.broadcasts);
    assert!(tree.work.is_empty() && tree.root_state().unwrap().runs.is_empty());
}

#[tokio::test]
async fn a_loop_of_failing_calls_can_be_cancelled_on_one_thread() {
    // The arguments never fit, so nothing is ever awaited.
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async { Ok(json!(1)) });
    let tool = tool
        .schema(json!({"type": "object", "required": ["x"]}))
        .failure_signal("START");
    let engine = engine_with(tool);
    let execution = engine.start(start(WORK)).await.unwrap();
    soon(execution.cancel()).await.unwrap();
    assert_eq!(execution.status().await.unwrap().status, Status::Cancelled);
}

#[tokio::test]
async fn an_interrupted_execution_is_cancelled_without_running_again() {
    let backends = soe_backends::Backends::memory();
    let gate = Gate::new();
    let first = builder()
        .backends(backends.clone())
        .tool(gate.tool("work"))
        .build()
        .unwrap();
    let execution = first.start(start(WORK).id(id("x"))).await.unwrap();
    gate.called().await;
    assert_eq!(first.shutdown(Duration::ZERO).await.stopped, [id("x")]);
    let second = builder().backends(backends).tool(gate.tool("work")).build().unwrap();
    assert_eq!(
        kind(&second.wait(&id("x")).await.unwrap_err()),
        &EngineErrorKind::NotActive
    );
    // A caller that goes away leaves nobody behind that runs it half.
    let x = id("x");
    let mut cancel = Box::pin(second.cancel(&x));
    assert!(futures::poll!(cancel.as_mut()).is_pending());
    drop(cancel);
    second.cancel(&id("x")).await.unwrap();
    assert_eq!(gate.keys.lock().unwrap().len(), 1);
    let events = second.telemetry(&id("x"), 0, 100).await.unwrap();
    let calls = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::ToolCall { .. }));
    assert_eq!(calls.count(), 1);
    assert_eq!(kind(&execution.cancel().await.unwrap_err()), &EngineErrorKind::ShutDown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_executions_cancelled_at_any_moment() {
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        Ok(json!(1))
    });
    let engine = engine_with(tool);
    let config = config(WORK);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..1_000_u64 {
        let (engine, config) = (engine.clone(), config.clone());
        tasks.spawn(async move {
            let mut random = Random(0x9E37_79B9 ^ (i + 1));
            let orchestration = Orchestration::new(config, "flow").signal("START");
            let execution = engine.start(orchestration).await.unwrap();
            let waiting = tokio::spawn({
                let execution = execution.clone();
                async move { execution.wait().await }
            });
            for _ in 0..random.below(20) {
                tokio::task::yield_now().await;
            }
            if random.below(2) == 0 {
                let _ = execution.signal(["START"]).await;
            }
            execution.cancel().await.unwrap();
            let waited = waiting.await.unwrap();
            let status = execution.status().await.unwrap().status;
            assert_eq!(status, Status::Cancelled);
            match waited {
                // It had come to rest before.
                Ok(finished) => assert_eq!(finished.status, Status::Rested),
                Err(error) => assert_eq!(kind(&error), &EngineErrorKind::Ended(Status::Cancelled)),
            }
        });
    }
    soon(tasks.join_all()).await;
    let report = soon(engine.shutdown(Duration::from_secs(30))).await;
    assert!(report.stopped.is_empty(), "nothing is left running");
    let query = ListQuery {
        status: Some(Status::Cancelled),
        limit: 2_000,
        ..ListQuery::default()
    };
    assert_eq!(engine.list(&query).await.unwrap().executions.len(), 1_000);
}
