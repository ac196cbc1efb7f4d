//! Starting, signalling, waiting, listing, deleting, exporting.

use std::sync::Arc;

use serde_json::{Value, json};
use soe_backends::{Backends, ListQuery, Status};
use soe_core::runtime::{ContextExport, EngineErrorKind, Orchestration};
use soe_core::tools::{NoArguments, SignalError, ToolContext, raw_tool, tool_fn};

use crate::common::*;

#[tokio::test]
async fn start_returns_while_the_execution_runs() {
    let gate = Gate::new();
    let engine = engine_with(gate.tool("work"));
    let execution = engine.start(start(WORK)).await.unwrap();
    gate.called().await;
    assert_eq!(execution.status().await.unwrap().status, Status::Running);
    gate.open(1);
    let finished = execution.wait().await.unwrap();
    assert_eq!((&finished.execution, finished.status), (execution.id(), Status::Rested));
    assert_eq!(execution.history("result").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_prepared_execution_starts_with_its_first_signals() {
    let engine = builder().build().unwrap();
    let execution = engine.prepare(start(ROUTER)).await.unwrap();
    assert_eq!(execution.wait().await.unwrap().status, Status::Prepared);
    execution.signal(["START"]).await.unwrap();
    assert_eq!(execution.wait().await.unwrap().status, Status::Rested);
    assert_eq!(signals(&execution.context().await.unwrap()), ["START", "DONE"]);
}

#[tokio::test]
async fn signals_reach_every_execution_that_takes_them() {
    let gate = Gate::new();
    let engine = builder()
        .tool(gate.tool("work"))
        .node_type("fail", |_| async { Err(soe_core::nodes::NodeError::new("no")) })
        .build()
        .unwrap();
    let unknown = engine.broadcast_signals(&id("nobody"), ["X"]).await.unwrap_err();
    assert_eq!(kind(&unknown), &EngineErrorKind::NotFound);
    assert_eq!(unknown.execution(), Some(&id("nobody")));

    let running = engine.start(start(WORK)).await.unwrap();
    gate.called().await;
    running.signal(["X"]).await.unwrap();
    assert_eq!(signals(&running.context().await.unwrap()), ["START", "X"]);
    gate.open(1);
    running.wait().await.unwrap();
    running.signal(["Y"]).await.unwrap();
    running.wait().await.unwrap();
    assert_eq!(signals(&running.context().await.unwrap()), ["START", "X", "DONE", "Y"]);
    let empty = running.signal(Vec::<String>::new()).await.unwrap_err();
    assert_eq!(kind(&empty), &EngineErrorKind::Refused);

    let failed = engine.orchestrate(one_node("fail", "")).await.unwrap_err();
    let error = engine.broadcast_signals(failed.execution().unwrap(), ["X"]).await;
    assert_eq!(
        kind(&error.unwrap_err()),
        &EngineErrorKind::NotAccepting(Status::Failed)
    );

    running.cancel().await.unwrap();
    let error = running.signal(["X"]).await.unwrap_err();
    assert_eq!(kind(&error), &EngineErrorKind::NotAccepting(Status::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_broadcasts_to_a_resting_execution_are_each_handled_once() {
    let engine = builder().build().unwrap();
    let execution = engine.start(start(ROUTER)).await.unwrap();
    execution.wait().await.unwrap();
    let tasks: Vec<_> = (0..2_000)
        .map(|i| {
            let execution = execution.clone();
            tokio::spawn(async move { execution.signal([format!("S{i}")]).await })
        })
        .collect();
    for task in tasks {
        soon(task).await.unwrap().unwrap();
    }
    soon(execution.wait()).await.unwrap();
    let mut all = signals(&execution.context().await.unwrap());
    assert_eq!(all.len(), 2_002);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2_002, "each once");
    soon(engine.shutdown(std::time::Duration::from_secs(30))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_broadcast_at_the_moment_of_rest_is_not_lost() {
    let engine = engine_with(tool_fn("work", "", |_: NoArguments, _| async { Ok(1) }));
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..4_u64 {
        let engine = engine.clone();
        tasks.spawn(async move {
            let config = config(WORK);
            for round in 0..500_u64 {
                let orchestration = Orchestration::new(config.clone(), "flow").signal("START");
                let execution = engine.start(orchestration).await.unwrap();
                for _ in 0..(round + i) % 7 {
                    tokio::task::yield_now().await;
                }
                let (a, b) = tokio::join!(execution.signal(["START"]), execution.signal(["START"]));
                a.unwrap();
                b.unwrap();
                assert_eq!(execution.wait().await.unwrap().status, Status::Rested);
                let context = execution.context().await.unwrap();
                assert_eq!((count(&context, "START"), count(&context, "DONE")), (3, 3));
            }
        });
    }
    soon(tasks.join_all()).await;
    let report = soon(engine.shutdown(std::time::Duration::from_secs(30))).await;
    assert!(report.stopped.is_empty());
}

#[tokio::test]
async fn an_id_is_the_callers_and_taken_once() {
    let engine = builder().build().unwrap();
    let first = engine.orchestrate(start(ROUTER).id(id("mine"))).await.unwrap();
    assert_eq!(first.execution, id("mine"));
    let again = engine.orchestrate(start(ROUTER).id(id("mine"))).await.unwrap_err();
    assert_eq!(kind(&again), &EngineErrorKind::AlreadyExists);
    assert!(soe_backends::ExecutionId::new("../evil").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_starts_with_one_id_one_wins() {
    let backends = Backends::memory();
    let engines = [(); 2].map(|()| builder().backends(backends.clone()).build().unwrap());
    let config = config(ROUTER);
    for round in 0..200 {
        let tasks: Vec<_> = (0..6)
            .map(|i| {
                let engine = engines[i % 2].clone();
                let orchestration = Orchestration::new(config.clone(), "flow").signal("START");
                tokio::spawn(async move { engine.orchestrate(orchestration.id(id(&format!("r{round}")))).await })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => won += 1,
                Err(error) => assert_eq!(kind(&error), &EngineErrorKind::AlreadyExists),
            }
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn refusals_start_nothing() {
    let engine = builder().build().unwrap();
    for orchestration in [
        Orchestration::new(config(ROUTER), "flow"),
        Orchestration::new(config(ROUTER), "nowhere").signal("START"),
        start(WORK),
        start(ROUTER).signal(""),
        start(ROUTER).field("__x", 1),
    ] {
        let error = engine.start(orchestration).await.unwrap_err();
        assert_eq!(kind(&error), &EngineErrorKind::Refused, "{error}");
    }
    assert!(engine.list(&ListQuery::default()).await.unwrap().executions.is_empty());
}

#[tokio::test]
async fn dropping_handles_and_futures_cancels_nothing() {
    let gate = Gate::new();
    let backends = Backends::memory();
    let engine = builder()
        .backends(backends.clone())
        .tool(gate.tool("work"))
        .build()
        .unwrap();
    let mut orchestrate = Box::pin(engine.orchestrate(start(WORK).id(id("a"))));
    let mut first_poll = futures::poll!(orchestrate.as_mut());
    while gate.keys.lock().unwrap().is_empty() {
        assert!(first_poll.is_pending());
        tokio::task::yield_now().await;
        first_poll = futures::poll!(orchestrate.as_mut());
    }
    drop(orchestrate);
    drop(engine.start(start(WORK).id(id("b"))).await.unwrap());
    // Dropped before its first commit is acknowledged: it exists as a whole or not at all.
    let mut begun = Box::pin(engine.start(start(WORK).id(id("c"))));
    assert!(futures::poll!(begun.as_mut()).is_pending());
    drop(begun);
    let b = id("b");
    let mut signal = Box::pin(engine.broadcast_signals(&b, ["X"]));
    let _ = futures::poll!(signal.as_mut());
    drop(signal);
    drop(engine);
    gate.open(3);
    for name in ["a", "b", "c"] {
        let rested = async {
            while backends.context().load(&id(name)).await.unwrap().unwrap().status(0) != Some(Status::Rested) {
                tokio::task::yield_now().await;
            }
        };
        soon(rested).await;
    }
    let tree = backends.context().load(&id("b")).await.unwrap().unwrap();
    assert_eq!(count(&tree.root_state().unwrap().context, "X"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_ones_are_kept_and_resting_ones_deleted_with_their_telemetry() {
    let gate = Gate::new();
    let engine = engine_with(gate.tool("work"));
    let execution = engine.start(start(WORK)).await.unwrap();
    gate.called().await;
    let error = engine.delete(execution.id()).await.unwrap_err();
    assert_eq!(kind(&error), &EngineErrorKind::Active);
    // Right after the cancellation: its coordinator is only about to end.
    execution.cancel().await.unwrap();
    engine.delete(execution.id()).await.unwrap();
    assert!(engine.telemetry(execution.id(), 0, 10).await.unwrap().is_empty());
    for error in [
        execution.status().await.unwrap_err(),
        execution.wait().await.unwrap_err(),
        execution.cancel().await.unwrap_err(),
        engine.delete(execution.id()).await.unwrap_err(),
    ] {
        assert_eq!(kind(&error), &EngineErrorKind::NotFound);
    }
    // The id is free again.
    engine
        .orchestrate(start(ROUTER).id(execution.id().clone()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_context_survives_export_and_import() {
    let engine = builder().build().unwrap();
    let orchestration = start(ROUTER).field("x", 1).field("x", json!([2])).field("y", "z");
    let first = engine.orchestrate(orchestration).await.unwrap();
    let text = serde_json::to_string(&engine.export(&first.execution).await.unwrap()).unwrap();
    let export: ContextExport = serde_json::from_str(&text).unwrap();
    let second = engine
        .orchestrate(start(ROUTER).import(export).field("x", 3))
        .await
        .unwrap();
    let context = engine.context(&second.execution).await.unwrap();
    assert_eq!(context.history("x").unwrap().len(), 3);
    assert_eq!(context.value("x").unwrap().as_i64(), Some(3));
    assert_eq!(context.value("y").unwrap().as_str(), Some("z"));
    assert_eq!(signals(&context), ["START", "DONE"]);
}

#[tokio::test]
async fn a_tools_signals_arrive_in_order_before_its_completion() {
    let tool = raw_tool("work", "", |_: Value, context: ToolContext| async move {
        let own = context.execution_id();
        for signal in ["A", "B", "C"] {
            context.signal(own, [signal])?;
        }
        let foreign = soe_backends::ExecutionId::new("foreign")?;
        let refused = context.signal(&foreign, ["EVIL"]).unwrap_err();
        assert!(matches!(refused, SignalError::Refused { execution, .. } if execution == foreign));
        Ok(json!(1))
    });
    let engine = engine_with(tool);
    engine.orchestrate(start(ROUTER).id(id("foreign"))).await.unwrap();
    let finished = engine.orchestrate(start(WORK)).await.unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    assert_eq!(signals(&context), ["START", "A", "B", "C", "DONE"]);
    let report = engine.shutdown(std::time::Duration::from_secs(5)).await;
    assert!(report.stopped.is_empty());
    let foreign = engine.context(&id("foreign")).await.unwrap();
    assert_eq!(count(&foreign, "EVIL"), 0, "another tree");
}

#[tokio::test]
async fn a_task_that_outlives_its_tool_wakes_the_execution() {
    let late: Arc<tokio::sync::Notify> = Arc::default();
    let go = late.clone();
    let tool = raw_tool("work", "", move |_: Value, context: ToolContext| {
        let go = go.clone();
        async move {
            tokio::spawn(async move {
                go.notified().await;
                context.signal(context.execution_id(), ["LATE"])
            });
            Ok(json!(1))
        }
    });
    let engine = engine_with(tool);
    let execution = engine.start(start(WORK)).await.unwrap();
    execution.wait().await.unwrap();
    late.notify_one();
    let arrived = async {
        while count(&execution.context().await.unwrap(), "LATE") == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(arrived).await;
}
