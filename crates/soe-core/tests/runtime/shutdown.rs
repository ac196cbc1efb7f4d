//! Shutting down: drains, then stops; what was stopped can be gone on with.

use std::time::Duration;

use futures::StreamExt;
use soe_backends::{Backends, Status};
use soe_core::runtime::EngineErrorKind;

use crate::common::*;

#[tokio::test(start_paused = true)]
async fn what_ends_in_time_is_waited_for() {
    let gate = Gate::new();
    let engine = engine_with(gate.tool("work"));
    let execution = engine.start(start(WORK)).await.unwrap();
    gate.called().await;
    let closing = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown(Duration::from_secs(10)).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let refused = engine.start(start(ROUTER)).await.unwrap_err();
    assert_eq!(kind(&refused), &EngineErrorKind::ShutDown);
    let refused = execution.signal(["X"]).await.unwrap_err();
    assert_eq!(kind(&refused), &EngineErrorKind::ShutDown);
    gate.open(1);
    assert!(closing.await.unwrap().stopped.is_empty());
    assert_eq!(execution.wait().await.unwrap().status, Status::Rested);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_is_stopped_and_another_engine_goes_on() {
    let backends = Backends::memory();
    let gate = Gate::new();
    let engine = builder()
        .backends(backends.clone())
        .tool(gate.tool("work"))
        .build()
        .unwrap();
    let execution = engine.start(start(WORK).id(id("x"))).await.unwrap();
    let (one, all) = (execution.events(), engine.all_events());
    gate.called().await;
    let waiting = tokio::spawn({
        let execution = execution.clone();
        async move { execution.wait().await }
    });
    tokio::task::yield_now().await;
    let report = engine.shutdown(Duration::from_secs(10)).await;
    assert_eq!(report.stopped, [id("x")]);
    assert_eq!(kind(&waiting.await.unwrap().unwrap_err()), &EngineErrorKind::ShutDown);
    // The streams end.
    one.collect::<Vec<_>>().await;
    all.collect::<Vec<_>>().await;
    assert!(
        engine.events(&id("x")).count().await > 0,
        "what is stored can still be read"
    );
    assert_eq!(engine.shutdown(Duration::ZERO).await.stopped, []);
    assert_eq!(execution.status().await.unwrap().status, Status::Running);

    let second = builder().backends(backends).tool(gate.tool("work")).build().unwrap();
    second.broadcast_signals(&id("x"), ["WAKE"]).await.unwrap();
    gate.called().await;
    gate.open(1);
    second.wait(&id("x")).await.unwrap();
    assert_eq!(*gate.keys.lock().unwrap(), ["x:1", "x:1"], "the same run");
    let context = second.context(&id("x")).await.unwrap();
    assert_eq!(signals(&context), ["START", "WAKE", "DONE"]);
    assert_eq!(context.operational.tool_calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_holds_nobody_up_for_ever() {
    let store = FaultyStore::new();
    let engine = builder().backends(store.backends()).build().unwrap();
    store.fail_after(0, Fault::Hang);
    let starting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.start(start(ROUTER)).await }
    });
    tokio::task::yield_now().await;
    let shutdown = engine.shutdown(Duration::from_secs(1));
    let report = tokio::time::timeout(Duration::from_secs(60), shutdown).await.unwrap();
    assert_eq!(report.stopped.len(), 1);
    assert_eq!(kind(&starting.await.unwrap().unwrap_err()), &EngineErrorKind::ShutDown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_begins_after_a_shutdown_that_raced_with_it() {
    for _ in 0..100 {
        let backends = Backends::memory();
        let engine = builder().backends(backends.clone()).build().unwrap();
        let config = config(ROUTER);
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let (engine, config) = (engine.clone(), config.clone());
                tokio::spawn(async move {
                    engine
                        .orchestrate(soe_core::runtime::Orchestration::new(config, "flow").signal("START"))
                        .await
                })
            })
            .collect();
        let report = engine.shutdown(Duration::from_secs(30)).await;
        assert!(report.stopped.is_empty());
        let stored = engine.list(&Default::default()).await.unwrap().executions.len();
        let mut started = 0;
        for start in starts {
            match start.await.unwrap() {
                Ok(_) => started += 1,
                Err(error) => assert_eq!(kind(&error), &EngineErrorKind::ShutDown),
            }
        }
        assert_eq!(started, stored);
        assert_eq!(engine.list(&Default::default()).await.unwrap().executions.len(), stored);
    }
}
