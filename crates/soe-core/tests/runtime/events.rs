//! Following executions: replay, then live, without gaps or doubles.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use soe_backends::{Backends, EventKind, MemoryStore};
use soe_core::runtime::{Engine, StreamItem};
use soe_core::tools::{NoArguments, tool_fn};

use crate::common::*;

/// The numbers of the events up to and including the `rests`-th rest; gaps fail the test.
async fn numbers(stream: impl Stream<Item = StreamItem>, rests: usize) -> Vec<u64> {
    let mut stream = std::pin::pin!(stream);
    let (mut seen, mut rested) = (Vec::new(), 0);
    while rested < rests {
        match soon(stream.next()).await.expect("the stream ended") {
            StreamItem::Event(event) => {
                seen.push(event.seq);
                rested += usize::from(matches!(event.kind, EventKind::ExecutionRested {}));
            }
            item => panic!("{item:?} after {seen:?}"),
        }
    }
    seen
}

fn consecutive(numbers: &[u64], from: u64) -> bool {
    numbers.iter().copied().eq(from..from + numbers.len() as u64)
}

#[tokio::test]
async fn stored_ones_come_first_then_live_ones() {
    let engine = builder().build().unwrap();
    let execution = engine.start(start(ROUTER)).await.unwrap();
    execution.wait().await.unwrap();
    let early = execution.events();
    let from_three = engine.events_from(execution.id(), 3);
    execution.signal(["START"]).await.unwrap();
    let seen = numbers(early, 2).await;
    assert!(consecutive(&seen, 0), "{seen:?}");
    let later = numbers(from_three, 2).await;
    assert!(consecutive(&later, 3), "{later:?}");
    assert_eq!(later.len() + 3, seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscriber_that_comes_at_any_moment_sees_everything_once() {
    let engine = engine_with(tool_fn("work", "", |_: NoArguments, _| async { Ok(1) }));
    let config = config(WORK);
    for i in 0..500 {
        let orchestration = soe_core::runtime::Orchestration::new(config.clone(), "flow").signal("START");
        let id = id(&format!("e{i}"));
        let running = tokio::spawn({
            let (engine, id) = (engine.clone(), id.clone());
            async move { engine.orchestrate(orchestration.id(id)).await }
        });
        for _ in 0..i % 5 {
            tokio::task::yield_now().await;
        }
        let seen = numbers(engine.events(&id), 1).await;
        assert!(consecutive(&seen, 0), "{seen:?}");
        running.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_comes_while_a_commit_is_stored_sees_it() {
    let store = FaultyStore::new();
    let engine = builder().backends(store.backends()).build().unwrap();
    let execution = engine.start(start(ROUTER)).await.unwrap();
    execution.wait().await.unwrap();
    *store.delay.lock().unwrap() = Duration::from_secs(2);
    let signalling = tokio::spawn({
        let execution = execution.clone();
        async move { execution.signal(["START"]).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Nobody followed when the commit was made, and it isn't in the store when this reads there.
    let seen = numbers(execution.events(), 2).await;
    assert!(consecutive(&seen, 0), "{seen:?}");
    signalling.await.unwrap().unwrap();
}

/// Makes about 10 events a signal.
async fn talk(engine: &Engine, execution: &soe_core::runtime::Execution, rounds: usize) {
    for _ in 0..rounds {
        execution.signal(["START"]).await.unwrap();
        engine.wait(execution.id()).await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_subscriber_reads_on_in_the_store() {
    let engine = builder().build().unwrap();
    let execution = engine.start(start(ROUTER)).await.unwrap();
    let mut events = execution.events();
    assert!(events.next().await.is_some());
    talk(&engine, &execution, 300).await;
    let seen = numbers(events, 301).await;
    assert!(consecutive(&seen, 1));
}

#[tokio::test]
async fn without_telemetry_there_are_live_events_and_counts_of_missed_ones() {
    let store = Arc::new(MemoryStore::new());
    // Not `single`: the context store takes its own sections, but nobody can read events back.
    let backends = Backends::builder(store.clone(), store).build();
    let engine = builder().backends(backends).build().unwrap();
    let execution = engine.start(start(ROUTER)).await.unwrap();
    execution.wait().await.unwrap();
    let mut events = execution.events();
    let mut all = engine.all_events();
    assert!(events.next().now_or_never().is_none(), "nothing is replayed");
    execution.signal(["X"]).await.unwrap();
    let Some(StreamItem::Event(first)) = events.next().await else {
        panic!()
    };
    assert!(matches!(first.kind, EventKind::SignalsBroadcast { .. }));
    talk(&engine, &execution, 300).await;
    let mut next = first.seq + 1;
    let mut missed_some = false;
    while let Some(Some(item)) = events.next().now_or_never() {
        match item {
            StreamItem::Missed(missed) => {
                next += missed;
                missed_some = true;
            }
            StreamItem::Event(event) => {
                assert_eq!(event.seq, next);
                next += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(missed_some);
    assert!(matches!(all.next().await, Some(StreamItem::Missed(_))));
    assert!(matches!(all.next().await, Some(StreamItem::Event(_))));
    drop((events, all));
    talk(&engine, &execution, 1).await;
}

#[tokio::test]
async fn separate_stores_work_together() {
    let stores = [(); 6].map(|()| Arc::new(MemoryStore::new()));
    let [_, workflows, schemas, identities, conversations, telemetry] = stores.clone();
    let context = FaultyStore::new();
    let backends = Backends::builder(context.clone(), workflows)
        .schemas(schemas)
        .identities(identities)
        .conversations(conversations)
        .telemetry(telemetry)
        .build();
    let engine = builder().backends(backends.clone()).build().unwrap();
    let finished = engine.orchestrate(start(ROUTER).id(id("x"))).await.unwrap();
    let state = engine.state(&finished.execution).await.unwrap();
    assert!(backends.workflows().registry(&state.registry).await.unwrap().is_some());
    let events = engine.telemetry(&finished.execution, 0, 100).await.unwrap();
    let tree = engine.tree(&finished.execution).await.unwrap();
    assert_eq!(events.len() as u64, tree.next_event);
    // Taken up by another engine, that knows the registry only from the store.
    let second = builder().backends(backends).build().unwrap();
    second.broadcast_signals(&id("x"), ["START"]).await.unwrap();
    second.wait(&id("x")).await.unwrap();
    let seen = numbers(second.events(&id("x")), 2).await;
    assert!(consecutive(&seen, 0));
    second.delete(&id("x")).await.unwrap();
    assert!(second.telemetry(&id("x"), 0, 10).await.unwrap().is_empty());
}
